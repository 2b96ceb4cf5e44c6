package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/outside"
)

// writeStatus writes the table of nodes and the lines of the pools.
func writeStatus(w io.Writer, s *cli.Screen, st cluster.Status, now time.Time) error {
	name, pool, state := cli.Column{Head: "NODE", Cut: true, Least: 16}, cli.Column{Head: "POOL", Drop: 5},
		cli.Column{Head: "STATE", Style: func(cell string) string { return paintState(s, cell) }}
	reason, message := cli.Column{Head: "REASON", Drop: 6}, cli.Column{Head: "MESSAGE", Drop: 3, Cut: true, Least: 20}
	desired, observed, age := cli.Column{Head: "DESIRED", Drop: 2}, cli.Column{Head: "OBSERVED", Drop: 1},
		cli.Column{Head: "REPORTED", Drop: 4}
	for _, n := range st.Nodes {
		name.Cells = append(name.Cells, n.Name)
		pool.Cells = append(pool.Cells, cli.Dash(n.Pool))
		state.Cells = append(state.Cells, stateCell(n))
		reason.Cells = append(reason.Cells, cli.Dash(n.Reason))
		desired.Cells = append(desired.Cells, cli.Dash(shortDigest(n.Desired)))
		observed.Cells = append(observed.Cells, cli.Dash(shortDigest(n.Observed)))
		age.Cells = append(age.Cells, ago(n.CheckedAt, now))
		message.Cells = append(message.Cells, n.Message)
	}
	if err := s.Table(w, []cli.Column{name, pool, state, reason, desired, observed, age, message}); err != nil {
		return err
	}
	lines := []string{""}
	for _, p := range st.Pools {
		lines = append(lines, poolLine(s, p))
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

func poolLine(s *cli.Screen, p cluster.Pool) string {
	var parts []string
	for _, st := range []judge.State{
		judge.Enforced, judge.NotEnforced, judge.Blocked, judge.Contested, judge.Shadowed, judge.RolledBack, judge.Drifted,
		judge.Unknown,
	} {
		if n := p.States[st]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, paintState(s, string(st))))
		}
	}
	line := fmt.Sprintf("pool %s: %d of %d enforced (%s)", cli.Dash(p.Pool), p.Enforced, p.Nodes,
		strings.Join(parts, ", "))
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

// paintState colours a state on a terminal.
func paintState(s *cli.Screen, state string) string {
	colour := cli.Red
	name, _, _ := strings.Cut(strings.TrimSuffix(state, "…"), " ")
	switch judge.State(name) {
	case judge.Enforced:
		colour = cli.Green
	case judge.Unknown:
		colour = cli.Yellow
	}
	return s.Paint(colour, state)
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
