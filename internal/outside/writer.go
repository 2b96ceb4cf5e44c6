package outside

import (
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Writer passes printable text and chosen sequences to another writer. It replaces everything else that Printable
// replaces, so that no text can command the terminal. It is safe for concurrent use.
type Writer struct {
	w   io.Writer
	own []string

	mu sync.Mutex
	// rest is the beginning of an unfinished character or sequence.
	rest []byte
}

// NewWriter returns a Writer to w. Own are sequences of control characters that pass unchanged; "\n" always does.
func NewWriter(w io.Writer, own ...string) *Writer { return &Writer{w: w, own: own} }

// Unwrap returns the underlying writer.
func (w *Writer) Unwrap() io.Writer { return w.w }

// Write writes the allowed form of p.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) == 0 && allClear(p) {
		return w.w.Write(p)
	}
	in := string(append(w.rest, p...))
	out, rest := w.filter(in)
	w.rest = []byte(rest)
	if _, err := io.WriteString(w.w, out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes an unfinished character or sequence that Write held back.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := Printable(string(w.rest))
	w.rest = nil
	_, err := io.WriteString(w.w, rest)
	return err
}

// filter returns the allowed form of s without its unfinished end, and this end.
func (w *Writer) filter(s string) (out, rest string) {
	var b strings.Builder
	b.Grow(len(s))
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\n' || unicode.IsPrint(r) && r != utf8.RuneError:
			b.WriteString(s[:n])
		case r == utf8.RuneError && !utf8.FullRuneInString(s):
			return b.String(), s
		default:
			own, unfinished := w.sequence(s)
			switch {
			case own != "":
				b.WriteString(own)
				n = len(own)
			case unfinished:
				return b.String(), s
			default:
				b.WriteString(Printable(s[:n]))
			}
		}
		s = s[n:]
	}
	return b.String(), ""
}

// sequence returns the own sequence at the start of s, or whether s may be the beginning of one.
func (w *Writer) sequence(s string) (own string, unfinished bool) {
	for _, q := range w.own {
		if strings.HasPrefix(s, q) && len(q) > len(own) {
			own = q
		}
		unfinished = unfinished || len(s) < len(q) && strings.HasPrefix(q, s)
	}
	return own, unfinished
}

// allClear reports whether p is lines of printable ASCII.
func allClear(p []byte) bool {
	for _, c := range p {
		if (c < ' ' || c > '~') && c != '\n' {
			return false
		}
	}
	return true
}
