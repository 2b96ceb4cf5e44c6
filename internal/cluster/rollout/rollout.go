// Package rollout judges whether a MachineConfig has reached the nodes of a pool and is enforced there. It is pure: it
// judges a snapshot, and knows no cluster and no clock.
//
// The conditions of a MachineConfigPool are not enough: Updated=True may still be about the MachineConfig before, and
// a MachineConfig counts as rolled out even if another one replaces all its files.
package rollout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// State is the state of a rollout.
type State string

// The states.
const (
	// RolledOut: every node of the pool has the files, and its agent has seen them enforced.
	RolledOut   State = "RolledOut"
	Progressing State = "Progressing"
	Paused      State = "Paused"
	// Shadowed: another MachineConfig of the pool replaces a file, for good.
	Shadowed State = "Shadowed"
	// Degraded: the Machine Config Operator can't go on.
	Degraded State = "Degraded"
	// NotEnforced: the files are rolled out, but a node's agent reports that other files decide there.
	NotEnforced State = "NotEnforced"
	// Outdated: all is rolled out and enforced, but files of others that were merged into ours have changed since.
	// Their present content reaches no node.
	Outdated State = "Outdated"
	Unknown  State = "Unknown"
)

// Bad reports whether the state needs an action.
func (s State) Bad() bool {
	return s == Shadowed || s == Degraded || s == NotEnforced || s == Outdated
}

// Reasons of states, one of which explains each state but RolledOut.
const (
	ReasonNoNodes     = "NoNodes"     // the pool has no nodes: nothing is proved
	ReasonNotApplied  = "NotApplied"  // the cluster has no such MachineConfig
	ReasonOtherBytes  = "OtherBytes"  // the cluster's MachineConfig of this name differs
	ReasonNotSelected = "NotSelected" // the pool does not take it
	ReasonUnreadable  = "Unreadable"  // the files of ours or of the rendered one are unknown
	ReasonNoOwner     = "OwnerUnknown"
	ReasonNotRendered = "NotRendered" // the MCO has not rendered it yet
	ReasonNotObserved = "NotObserved" // the MCO has not seen the pool's latest change
	ReasonUpdating    = "NodesUpdating"
	ReasonAgentBehind = "AgentBehind" // an agent still compares with other files
	ReasonAgent       = "AgentUnknown"
	ReasonAgents      = "AgentsSay"
	ReasonPool        = "PoolDegraded"
	ReasonNodes       = "NodesDegraded"
	ReasonFile        = "FileReplaced"
	ReasonPaused      = "PoolPaused"
	ReasonMerged      = "MergedChanged" // a file that was merged into ours has changed
)

type Pool struct {
	Name                           string
	Paused                         bool
	Generation, ObservedGeneration int64
	// Rendered is the rendered MachineConfig, made of Source, that the nodes are to have. Reached is the last that all
	// of them had.
	Rendered, Reached string
	Source            []string
	// Counts of the pool's status.
	Machines, Updated, Ready, Unavailable int
	Conditions                            map[string]Condition
}

// Condition is a condition of a pool.
type Condition struct{ Status, Reason, Message string }

func (p Pool) is(condition string) bool { return p.Conditions[condition].Status == "True" }

// Files are a MachineConfig's files at the wanted paths.
type Files struct {
	// Found is false if there is no such MachineConfig.
	Found bool
	Files trust.FileSet
	// Err is why Files are unknown.
	Err error
}

// Node is a node of the pool, by the MCO's daemon and the agent.
type Node struct {
	Name string `json:"node"`
	// Current, Desired and Daemon are annotations of the MCO.
	Current string `json:"current"`
	Desired string `json:"desired"`
	Daemon  string `json:"daemon"`
	// Why is the daemon's reason for a state that is not Done.
	Why   string `json:"why,omitempty"`
	Agent Agent  `json:"agent"`
}

