package registriesd

import (
	"net/url"
	"strconv"
	"strings"
)

// WithoutPassword is a lookaside's URL as it may be shown. In one that doesn't parse, or has its password in another
// place than URLs have, all that could be one is left out: from the first colon behind the scheme to the last @.
func WithoutPassword(s string) string {
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		return u.Redacted()
	case err == nil && (u.Host != "" || u.Scheme == "file"):
		return s
	}
	at := strings.LastIndex(s, "@")
	if at < 0 {
		return s
	}
	from := 0
	if scheme, _, ok := strings.Cut(s[:at], "://"); ok && !strings.Contains(scheme, ":") {
		from = len(scheme) + len("://")
	}
	colon := strings.Index(s[from:at], ":")
	if colon < 0 {
		return s
	}
	return s[:from+colon] + ":xxxxx" + s[at:]
}

// Redact is an error of the image library without the passwords of lookasides: the library tells the password of a
// URL which doesn't parse, or has it in another place than URLs have.
func (c Config) Redact(err error) error {
	var pairs []string
	hide := func(e Entry) {
		s := e.URL()
		safe := WithoutPassword(s)
		if safe == s {
			return
		}
		forms := []string{s}
		if u, bad := url.Parse(s); bad == nil {
			forms = append(forms, u.String())
		} else { // which tells parts of it too
			pairs = append(pairs, s+": "+bad.Error(), safe+": is no URL")
		}
		for _, form := range forms {
			pairs = append(pairs, form, safe, strings.Trim(strconv.Quote(form), `"`), safe)
		}
	}
	if c.Default != nil {
		hide(*c.Default)
	}
	for _, e := range c.Docker {
		hide(e)
	}
	return Replace(err, pairs...)
}

// Replace is an error with another text: of pairs of texts the first is replaced by the second, as
// strings.NewReplacer does it.
func Replace(err error, pairs ...string) error {
	text := strings.NewReplacer(pairs...).Replace(err.Error())
	if text == err.Error() {
		return err
	}
	return &replacedError{text, err}
}

type replacedError struct {
	text string
	err  error
}

func (e *replacedError) Error() string { return e.text }
func (e *replacedError) Unwrap() error { return e.err }
