// Package outside makes text fit to be shown that came from outside: from servers, files and clusters. Such text is
// printable, bounded and without secrets on its way to a terminal, a report or a message. It is pure: it links the
// standard library only, and decides nothing.
package outside

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of text in bytes.
const (
	// Most is the bound of a message.
	Most = 500
	// MostName is the bound of a name that has to stay whole to be of use: a reference, a URL, a path.
	MostName = 4096
)

const ellipsis = "…"

// Text returns s as one line of at most Most bytes: what Printable returns, without secrets.
func Text(s string) string { return Bounded(s, Most) }

// Name is Text for references, URLs and paths: of at most MostName bytes.
func Name(s string) string { return Bounded(s, MostName) }

// Bounded is Text of at most most bytes. A text that was cut ends in "…".
func Bounded(s string, most int) string { return Secrets{}.Bounded(s, most) }

// Printable returns s as one line that can't command a terminal, and whose characters stand in the order in which they
// are shown. Blanks of any kind are spaces. What isn't printable is "?": control characters (C0 and C1), format
// characters (text direction, zero width), line separators, bytes that are no UTF-8. Neither length nor secrets change.
func Printable(s string) string {
	if plain(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r) && r != utf8.RuneError:
			return r
		case unicode.IsSpace(r) && r != '\u0085' && r != '\u2028' && r != '\u2029':
			return ' '
		}
		return '?'
	}, s)
}

// IsPrintable is true for what Printable leaves as it is.
func IsPrintable(s string) bool { return plain(s) || Printable(s) == s }

// plain is true for printable ASCII, which most text is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Cut returns at most the first most bytes of s, in whole characters. A text that was cut ends in "…".
func Cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	if most < len(ellipsis) {
		return ""
	}
	return head(s, most-len(ellipsis)) + ellipsis
}

// head is at most the first n bytes of s, in whole characters.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
