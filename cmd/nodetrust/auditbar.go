package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/audit"
)

// auditBar shows on a terminal how far an audit is, how fast, and how long it will take.
type auditBar struct {
	*bar
	start time.Time
	width func() int
}

func newAuditBar(w io.Writer) *auditBar {
	return &auditBar{bar: newBar(w), start: time.Now(), width: newScreen(w).width}
}

func (b *auditBar) show(p audit.Progress) {
	now := time.Now()
	if b.w == nil || p.Total == 0 || now.Before(b.next) {
		return
	}
	b.next = now.Add(100 * time.Millisecond)
	line := auditProgress(p, now.Sub(b.start))
	if n := b.width(); n > 0 {
		line = shorten(line, n-1)
	}
	fmt.Fprintf(b.w, "\r%s"+clearLine, line)
}

// auditProgress is the bar after a time. What came from the cache says nothing of how fast the rest will be.
func auditProgress(p audit.Progress, after time.Duration) string {
	const width = 24
	full := p.Done * width / p.Total
	s := fmt.Sprintf("[%-*s] %d of %d images", width, strings.Repeat("#", full), p.Done, p.Total)
	if judged := p.Done - p.Cached; judged > 0 && after > 0 {
		rate := float64(judged) / after.Seconds()
		left := time.Duration(float64(p.Total-p.Done) / rate * float64(time.Second)).Round(time.Second)
		s += fmt.Sprintf(", %.0f/s, %s left", rate, left)
	}
	if p.Refuse > 0 {
		s += fmt.Sprintf(", %d refused", p.Refuse)
	}
	if p.Unknown > 0 {
		s += fmt.Sprintf(", %d unknown", p.Unknown)
	}
	return s
}
