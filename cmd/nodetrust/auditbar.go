package main

import (
	"fmt"
	"time"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cli"
)

// showProgress shows how far an audit is, how fast, and how long it will take.
func showProgress(bar *cli.Bar, p audit.Progress) {
	if p.Total > 0 {
		bar.Show(func(since time.Duration) string { return auditProgress(p, since) })
	}
}

// auditProgress is the bar after a time. What came from the cache says nothing of how fast the rest will be.
func auditProgress(p audit.Progress, after time.Duration) string {
	s := fmt.Sprintf("%s %d of %d images", cli.Meter(24, int64(p.Done), int64(p.Total)), p.Done, p.Total)
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
