package cluster

import (
	"slices"
	"strings"
	"unicode"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Advisory is a known hole in runtimes' verifiers, and the number of nodes that have it.
type Advisory struct {
	ID string `json:"id"`
	// Title says in one line what a runtime with the hole accepts. Fixed is the first version of the image library
	// without it.
	Title string `json:"title"`
	Fixed string `json:"fixed"`
	// Nodes counts the nodes with the hole. It makes no node bad.
	Nodes int `json:"nodes"`
	// Runtimes are the CRI runtimes with the hole, as kubelets name them.
	Runtimes []string `json:"runtimes"`
}

// advisories lists the holes of a node's runtimes, in the order of trust.Advisories. The CRI runtime's holes follow
// from the kubelet's version, without an agent; podman's from the IDs in the agent's message, while the report holds.
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

// holes takes a runtime in the form cri-o://1.34.0.
func holes(runtime string) []string {
	name, version, _ := strings.Cut(runtime, "://")
	return trust.LookupRuntime(name, version).Advisories
}

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
