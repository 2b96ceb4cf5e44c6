package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/outside"
)

// column is one of a table.
type column struct {
	head  string
	cells []string
	// drop is the order in which columns are left out of a terminal that is too narrow; 0 is never.
	drop int
	// cut allows cells to be shortened, down to least.
	cut   bool
	least int
	style func(cell string) string
}

func (c column) width() int {
	w := utf8.RuneCountInString(c.head)
	for _, s := range c.cells {
		w = max(w, utf8.RuneCountInString(s))
	}
	return w
}

// status writes the table of nodes and the lines of the pools.
func (s *screen) status(w io.Writer, st cluster.Status, now time.Time) error {
	name, pool, state := column{head: "NODE", cut: true, least: 16}, column{head: "POOL", drop: 5},
		column{head: "STATE", style: s.paint}
	reason, message := column{head: "REASON", drop: 6}, column{head: "MESSAGE", drop: 3, cut: true, least: 20}
	desired, observed, age := column{head: "DESIRED", drop: 2}, column{head: "OBSERVED", drop: 1},
		column{head: "REPORTED", drop: 4}
	for _, n := range st.Nodes {
		name.cells = append(name.cells, n.Name)
		pool.cells = append(pool.cells, orDash(n.Pool))
		state.cells = append(state.cells, stateCell(n))
		reason.cells = append(reason.cells, orDash(n.Reason))
		desired.cells = append(desired.cells, orDash(shortDigest(n.Desired)))
		observed.cells = append(observed.cells, orDash(shortDigest(n.Observed)))
		age.cells = append(age.cells, ago(n.CheckedAt, now))
		message.cells = append(message.cells, n.Message)
	}
	if err := s.table(w, []column{name, pool, state, reason, desired, observed, age, message}); err != nil {
		return err
	}
	lines := []string{""}
	for _, p := range st.Pools {
		lines = append(lines, s.poolLine(p))
	}
	for _, a := range st.Advisories {
		lines = append(lines, advisoryLine(a, len(st.Nodes)))
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// stateCell marks a bad state that may be of the past.
func stateCell(n cluster.Node) string {
	if n.Stale {
		return string(n.State) + " (stale)"
	}
	return string(n.State)
}

func (s *screen) poolLine(p cluster.Pool) string {
	var parts []string
	for _, st := range []judge.State{
		judge.Enforced, judge.NotEnforced, judge.Blocked, judge.Contested, judge.Shadowed, judge.RolledBack, judge.Drifted,
		judge.Unknown,
	} {
		if n := p.States[st]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s.paint(string(st))))
		}
	}
	line := fmt.Sprintf("pool %s: %d of %d enforced (%s)", orDash(p.Pool), p.Enforced, p.Nodes, strings.Join(parts, ", "))
	if p.Stale > 0 {
		line += fmt.Sprintf("; %d stale", p.Stale)
	}
	if n := len(p.Desired); n > 1 {
		line += fmt.Sprintf("; %d desired states, a change is on its way", n)
	}
	return line
}

// advisoryLine tells of a known hole, and of as many runtimes with it as a line has room for.
func advisoryLine(a cluster.Advisory, nodes int) string {
	const most = 3
	line := fmt.Sprintf("advisory %s: %d of %d nodes, by the version of the runtime", a.ID, a.Nodes, nodes)
	if n := len(a.Runtimes); n > 0 {
		line += " (" + outside.Printable(strings.Join(a.Runtimes[:min(n, most)], ", "))
		if n > most {
			line += fmt.Sprintf(" and %d more", n-most)
		}
		line += ")"
	}
	return line + "; fixed in image library " + a.Fixed
}

// table writes columns side by side. On a terminal it leaves out and shortens what does not fit.
func (s *screen) table(w io.Writer, cols []column) error {
	const gap = 2
	// One column stays free: what clears the rest of a line would take the last character of one that ends at the edge.
	limit := s.width() - 1
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
		cols = append(append([]column{}, cols[:i]...), cols[i+1:]...)
		widths, total = measure(cols, gap)
	}
	for row := -1; row < len(cols[0].cells); row++ {
		var line strings.Builder
		for i, c := range cols {
			cell := c.head
			if row >= 0 {
				cell = c.cells[row]
			}
			cell = shorten(cell, widths[i])
			pad := widths[i] - utf8.RuneCountInString(cell) + gap
			if row >= 0 && c.style != nil {
				cell = c.style(cell)
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

func measure(cols []column, gap int) (widths []int, total int) {
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
func shrink(cols []column, widths []int, over int) bool {
	for i := len(cols) - 1; i >= 0; i-- {
		if spare := widths[i] - cols[i].least; cols[i].cut && spare > 0 {
			take := min(spare, over)
			widths[i] -= take
			over -= take
		}
	}
	return over <= 0
}

// lowest returns the column that is left out next, or -1.
func lowest(cols []column) int {
	at := -1
	for i, c := range cols {
		if c.drop > 0 && (at < 0 || c.drop < cols[at].drop) {
			at = i
		}
	}
	return at
}

func shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// paint colours a state on a terminal.
func (s *screen) paint(state string) string {
	if !s.color {
		return state
	}
	name, _, _ := strings.Cut(strings.TrimSuffix(state, "…"), " ")
	switch judge.State(name) {
	case judge.Enforced:
		return green + state + plain
	case judge.Unknown:
		return yellow + state + plain
	}
	return red + state + plain
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// shortDigest is enough of a digest to tell two apart by eye.
func shortDigest(d string) string {
	const digits = 12
	hex := strings.TrimPrefix(d, "sha256:")
	return hex[:min(len(hex), digits)]
}

// ago is how long ago t was, in one unit or two.
func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	d := now.Sub(*t)
	switch {
	case d < 0:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}
