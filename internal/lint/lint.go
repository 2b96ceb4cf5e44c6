// Package lint finds what is wrong with the files that decide which images a node accepts: what a reader would reject,
// and what it would take without doing what was meant. Whether files load is the image library's own word.
package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/outside"
)

// Severity is error or warning.
type Severity string

// Severities. An error does not do what it says: it doesn't load, or it never has the effect that was meant. A warning
// works, and is likely not what was wanted.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// MaxPolicy bounds a policy.json, in bytes.
const MaxPolicy = 4 << 20

// Other limits of what is read.
const (
	maxRegistries = 1 << 20
	maxKeyFile    = 1 << 20
	maxFindings   = 1000 // per report; the rest is counted
	maxFiles      = 4096 // in one directory
)

// Finding is one thing that is wrong. Codes are stable and listed in docs/lint.md.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     Code     `json:"code"`
	File     string   `json:"file"`
	// Line counts from 1; 0 if the finding is the whole file's.
	Line    int    `json:"line"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Reader is whether one reader loads the files. Loads says nothing of what it makes of them.
type Reader struct {
	Reader string `json:"reader"`
	Loads  bool   `json:"loads"`
	Error  string `json:"error"`
	// Note says that the reader is taken for another version, if it is.
	Note string `json:"note,omitempty"`
}

// Report is the JSON of `nodetrust lint`.
type Report struct {
	Findings []Finding `json:"findings"`
	Readers  []Reader  `json:"readers"`
}

// Clean reports whether there is no error finding and every reader loads.
func (r *Report) Clean() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error }) &&
		!slices.ContainsFunc(r.Readers, func(r Reader) bool { return !r.Loads })
}

// linter gathers findings.
type linter struct {
	findings []Finding
	dropped  int
	now      time.Time
}

// place is what a finding is about: a file, a line of it, and the thing there that its message begins with.
type place struct {
	file string
	line int
	what string
}

// in is the place of a member of what is at p.
func (p place) in(member string) place {
	p.what += member
	return p
}

// add returns the new finding, for a hint or a severity that is not the code's.
func (l *linter) add(code Code, at place, format string, args ...any) *Finding {
	row, f := code.row(), Finding{Code: code, File: at.file, Line: at.line, Message: fmt.Sprintf(format, args...)}
	f.Severity, f.Hint = row.severity, row.hint
	if at.what != "" {
		f.Message = at.what + ": " + f.Message
	}
	return l.take(f)
}

// addIf adds the finding if the condition holds. It returns the new finding as add does, or one that is not added.
func (l *linter) addIf(holds bool, code Code, at place, format string, args ...any) *Finding {
	if !holds {
		return new(Finding)
	}
	return l.add(code, at, format, args...)
}

// take adds what was found elsewhere.
func (l *linter) take(f Finding) *Finding {
	if len(l.findings) >= maxFindings {
		l.dropped++
		return &f
	}
	f.File, f.Message = outside.Name(f.File), outside.Text(f.Message)
	l.findings = append(l.findings, f)
	return &l.findings[len(l.findings)-1]
}

// sorted orders by file and line, and says how many findings were left out.
func (l *linter) sorted() []Finding {
	for i := range l.findings {
		l.findings[i].Hint = outside.Text(l.findings[i].Hint)
	}
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	out := slices.Clip(l.findings)
	if l.dropped > 0 {
		out = append(out, Finding{
			Severity: Error, Code: "too-many-findings",
			Message: fmt.Sprintf("%d more findings are not shown", l.dropped),
		})
	}
	if out == nil {
		out = []Finding{}
	}
	return out
}

// nearest returns the candidate that s was likely meant to be, or "".
func nearest(s string, candidates []string) string {
	best, at := "", 3
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < at && d < len(c)/2 {
			best, at = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance, for short strings.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := prev
			if a[i] != b[j] {
				d = 1 + min(prev, row[j], row[j+1])
			}
			prev, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
