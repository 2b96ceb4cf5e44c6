package secondlook

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// errJSON says that bytes are no JSON (RFC 8259).
var errJSON = errors.New("is no JSON")

// maxDepth bounds how deep values may be nested, as encoding/json does, which runtimes use.
const maxDepth = 10000

// member is one member of a JSON object; value is its text.
type member struct {
	key   string
	value []byte
}

// object splits a JSON object into its members, in order. Members with equal keys are all there.
func object(b []byte) ([]member, error) {
	r := reader{b: b}
	var out []member
	err := r.object(0, func(key string, value []byte) { out = append(out, member{key, value}) })
	return out, r.whole(err)
}

// array splits a JSON array into the texts of its values.
func array(b []byte) ([][]byte, error) {
	r := reader{b: b}
	var out [][]byte
	err := r.array(0, func(value []byte) { out = append(out, value) })
	return out, r.whole(err)
}

// text returns the string that a JSON value is.
func text(b []byte) (string, error) {
	r := reader{b: b}
	r.blanks()
	s, err := r.text()
	return s, r.whole(err)
}

// isObject reports whether a JSON value is an object.
func isObject(b []byte) bool {
	_, err := object(b)
	return err == nil
}

// reader walks through JSON text. It keeps no values of what it skips.
type reader struct {
	b  []byte
	at int
}

// whole reports an error, or text that is left over.
func (r *reader) whole(err error) error {
	if err != nil {
		return err
	}
	if r.blanks(); r.at != len(r.b) {
		return fmt.Errorf("%w: more follows at byte %d", errJSON, r.at)
	}
	return nil
}

func (r *reader) blanks() {
	r.at = len(r.b) - len(bytes.TrimLeft(r.b[r.at:], " \t\r\n"))
}

// next skips blanks and returns the byte that follows; 0 at the end.
func (r *reader) next() byte {
	r.blanks()
	if r.at == len(r.b) {
		return 0
	}
	return r.b[r.at]
}

func (r *reader) take(c byte) error {
	if r.next() != c {
		return fmt.Errorf("%w: %q is missing at byte %d", errJSON, c, r.at)
	}
	r.at++
	return nil
}

func (r *reader) object(depth int, each func(key string, value []byte)) error {
	return r.list('{', '}', func() error {
		r.blanks()
		key, err := r.text()
		if err != nil {
			return err
		}
		if err := r.take(':'); err != nil {
			return err
		}
		value, err := r.value(depth + 1)
		if err == nil && each != nil {
			each(key, value)
		}
		return err
	})
}

func (r *reader) array(depth int, each func(value []byte)) error {
	return r.list('[', ']', func() error {
		value, err := r.value(depth + 1)
		if err == nil && each != nil {
			each(value)
		}
		return err
	})
}

// list reads what stands between two brackets, separated by commas; item reads one.
func (r *reader) list(first, last byte, item func() error) error {
	if err := r.take(first); err != nil {
		return err
	}
	if r.next() == last {
		r.at++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if r.next() == last {
			r.at++
			return nil
		}
		if err := r.take(','); err != nil {
			return err
		}
	}
}

// value skips a value and returns its text.
func (r *reader) value(depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w that is read: nested more than %d times", errJSON, maxDepth)
	}
	c := r.next()
	start := r.at
	var err error
	switch {
	case c == '{':
		err = r.object(depth, nil)
	case c == '[':
		err = r.array(depth, nil)
	case c == '"':
		_, err = r.text()
	case c == '-' || c >= '0' && c <= '9':
		err = r.number()
	default:
		err = r.word()
	}
	return r.b[start:r.at], err
}

func (r *reader) word() error {
	for _, w := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(r.b[r.at:], []byte(w)) {
			r.at += len(w)
			return nil
		}
	}
	return fmt.Errorf("%w: no value at byte %d", errJSON, r.at)
}

func (r *reader) number() error {
	r.skip("-")
	whole := r.at
	if n := r.digits(); n == 0 || n > 1 && r.b[whole] == '0' {
		return fmt.Errorf("%w: no number at byte %d", errJSON, whole)
	}
	if r.skip(".") && r.digits() == 0 {
		return fmt.Errorf("%w: no digit at byte %d", errJSON, r.at)
	}
	if !r.skip("eE") {
		return nil
	}
	if r.skip("+-"); r.digits() == 0 {
		return fmt.Errorf("%w: no digit at byte %d", errJSON, r.at)
	}
	return nil
}

// skip skips the current byte if it is one of these.
func (r *reader) skip(any string) bool {
	found := r.at < len(r.b) && strings.IndexByte(any, r.b[r.at]) >= 0
	if found {
		r.at++
	}
	return found
}

func (r *reader) digits() (n int) {
	for r.skip("0123456789") {
		n++
	}
	return n
}

// text reads a string at the current byte. Bytes that are no UTF-8 become U+FFFD, so that no two texts of them are
// equal to something else.
func (r *reader) text() (string, error) {
	if r.at == len(r.b) || r.b[r.at] != '"' {
		return "", fmt.Errorf("%w: no string at byte %d", errJSON, r.at)
	}
	var out []byte
	for r.at++; r.at < len(r.b); {
		switch c := r.b[r.at]; {
		case c == '"':
			r.at++
			return string(out), nil
		case c < 0x20:
			return "", fmt.Errorf("%w: a control character in a string at byte %d", errJSON, r.at)
		case c == '\\':
			char, err := r.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, char)
		default:
			char, size := utf8.DecodeRune(r.b[r.at:])
			out = utf8.AppendRune(out, char)
			r.at += size
		}
	}
	return "", fmt.Errorf("%w: a string without end", errJSON)
}

// escape reads what follows a backslash, which the current byte is.
func (r *reader) escape() (rune, error) {
	if r.at+1 >= len(r.b) {
		return 0, fmt.Errorf("%w: a string without end", errJSON)
	}
	short := map[byte]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}
	if char, ok := short[r.b[r.at+1]]; ok {
		r.at += 2
		return char, nil
	}
	char, ok := r.unicode()
	if !ok {
		return 0, fmt.Errorf("%w: an unknown escape at byte %d", errJSON, r.at)
	}
	if !utf16.IsSurrogate(char) {
		return char, nil
	}
	before := r.at
	if low, ok := r.unicode(); ok {
		if both := utf16.DecodeRune(char, low); both != utf8.RuneError {
			return both, nil
		}
	}
	r.at = before
	return utf8.RuneError, nil
}

// unicode reads \uXXXX.
func (r *reader) unicode() (rune, bool) {
	if r.at+6 > len(r.b) || r.b[r.at] != '\\' || r.b[r.at+1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(r.b[r.at+2:r.at+6]), 16, 16)
	if err != nil {
		return 0, false
	}
	r.at += 6
	return rune(n), true
}
