package outside

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const redacted = "[redacted]"

// Secrets are passwords and tokens that the process holds and must not print. Redact also removes what looks like a
// secret; the zero value removes only that. Copies share their values and may be used concurrently.
type Secrets struct{ known *known }

type known struct {
	mu     sync.Mutex
	values []string // the longest first
}

// NewSecrets returns an empty set that Add extends.
func NewSecrets() Secrets { return Secrets{&known{}} }

// leastSecret is the least length of a secret: a shorter value would occur in any text.
const leastSecret = 3

// Add adds values and the forms in which servers echo them. On the zero value it does nothing.
func (s Secrets) Add(values ...string) {
	if s.known == nil {
		return
	}
	s.known.mu.Lock()
	defer s.known.mu.Unlock()
	all := slices.Clone(s.known.values) // a copy: readers hold the old slice
	for _, v := range values {
		for _, form := range []string{v, percent(v), base64.StdEncoding.EncodeToString([]byte(v))} {
			if len(v) >= leastSecret && !slices.Contains(all, form) {
				all = append(all, form)
			}
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	s.known.values = all
}

// percent escapes s for a URL. net/url is not linked by packages without I/O.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; strings.IndexByte("-._~", c) >= 0 || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// AddAuthorization adds the secret of an Authorization header: a Bearer token, or the password of Basic.
func (s Secrets) AddAuthorization(header string) {
	scheme, value, _ := strings.Cut(header, " ")
	s.Add(value)
	if !strings.EqualFold(scheme, "basic") {
		return
	}
	if b, err := base64.StdEncoding.DecodeString(value); err == nil {
		_, password, _ := strings.Cut(string(b), ":")
		s.Add(password)
	}
}

// Text is the function Text without these secrets.
func (s Secrets) Text(text string) string { return s.Bounded(text, Most) }

// Name is the function Name without these secrets.
func (s Secrets) Name(text string) string { return s.Bounded(text, MostName) }

// Bounded is the function Bounded without these secrets.
func (s Secrets) Bounded(text string, most int) string {
	// A server may send megabytes: skip what is far behind the bound.
	const beyond = 32 << 10
	short := head(text, most+beyond)
	short = s.Redact(strings.TrimSpace(Printable(short)))
	if len(short) <= most && len(text) > most+beyond {
		short += ellipsis
	}
	return Cut(short, most)
}

// Redact returns text without known secrets, URLs' users and passwords, Bearer tokens, Basic logins, JSON web tokens,
// and values named token, password, signature and the like.
func (s Secrets) Redact(text string) string {
	if s.known != nil {
		s.known.mu.Lock()
		values := s.known.values
		s.known.mu.Unlock()
		for _, v := range values {
			text = withoutValue(text, v)
		}
	}
	if strings.Contains(text, "://") && strings.Contains(text, "@") {
		text = withoutUserinfo(text)
	}
	if strings.Contains(text, "eyJ") {
		text = webToken().ReplaceAllString(text, redacted)
	}
	// A search for words is cheaper than the patterns.
	lower := strings.ToLower(text)
	if strings.Contains(lower, "bearer") {
		text = bearer().ReplaceAllStringFunc(text, withoutBearer)
	}
	if strings.Contains(lower, "basic") {
		text = basic().ReplaceAllStringFunc(text, withoutBasic)
	}
	if strings.ContainsAny(text, "?&") && strings.Contains(text, "=") {
		text = parameter().ReplaceAllString(text, "${1}"+redacted)
	}
	if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(lower, name) }) {
		text = named().ReplaceAllStringFunc(text, withoutNamed)
	}
	return text
}

// names are parts of secrets' names, in lower case.
var names = []string{"token", "secret", "passw", "authorization", "api", "credential"}

// withoutValue removes a known value. A short value counts only where it is no part of a word.
func withoutValue(text, value string) string {
	const long = 8
	if len(value) >= long {
		return strings.ReplaceAll(text, value, redacted)
	}
	var b strings.Builder
	for {
		i := strings.Index(text, value)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(value):])
		b.WriteString(text[:i])
		if isWord(before) || isWord(after) {
			b.WriteString(value)
		} else {
			b.WriteString(redacted)
		}
		text = text[i+len(value):]
	}
}

