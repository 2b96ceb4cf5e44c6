package cli

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Column is one column of a table whose rows are values of type T.
type Column[T any] struct {
	Head string
	Cell func(row T) string
	// Drop is the order in which columns are left out of a terminal that is too narrow; 0 is never.
	Drop int
	// Least is the width down to which cells may be shortened; 0 is not at all.
	Least int
	// Style colours a cell.
	Style func(cell string) string
}

// Table writes rows to s, their columns side by side. On a terminal it leaves out and shortens what does not fit.
func Table[T any](s *Screen, rows []T, columns ...Column[T]) {
	const gap = 2
	type column struct {
		Column[T]
		cells []string // the head first
		width int
	}
	var cols []column
	for _, c := range columns {
		cells := []string{c.Head}
		for _, r := range rows {
			cells = append(cells, c.Cell(r))
		}
		cols = append(cols, column{Column: c, cells: cells})
	}
	// One column stays free: what clears the rest of a line would take the last character of one that ends at the edge.
	limit := s.Width() - 1
	for {
		over := -gap - limit
		for i := range cols {
			cols[i].width = 0
			for _, cell := range cols[i].cells {
				cols[i].width = max(cols[i].width, utf8.RuneCountInString(cell))
			}
			over += cols[i].width + gap
		}
		drop := -1 // the column that is left out next
		for i, c := range slices.Backward(cols) {
			if c.Drop > 0 && (drop < 0 || c.Drop <= cols[drop].Drop) {
				drop = i
			}
			if spare := min(c.width-c.Least, over); limit > 0 && c.Least > 0 && spare > 0 {
				cols[i].width -= spare
				over -= spare
			}
		}
		if limit <= 0 || over <= 0 || drop < 0 {
			break
		}
		cols = slices.Delete(cols, drop, drop+1)
	}
	headless := !slices.ContainsFunc(cols, func(c column) bool { return c.Head != "" })
	for row := range len(rows) + 1 {
		if row == 0 && headless {
			continue
		}
		var line strings.Builder
		for i, c := range cols {
			cell := Shorten(c.cells[row], c.width)
			pad := c.width - utf8.RuneCountInString(cell) + gap
			if row > 0 && c.Style != nil {
				cell = c.Style(cell)
			}
			line.WriteString(cell)
			if i < len(cols)-1 {
				line.WriteString(strings.Repeat(" ", pad))
			}
		}
		fmt.Fprintln(s, strings.TrimRight(line.String(), " "))
	}
}

// Shorten returns at most width characters of s; what was cut ends in "…".
func Shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// Dash returns s, or "-" for nothing.
func Dash[S ~string](s S) string {
	if s == "" {
		return "-"
	}
	return string(s)
}
