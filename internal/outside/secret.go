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

// redacted stands for a secret.
const redacted = "[redacted]"

// Secrets are values that must not be told: passwords and tokens that the process holds. What looks like a secret isn't
// told either; the zero value knows no more than that. Copies share their values, and may be used at the same time.
type Secrets struct{ known *known }

type known struct {
	mu     sync.Mutex
	values []string // the longest first
}

// NewSecrets returns a set that Add can extend.
func NewSecrets() Secrets { return Secrets{&known{}} }

// leastSecret is the length below which a value is none: it would stand in any text.
const leastSecret = 3

// Add takes values in, with the forms in which servers echo them. The zero value takes none.
func (s Secrets) Add(values ...string) {
	if s.known == nil {
		return
	}
	s.known.mu.Lock()
	defer s.known.mu.Unlock()
	all := slices.Clone(s.known.values) // others read those that were
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

// percent escapes s for a URL; net/url isn't linked by those who do no I/O.
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

// AddAuthorization takes in what is secret of an Authorization header: all of a Bearer token, the password of Basic.
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
	// A server may send megabytes: what is far behind the bound isn't looked at.
	const beyond = 32 << 10
	short := head(text, most+beyond)
	short = s.Redact(strings.TrimSpace(Printable(short)))
	if len(short) <= most && len(text) > most+beyond {
		short += ellipsis
	}
	return Cut(short, most)
}

// Redact returns text without secrets: those that are known; user and password of URLs; Bearer tokens, Basic logins and
// JSON web tokens; values that are named token, password, signature and the like.
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
	// A look for words costs less than the patterns do.
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

// names are what secrets are called, in lower case.
var names = []string{"token", "secret", "passw", "authorization", "api", "credential"}

// withoutValue takes a known value out. A short one could be a part of any word, and counts where it stands alone.
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
	// parameter is one of a URL: those of signed URLs are good for whoever has them.
	parameter = lazily(`(?i)([?&][a-z0-9_.-]*(?:token|secret|passw|signature|credential|api-?key|assertion|\bsig\b|\bcode\b)[a-z0-9_.-]*=)[^&\s"'#<>]+`)
	// named isn't "token:v1" behind a slash, which is an image.
	named = lazily(`(?i)((?:^|[^\w/.-])[a-z0-9_-]*(?:token|secret|password|passwd|authorization|api[_-]?key|credentials?))(["']?\s*[:=]\s*["']?)([^\s"',;&<>{}\[\]]+)`)
)

// lazily compiles a regular expression when it is first used: most texts look like no secret.
func lazily(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// withoutUserinfo takes out what stands before the host of URLs. The name in docker://name@sha256:… is none.
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

// words stand behind "bearer" in sentences and challenges.
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

// withoutBasic takes out what is a login: base64 of user:password. "Basic authentication" is none.
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

// withoutNamed takes out the value of "token=…", "password":"…" and so on. Behind ":" a word is the rest of a
// sentence or a tag ("invalid token: expired", "token:v1"); what is long and has a digit, or what is quoted, is a
// value.
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