func isWord(r rune) bool { return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r)) }

var (
	userinfo = lazily(`[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s"'<>]*@`)
	webToken = lazily(`\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){1,4}`)
	bearer   = lazily(`(?i)(?:^|[^\w/.-])bearer(?:\s+token)?(?:["']?:)?(?:\s+|\s*=\s*)["']?[A-Za-z0-9._~+/=-]{4,}`)
	basic    = lazily(`(?i)\bbasic\s+[A-Za-z0-9+/_-]{4,}=*`)
	// parameter is a parameter of a URL. A signed URL is usable by whoever has it.
	parameter = lazily(`(?i)([?&][a-z0-9_.-]*(?:token|secret|passw|signature|credential|api-?key|assertion|\bsig\b|\bcode\b)[a-z0-9_.-]*=)[^&\s"'#<>]+`)
	// named does not match "token:v1" behind a slash: an image.
	named = lazily(`(?i)((?:^|[^\w/.-])[a-z0-9_-]*(?:token|secret|password|passwd|authorization|api[_-]?key|credentials?))(["']?\s*[:=]\s*["']?)([^\s"',;&<>{}\[\]]+)`)
)

// lazily compiles a regular expression when it is first used: most texts look like no secret.
func lazily(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// withoutUserinfo removes user and password of URLs. The name in docker://name@sha256:… is none.
func withoutUserinfo(text string) string {
	var b strings.Builder
	for {
		at := userinfo().FindStringIndex(text)
		if at == nil {
			b.WriteString(text)
			return b.String()
		}
		found, rest := text[at[0]:at[1]], text[at[1]:]
		b.WriteString(text[:at[0]])
		scheme, user, _ := strings.Cut(found, "://")
		switch {
		case strings.HasPrefix(rest, "sha256:"), strings.HasPrefix(rest, "sha384:"), strings.HasPrefix(rest, "sha512:"),
			strings.HasSuffix(user, "xxxxx@"):
			b.WriteString(found)
		default:
			b.WriteString(scheme + "://" + redacted + "@")
		}
		text = rest
	}
}

// words follow "bearer" in sentences and challenges.
var words = []string{
	"auth", "authentication", "authorization", "challenge", "credentials", "error", "from", "header", "invalid", "missing",
	"must", "realm=", "realm", "required", "scheme", "token", "tokens", "with",
}

func withoutBearer(found string) string {
	i := strings.LastIndexAny(found, " \t\n:\"'")
	if scheme, _, ok := strings.Cut(found, "="); ok && i < 0 {
		i = len(scheme)
	}
	value := found[i+1:]
	if slices.Contains(words, strings.ToLower(strings.TrimRight(value, ".-"))) {
		return found
	}
	return found[:i+1] + redacted
}

// withoutBasic removes a login: base64 of user:password. "Basic authentication" is none.
func withoutBasic(found string) string {
	i := strings.LastIndexAny(found, " \t")
	value := strings.TrimRight(found[i+1:], "=")
	b, err := base64.RawStdEncoding.DecodeString(value)
	if err != nil {
		b, err = base64.RawURLEncoding.DecodeString(value)
	}
	if err != nil || !strings.Contains(string(b), ":") {
		return found
	}
	return found[:i+1] + redacted
}

// withoutNamed removes the value of "token=…", "password":"…" and so on. Behind ":" only a quoted text, or a long one
// with a digit, is a value: "invalid token: expired" and "token:v1" have none.
func withoutNamed(found string) string {
	m := named().FindStringSubmatch(found)
	name, between, value := m[1], m[2], m[3]
	sentence := strings.Trim(between, " ") == ":"
	long := len(value) >= 16 && strings.ContainsAny(value, "0123456789")
	switch {
	case strings.Contains(value, redacted[1:len(redacted)-1]), strings.Contains(value, "://"):
		return found
	case sentence && !long && !strings.HasSuffix(strings.ToLower(name), "password"), isScheme(value):
		return found
	}
	return name + between + redacted
}

func isScheme(s string) bool { return strings.EqualFold(s, "bearer") || strings.EqualFold(s, "basic") }
