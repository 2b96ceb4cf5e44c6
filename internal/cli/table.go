package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Column is one of a table.
type Column struct {
	Head  string
	Cells []string
	// Drop is the order in which columns are left out of a terminal that is too narrow; 0 is never.
	Drop int
	// Cut allows cells to be shortened, down to Least.
	Cut   bool
	Least int
	// Style colours a cell.
	Style func(cell string) string
}

func (c Column) width() int {
	w := utf8.RuneCountInString(c.Head)
	for _, s := range c.Cells {
		w = max(w, utf8.RuneCountInString(s))
	}
	return w
}

// Table writes columns side by side. On a terminal it leaves out and shortens what does not fit.
func (s *Screen) Table(w io.Writer, cols []Column) error {
	const gap = 2
	// One column stays free: what clears the rest of a line would take the last character of one that ends at the edge.
	limit := s.Width() - 1
	widths, total := measure(cols, gap)
	for limit > 0 && total > limit {
		if shrink(cols, widths, total-limit) {
			total = sum(widths, gap)
			continue
		}
		i := lowest(cols)
		if i < 0 {
			break
		}
		cols = append(append([]Column{}, cols[:i]...), cols[i+1:]...)
		widths, total = measure(cols, gap)
	}
	first := -1 // the heads
	if !slices.ContainsFunc(cols, func(c Column) bool { return c.Head != "" }) {
		first = 0
	}
	for row := first; row < len(cols[0].Cells); row++ {
		var line strings.Builder
		for i, c := range cols {
			cell := c.Head
			if row >= 0 {
				cell = c.Cells[row]
			}
			cell = Shorten(cell, widths[i])
			pad := widths[i] - utf8.RuneCountInString(cell) + gap
			if row >= 0 && c.Style != nil {
				cell = c.Style(cell)
			}
			line.WriteString(cell)
			if i < len(cols)-1 {
				line.WriteString(strings.Repeat(" ", pad))
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

func measure(cols []Column, gap int) (widths []int, total int) {
	for _, c := range cols {
		widths = append(widths, c.width())
	}
	return widths, sum(widths, gap)
}

func sum(widths []int, gap int) int {
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	return total
}

// shrink takes over from the columns that may be cut, the last one first, and reports whether that was enough.
func shrink(cols []Column, widths []int, over int) bool {
	for i := len(cols) - 1; i >= 0; i-- {
		if spare := widths[i] - cols[i].Least; cols[i].Cut && spare > 0 {
			take := min(spare, over)
			widths[i] -= take
			over -= take
		}
	}
	return over <= 0
}

// lowest returns the column that is left out next, or -1.
func lowest(cols []Column) int {
	at := -1
	for i, c := range cols {
		if c.Drop > 0 && (at < 0 || c.Drop < cols[at].Drop) {
			at = i
		}
	}
	return at
}

// Shorten returns at most width characters of s; what was cut ends in "…".
func Shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// Dash returns s, or "-" for nothing.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
