package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/outside"
)

// Times of a Bar: what is done at once needs none, and nobody reads more than some lines a second.
const (
	barDelay = 200 * time.Millisecond
	barEvery = 100 * time.Millisecond
)

// Bar shows progress on a terminal, and nothing anywhere else.
type Bar struct {
	w     io.Writer // nil: no terminal
	width func() int
	next  time.Time
	// Start is the time at which the work began.
	Start time.Time
}

// NewBar returns the bar of work that begins now.
func NewBar(w io.Writer) *Bar {
	b := &Bar{Start: time.Now()}
	if f, ok := terminalOf(w); ok {
		b.w, b.width, b.next = outside.NewWriter(f, "\r", clearLine), NewScreen(w).Width, b.Start.Add(barDelay)
	}
	return b
}

// Show shows what line returns of the time since the start, unless the last one was shown just now.
func (b *Bar) Show(line func(since time.Duration) string) {
	now := time.Now()
	if b.w == nil || now.Before(b.next) {
		return
	}
	b.next = now.Add(barEvery)
	text := line(now.Sub(b.Start))
	if n := b.width(); n > 0 {
		text = Shorten(text, n-1)
	}
	fmt.Fprintf(b.w, "\r%s"+clearLine, text)
}

// Clear takes the bar away.
func (b *Bar) Clear() {
	if b.w != nil {
		fmt.Fprint(b.w, "\r"+clearLine)
	}
}

// Meter returns a bar of width characters for done of total, for example "[###   ]".
func Meter(width int, done, total int64) string {
	return fmt.Sprintf("[%-*s]", width, strings.Repeat("#", int(done*int64(width)/total)))
}
