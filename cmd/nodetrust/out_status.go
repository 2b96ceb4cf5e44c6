package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/outside"
)

// writeStatus writes the table of nodes and the lines of the pools.
func writeStatus(s *cli.Screen, st cluster.Status, now time.Time) {
	type column = cli.Column[cluster.Node]
	cli.Table(s, st.Nodes,
		column{Head: "NODE", Least: 16, Cell: func(n cluster.Node) string { return n.Name }},
		column{Head: "POOL", Drop: 5, Cell: func(n cluster.Node) string { return cli.Dash(n.Pool) }},
		column{Head: "STATE", Cell: stateCell, Style: func(cell string) string { return paintState(s, cell) }},
		column{Head: "REASON", Drop: 6, Cell: func(n cluster.Node) string { return cli.Dash(n.Reason) }},
		column{Head: "DESIRED", Drop: 2, Cell: func(n cluster.Node) string { return cli.Dash(shortDigest(n.Desired)) }},
		column{Head: "OBSERVED", Drop: 1, Cell: func(n cluster.Node) string { return cli.Dash(shortDigest(n.Observed)) }},
		column{Head: "REPORTED", Drop: 4, Cell: func(n cluster.Node) string { return ago(n.CheckedAt, now) }},
		column{Head: "MESSAGE", Drop: 3, Least: 20, Cell: func(n cluster.Node) string { return n.Message }})
	fmt.Fprintln(s)
	for _, p := range st.Pools {
		fmt.Fprintln(s, poolLine(s, p))
	}
	for _, a := range st.Advisories {
		fmt.Fprintln(s, advisoryLine(a, len(st.Nodes)))
	}
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
		judge.Enforced, judge.NotEnforced, judge.Blocked, judge.Contested, judge.Shadowed, judge.RolledBack, judge.Held,
		judge.Drifted, judge.Unknown,
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