// Agent is the agent's report as nodetrust status shows it: a report that may not hold is Unknown.
type Agent struct {
	State   judge.State `json:"state"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
	Desired string      `json:"desired"`
}

// Snapshot is the input of Judge for one pool.
type Snapshot struct {
	Pool Pool
	// Name and Want are our MachineConfig as rendered.
	Name string
	Want trust.FileSet
	// Live is the cluster's MachineConfig of that name, Rendered the content of Pool.Rendered.
	Live, Rendered Files
	// Merge is the merge of the sources. Judge needs it if Rendered lacks a wanted file, or Pool.Source lacks Name.
	Merge Merge
	// Outdated are the changes of what was merged into ours, OutdatedErr is why they are unknown.
	Outdated    []string
	OutdatedErr error
	// Ambiguous is why it is unknown which of several MachineConfigs of ours is meant.
	Ambiguous error
	Nodes     []Node
}

// Merge is the MCO's merge of the pool's present sources and our MachineConfig.
type Merge struct {
	// Selected reports whether the pool takes ours.
	Selected bool
	// Owners names, by path, the MachineConfig of a file whose bytes are not the wanted ones.
	Owners map[string]string
	Err    error
}

// Verdict is the result for one pool.
type Verdict struct {
	Pool    string `json:"pool"`
	State   State  `json:"state"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// MachineConfig and Digest are what was looked for.
	MachineConfig string `json:"machineConfig"`
	Digest        string `json:"digest"`
	// Rendered is the MachineConfig that the nodes are to have.
	Rendered string `json:"rendered"`
	// ShadowedBy are the MachineConfigs that replace our files.
	ShadowedBy []string `json:"shadowedBy,omitempty"`
	// Outdated are the changes of what was merged into ours, whatever the state.
	Outdated []string `json:"outdated,omitempty"`
	// On are the nodes with the state, if not all have it.
	On []string `json:"on,omitempty"`
	// Updated of Machines nodes have the rendered MachineConfig, Enforced of them enforce it.
	Machines int    `json:"machines"`
	Updated  int    `json:"updated"`
	Enforced int    `json:"enforced"`
	Nodes    []Node `json:"nodes"`
}

