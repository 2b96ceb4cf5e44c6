// Package outside makes text from servers, files and clusters fit for a terminal, a report or a message: printable,
// bounded and without secrets. It is pure and links only the standard library.
package outside

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of text in bytes.
const (
	Most = 500
	// MostName bounds names that are useless when cut: references, URLs, paths.
	MostName = 4096
)

const ellipsis = "…"

// Text returns s as one printable line of at most Most bytes, without secrets.
func Text(s string) string { return Bounded(s, Most) }

// Name is Text for references, URLs and paths: at most MostName bytes.
func Name(s string) string { return Bounded(s, MostName) }

// Bounded is Text of at most most bytes. A cut text ends in "…".
func Bounded(s string, most int) string { return Secrets{}.Bounded(s, most) }

// Printable returns s as one line without terminal commands, its characters in the order in which they are shown.
// Blanks become spaces. "?" replaces control characters (C0, C1), format characters (text direction, zero width), line
// separators and invalid UTF-8. Printable neither cuts nor redacts.
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

// IsPrintable reports whether Printable leaves s unchanged.
func IsPrintable(s string) bool { return plain(s) || Printable(s) == s }

// plain reports whether s is printable ASCII, the common case.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Cut returns at most the first most bytes of s, in whole characters. A cut text ends in "…".
func Cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	if most < len(ellipsis) {
		return ""
	}
	return head(s, most-len(ellipsis)) + ellipsis
}

func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
