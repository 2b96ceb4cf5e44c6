package trust

import (
	"fmt"
	"sort"
	"strings"
)

// Problem is one thing that is wrong with a trust config.
type Problem struct {
	File string
	// Line is 0 when the problem is the whole file's.
	Line int
	// Path is the field, for example spec.registries[2].lookaside; empty when there is none.
	Path    string
	Message string
}

// String is "trust.yaml:12: spec.registries[2].lookaside: must be …".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems is everything that is wrong with a trust config, in the order of lines; never empty when it is an error.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, q := range p {
		lines[i] = q.String()
	}
	return strings.Join(lines, "\n")
}

// sorted orders by line and keeps the order of discovery within one.
func (p Problems) sorted() Problems {
	sort.SliceStable(p, func(i, j int) bool { return p[i].Line < p[j].Line })
	return p
}

// err is nil when there are no problems.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p.sorted()
}
