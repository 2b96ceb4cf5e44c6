package cluster

import (
	"slices"
	"strings"
	"unicode"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Advisory is a known hole in the verifiers of some runtimes, and how many nodes have one of these.
type Advisory struct {
	ID string `json:"id"`
	// Title says in one line what a runtime with the hole accepts. Fixed is the first version of the image library
	// without it.
	Title string `json:"title"`
	Fixed string `json:"fixed"`
	// Nodes counts the nodes that have it. It makes no node bad.
	Nodes int `json:"nodes"`
	// Runtimes are the CRI runtimes that have it, as the kubelets name them.
	Runtimes []string `json:"runtimes"`
}

// advisories lists the holes of a node's runtimes, in the order of trust.Advisories. Those of the CRI runtime are
// looked up by the version that the kubelet tells: they are known without an agent. Of podman's the agent's report
// tells as long as the report holds: in its message, by the IDs of known holes.
func advisories(n Node) []string {
	ofCRI := holes(n.Runtime)
	var told []string
	if n.State == judge.Enforced && n.Reason == judge.ReasonRuntimeAdvisory {
		told = strings.FieldsFunc(n.Message, func(r rune) bool {
			return r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
		})
	}
	out := []string{}
	for _, a := range trust.Advisories() {
		if slices.Contains(ofCRI, a.ID) || slices.Contains(told, a.ID) {
			out = append(out, a.ID)
		}
	}
	return out
}

// holes lists those of a runtime that is called cri-o://1.34.0.
func holes(runtime string) []string {
	name, version, _ := strings.Cut(runtime, "://")
	return trust.LookupRuntime(name, version).Advisories
}

// countAdvisories lists the holes that at least one of the nodes has.
func countAdvisories(nodes []Node) []Advisory {
	out := []Advisory{}
	for _, known := range trust.Advisories() {
		a := Advisory{ID: known.ID, Title: known.Title, Fixed: known.Fixed, Runtimes: []string{}}
		for _, n := range nodes {
			if !slices.Contains(n.Advisories, a.ID) {
				continue
			}
			a.Nodes++
			if slices.Contains(holes(n.Runtime), a.ID) {
				a.Runtimes = append(a.Runtimes, n.Runtime)
			}
		}
		slices.Sort(a.Runtimes)
		a.Runtimes = slices.Compact(a.Runtimes)
		if a.Nodes > 0 {
			out = append(out, a)
		}
	}
	return out
}
