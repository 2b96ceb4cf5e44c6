package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// perGroup is how many images of a group are listed on a terminal.
const perGroup = 10

// auditText is the text of an audit: the summary, what locks out, then the groups by fix, without accepted images.
type auditText struct {
	*cli.Screen
	width int // 0: no limit
}

// writeAudit writes what fits the screen, where that is a terminal.
func writeAudit(s *cli.Screen, r *audit.Report) {
	t := &auditText{s, s.Width()}
	t.summary(r.Summary)
	t.lockout(r.Summary.Lockout)
	byFix := map[string][]audit.Image{}
	var moved []audit.Image
	for _, m := range r.Images {
		if m.Fix != "" {
			byFix[m.Fix] = append(byFix[m.Fix], m)
		}
		if len(m.InUse) > 0 {
			moved = append(moved, m)
		}
	}
	for _, f := range r.Summary.Fixes {
		t.group(f, byFix[f.ID])
	}
	t.moved(moved)
}

func (t *auditText) line(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if t.width > 0 {
		s = cli.Shorten(s, t.width)
	}
	fmt.Fprintln(t, s)
}

// wrapped writes text in lines that fit, each after indent.
func (t *auditText) wrapped(indent, text string) {
	if t.width <= utf8.RuneCountInString(indent)+20 {
		t.line("%s%s", indent, text)
		return
	}
	for _, line := range cli.Wrap(indent, indent, text, t.width) {
		t.line("%s", line)
	}
}

func (t *auditText) paint(a verdict.Answer, s string) string {
	return t.Paint(map[verdict.Answer]cli.Colour{
		verdict.Accept: cli.Green, verdict.Refuse: cli.Red, verdict.Unknown: cli.Yellow,
	}[a], s)
}

func (t *auditText) summary(s audit.Summary) {
	t.coverage(s)
	about := fmt.Sprintf("%s; policy %s, %s", counted(s.Uses, "use", "uses"), s.Policy, s.CheckedAt.Format(time.RFC3339))
	if s.ByTag > 0 {
		about += fmt.Sprintf("; %d named by tag, %d by digest", s.ByTag, s.Images-s.ByTag)
	}
	if s.RequireSigned {
		about += "; without a signature nothing is accepted"
	}
	if s.Cached > 0 {
		about += fmt.Sprintf("; %d answers are those of an earlier audit", s.Cached)
	}
	t.wrapped("  ", about)
	if s.Desired != "" {
		t.wrapped("  ", "desired "+s.Desired)
	}
	for _, p := range s.Problems {
		t.wrapped("  ", "INCOMPLETE: "+p)
	}
}

// coverage writes the first line: how many images have which answer. A narrow terminal gets the line in two.
func (t *auditText) coverage(s audit.Summary) {
	parts := []struct {
		colour verdict.Answer
		n      int
		what   string
	}{
		{verdict.Accept, s.Signed, "accepted because of a signature"},
		{verdict.Unknown, s.Unsigned, "because nobody asks for one"},
		{verdict.Refuse, s.Refuse, "would be refused"},
		{verdict.Unknown, s.Unknown, "could not be judged"},
	}
	line, length := images(s.Images)+": ", len(images(s.Images))
	for i, p := range parts {
		text := fmt.Sprintf("%d %s", p.n, p.what)
		if i > 0 {
			line += ","
			if length += len(", " + text); t.width > 0 && length > t.width {
				line, length = line+"\n ", len("  "+text)
			}
			line += " "
		} else {
			length += len(": " + text)
		}
		if p.n > 0 {
			text = t.paint(p.colour, text)
		}
		line += text
	}
	fmt.Fprintln(t, line)
}

// counted returns "1 one", or the number with the plural.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func images(n int) string { return counted(n, "image", "images") }

func (t *auditText) lockout(list []audit.Lockout) {
	for _, want := range []struct {
		answer verdict.Answer
		title  string
	}{
		{verdict.Refuse, "LOCKOUT: the cluster can't go on without these, and they would be refused"},
		{verdict.Unknown, "could be a LOCKOUT: the cluster can't go on without these, and they could not be judged"},
	} {
		first := true
		for _, l := range list {
			if l.Answer != want.answer {
				continue
			}
			if first {
				t.line("")
				fmt.Fprintln(t, t.paint(want.answer, want.title))
				first = false
			}
			t.line("  %-13s  %s", l.Role, t.name(l.Image))
			t.wrapped("                 ", fmt.Sprintf("%s: %s", l.Reason, l.Message))
		}
	}
}

func (t *auditText) group(f audit.Fix, list []audit.Image) {
	title := f.Title
	if f.Reason != "" {
		title += fmt.Sprintf(" (%s)", f.Reason)
	}
	lines := []string{fmt.Sprintf("%s: %s", f.Answer, title)}
	if t.width > 0 {
		lines = cli.Wrap(string(f.Answer)+": ", "  ", title, t.width)
	}
	lines[0] = t.paint(f.Answer, string(f.Answer)) + strings.TrimPrefix(lines[0], string(f.Answer))
	fmt.Fprintf(t, "\n%s\n", strings.Join(lines, "\n"))
	if f.Hint != "" {
		t.wrapped("  ", "hint: "+f.Hint)
	}
	shown, widest := len(list), 0
	if t.width > 0 {
		shown = min(shown, perGroup)
	}
	names := make([]string, shown)
	for i, m := range list[:shown] {
		names[i] = t.name(m.Image)
		widest = max(widest, utf8.RuneCountInString(names[i]))
	}
	if t.width > 0 {
		widest = min(widest, t.width*3/5)
	}
	for i, m := range list[:shown] {
		t.line("  %-*s  %s", widest, cli.Shorten(names[i], widest), usedBy(m))
	}
	if n := len(list) - shown; n > 0 {
		t.line("  and %d more: -o html, -o json, or a pipe, have all of them", n)
	}
}

// name is an image's; on a terminal with no more of a digest than tells two apart.
func (t *auditText) name(image string) string {
	if repo, digest, ok := strings.Cut(image, "@sha256:"); ok && t.width > 0 && len(digest) == 64 {
		return repo + "@sha256:" + digest[:12] + "…"
	}
	return image
}

// usedBy says who uses an image, in a few words.
func usedBy(m audit.Image) string {
	s := ""
	if m.Role != "" {
		s = string(m.Role) + ": "
	}
	switch n := len(m.UsedBy); n {
	case 0:
		return s + "-"
	case 1:
		return s + m.UsedBy[0]
	default:
		return s + fmt.Sprintf("%s and %d more", m.UsedBy[0], n-1)
	}
}

// moved names tags that point elsewhere than what runs.
func (t *auditText) moved(list []audit.Image) {
	if len(list) == 0 {
		return
	}
	t.line("")
	t.wrapped("", fmt.Sprintf("note: %s tagged anew since they were pulled, and judged as what a new pull takes",
		counted(len(list), "image was", "images were")))
	for _, m := range list {
		t.line("  %s  in use: %s", m.Image, shortDigest(m.InUse[0]))
	}
}

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
