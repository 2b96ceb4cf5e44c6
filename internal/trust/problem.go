package trust

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one fault of a trust config.
type Problem struct {
	File string
	// Line is 0 for a problem of the whole file.
	Line int
	// Path is the field, for example spec.registries[2].lookaside, or "".
	Path    string
	Message string
}

// String returns for example "trust.yaml:12: spec.registries[2].lookaside: must be …".
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

// Problems is all problems of a trust config, in the order of lines. As an error it is never empty.
type Problems []Problem

// Error returns one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, q := range p {
		lines[i] = q.String()
	}
	return strings.Join(lines, "\n")
}

func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return p
}