// Differ lists the paths at which got differs from want in bytes, mode or owner.
func Differ(want, got trust.FileSet) (paths []string) {
	for _, f := range want {
		var at trust.FileSet
		for _, g := range got {
			if g.Path == f.Path {
				at = append(at, g)
			}
		}
		if at.Digest() != (trust.FileSet{f}).Digest() {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// Pending reports whether the rendered MachineConfig lacks ours as wanted, so that Judge needs Merge.
func (s Snapshot) Pending() bool {
	return !slices.Contains(s.Pool.Source, s.Name) || !s.Rendered.Found || len(Differ(s.Want, s.Rendered.Files)) > 0
}

// Judge returns how far the rollout is. RolledOut needs:
// - our MachineConfig among the pool's sources, its bytes in the rendered one, and merged files that are current;
// - the pool's latest generation observed and Updated, and every node Done at the rendered one;
// - every agent's report that these files are enforced.
func Judge(s Snapshot) Verdict {
	v := Verdict{
		Pool: s.Pool.Name, MachineConfig: s.Name, Rendered: s.Pool.Rendered,
		Machines: max(s.Pool.Machines, len(s.Nodes)), Nodes: append([]Node{}, s.Nodes...), Outdated: s.Outdated,
	}
	if len(s.Want) > 0 {
		v.Digest = s.Want.Digest()
	}
	for _, n := range s.Nodes {
		if n.at(s.Pool.Rendered) && !s.Pending() {
			v.Updated++
			if n.Agent.State == judge.Enforced && n.Agent.Desired == v.Digest {
				v.Enforced++
			}
		}
	}
	for _, step := range []func(Snapshot, *Verdict) bool{
		applied, rendered, observed, healthy, updated,
		enforced, current,
	} {
		if !step(s, &v) {
			return v
		}
	}
	v.State, v.Message = RolledOut, fmt.Sprintf("%s is on %d of %d nodes, and enforced", s.Name, v.Enforced, v.Machines)
	return v
}

func (v *Verdict) end(s State, reason, format string, args ...any) bool {
	v.State, v.Reason, v.Message = s, reason, fmt.Sprintf(format, args...)
	return false
}

// at reports whether the MCO is done with the node and has put rendered on it.
func (n Node) at(rendered string) bool {
	return rendered != "" && n.Current == rendered && n.Desired == rendered && n.Daemon == "Done"
}

// applied: the cluster has our MachineConfig, as it was rendered.
func applied(s Snapshot, v *Verdict) bool {
	switch {
	case s.Ambiguous != nil:
		return v.end(Unknown, ReasonNoOwner, "the pool has several MachineConfigs of nodetrust, and which of them is merged last can't be told: %v", s.Ambiguous)
	case s.Name == "":
		return v.end(Unknown, ReasonNotApplied, "no MachineConfig of nodetrust is among the pool's sources")
	case !s.Live.Found && s.Live.Err == nil:
		return v.end(Unknown, ReasonNotApplied, "the cluster has no MachineConfig %s", s.Name)
	case s.Live.Err != nil:
		return v.end(Unknown, ReasonUnreadable, "%s: %v", s.Name, s.Live.Err)
	case len(s.Want) == 0:
		return v.end(Unknown, ReasonUnreadable, "%s has no files", s.Name)
	}
	if paths := Differ(s.Want, s.Live.Files); len(paths) > 0 {
		return v.end(Unknown, ReasonOtherBytes, "the cluster's %s has another %s than was asked for", s.Name,
			strings.Join(paths, ", "))
	}
	return true
}

// rendered: our files are those of the rendered MachineConfig.
func rendered(s Snapshot, v *Verdict) bool {
	if s.Rendered.Err != nil {
		return v.end(Unknown, ReasonUnreadable, "%s: %v", s.Pool.Rendered, s.Rendered.Err)
	}
	if !s.Pending() {
		return true
	}
	switch {
	case s.Merge.Err != nil:
		return v.end(Unknown, ReasonNoOwner, "which MachineConfig owns the files can't be told: %v", s.Merge.Err)
	case !s.Merge.Selected:
		return v.end(Unknown, ReasonNotSelected, "the pool does not take %s: its labels are not those that the pool selects",
			s.Name)
	}
	var paths []string
	for _, p := range Differ(s.Want, s.Rendered.Files) {
		owner := s.Merge.Owners[p]
		if owner == s.Name || owner == "" {
			continue
		}
		paths = append(paths, p)
		if !slices.Contains(v.ShadowedBy, owner) {
			v.ShadowedBy = append(v.ShadowedBy, owner)
		}
	}
	if len(paths) > 0 {
		return v.end(Shadowed, ReasonFile, "%s of %s never reaches a node: %s is merged later", strings.Join(paths, ", "),
			s.Name, strings.Join(v.ShadowedBy, ", "))
	}
	if c := s.Pool.Conditions["RenderDegraded"]; c.Status == "True" {
		return v.end(Degraded, ReasonPool, "RenderDegraded: %s", c.why())
	}
	if s.Pool.Paused {
		return v.end(Paused, ReasonPaused, "the pool is paused, and its rendered MachineConfig has not all files of %s yet",
			s.Name)
	}
	return v.end(Progressing, ReasonNotRendered,
		"the rendered MachineConfig of the pool has not all files of %s yet", s.Name)
}

func (c Condition) why() string {
	if c.Message != "" {
		return c.Message
	}
	return c.Reason
}

// observed: the MCO has seen the pool's present generation; before, its conditions are outdated.
func observed(s Snapshot, v *Verdict) bool {
	if s.Pool.ObservedGeneration < s.Pool.Generation {
		return v.end(Progressing, ReasonNotObserved,
			"the Machine Config Operator has not looked at the pool's latest change yet")
	}
	return true
}

// healthy: nothing is stuck or stopped.
func healthy(s Snapshot, v *Verdict) bool {
	var why []string
	for _, n := range s.Nodes {
		if n.Daemon == "Degraded" || n.Daemon == "Unreconcilable" {
			v.On = append(v.On, n.Name)
			why = append(why, n.Name+": "+strings.TrimSpace(n.Daemon+" "+n.Why))
		}
	}
	if len(why) > 0 {
		return v.end(Degraded, ReasonNodes, "%s", some(why))
	}
	for _, name := range []string{"RenderDegraded", "NodeDegraded", "Degraded"} {
		if s.Pool.is(name) {
			return v.end(Degraded, ReasonPool, "%s: %s", name, s.Pool.Conditions[name].why())
		}
	}
	if s.Pool.Paused {
		return v.end(Paused, ReasonPaused, "the pool is paused: %d of %d nodes have %s", v.Updated, v.Machines,
			s.Pool.Rendered)
	}
	return true
}

// updated: pool and nodes are at the rendered MachineConfig.
func updated(s Snapshot, v *Verdict) bool {
	if len(s.Nodes) == 0 && s.Pool.Machines == 0 {
		return v.end(Unknown, ReasonNoNodes, "the pool has no nodes: nothing is proved")
	}
	var behind []string
	for _, n := range s.Nodes {
		if !n.at(s.Pool.Rendered) {
			behind = append(behind, n.Name)
		}
	}
	p := s.Pool
	switch {
	case len(behind) > 0:
		v.On = behind
		return v.end(Progressing, ReasonUpdating, "%d of %d nodes have %s", v.Updated, v.Machines, p.Rendered)
	case len(s.Nodes) != p.Machines:
		return v.end(Progressing, ReasonUpdating, "the Machine Config Operator counts %d nodes in the pool, %d are selected",
			p.Machines, len(s.Nodes))
	case p.Reached != p.Rendered || !p.is("Updated") || p.Updated != p.Machines || p.Ready != p.Machines ||
		p.Unavailable != 0:
		return v.end(Progressing, ReasonUpdating, "the Machine Config Operator counts %d of %d nodes updated, %d ready, %d unavailable", p.Updated, p.Machines, p.Ready, p.Unavailable)
	}
	return true
}

// enforced: the agents report these files as enforced.
func enforced(s Snapshot, v *Verdict) bool {
	var bad, behind, unknown, why, whyNot []string
	for _, n := range s.Nodes {
		a := n.Agent
		switch {
		case a.State == "" || a.State == judge.Unknown:
			unknown = append(unknown, n.Name)
			whyNot = append(whyNot, fmt.Sprintf("%s: %s (%s)", n.Name, a.Message, a.Reason))
		case a.Desired != v.Digest:
			behind = append(behind, n.Name)
		case a.State != judge.Enforced:
			bad = append(bad, n.Name)
			why = append(why, fmt.Sprintf("%s: %s (%s)", n.Name, a.State, a.Reason))
		}
	}
	switch {
	case len(bad) > 0:
		v.On = bad
		return v.end(NotEnforced, ReasonAgents, "%s", some(why))
	case len(unknown) > 0:
		v.On = unknown
		return v.end(Unknown, ReasonAgent, "%s", some(whyNot))
	case len(behind) > 0:
		v.On = behind
		return v.end(Progressing, ReasonAgentBehind, "%d of %d agents still compare with other files", len(behind),
			len(s.Nodes))
	}
	return true
}

// current: the cluster still has what was merged into ours.
func current(s Snapshot, v *Verdict) bool {
	switch {
	case len(s.Outdated) > 0:
		return v.end(Outdated, ReasonMerged, "%s was merged with others that have changed since, and keeps that from the nodes: render and apply it again: %s", s.Name, some(s.Outdated))
	case s.OutdatedErr != nil:
		return v.end(Unknown, ReasonMerged, "whether what was merged into %s has changed since can't be told: %v", s.Name,
			s.OutdatedErr)
	}
	return true
}

func some(lines []string) string {
	const most = 5
	if n := len(lines); n > most {
		return strings.Join(lines[:most], "; ") + fmt.Sprintf("; and %d more", n-most)
	}
	return strings.Join(lines, "; ")
}
