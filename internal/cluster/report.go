package cluster

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/judge"
)

// Reasons for an unknown state beside those of agents.
const (
	ReasonNoReport      = "NoReport"
	ReasonNodeNotReady  = "NodeNotReady"
	ReasonAgentMissing  = "AgentMissing"
	ReasonAgentNotReady = "AgentNotReady"
	ReasonAgentSilent   = "AgentSilent"
	ReasonAgentUnknown  = "AgentUnknown"
)

// grace is the time from an agent's pod to its first report: image pull, spread first writes, and an API server that
// may delay them.
const grace = 5 * time.Minute

// Status is the state of the nodes at one time: the JSON of nodetrust status.
type Status struct {
	Nodes   []Node  `json:"nodes"`
	Pools   []Pool  `json:"pools"`
	Summary Summary `json:"summary"`
	// Advisories are the known holes in the verifiers of the nodes' runtimes.
	Advisories []Advisory `json:"advisories"`
}

// Node is one node.
type Node struct {
	Name string `json:"node"`
	Pool string `json:"pool"`
	// Ready is the node's Ready condition, or nil if unknown.
	Ready *bool `json:"ready"`
	// State, Reason and Message are the present state. A report that may no longer hold makes the state Unknown, not
	// Enforced; Reported is its content.
	State   judge.State `json:"state"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
	// Stale is true if there is a report, but its agent may be silent.
	Stale    bool    `json:"stale"`
	Reported *Report `json:"reported,omitempty"`
	// Desired and Observed are digests of file sets, as last reported.
	Desired  string `json:"desired"`
	Observed string `json:"observed"`
	// CheckedAt is when the files were compared for the last report. A live agent writes it only together with a
	// change, so it may be old.
	CheckedAt *time.Time `json:"checkedAt"`
	// Runtime is the CRI runtime as the kubelet names it, for example cri-o://1.34.0.
	Runtime string `json:"runtime"`
	// Advisories are the IDs of the known holes in the verifiers of the node's runtimes, by version number.
	Advisories []string `json:"advisories"`
}

// Report is the content of a node's annotations.
type Report struct {
	State   judge.State `json:"state"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
}

// Summary counts nodes.
type Summary struct {
	Nodes    int `json:"nodes"`
	Enforced int `json:"enforced"`
	Bad      int `json:"bad"`
	Unknown  int `json:"unknown"`
	Stale    int `json:"stale"`
}

// Pool counts the nodes of one pool.
type Pool struct {
	Pool string `json:"pool"`
	Summary
	States map[judge.State]int `json:"states"`
	// Desired are the digests that the pool's nodes are to have: several while a change is under way.
	Desired []string `json:"desired"`
}

// rank orders nodes by urgency.
func rank(s judge.State) int {
	switch s {
	case judge.Enforced:
		return 2
	case judge.Unknown:
		return 1
	}
	return 0
}

// Status judges the snapshot; a pool that is not empty leaves out the nodes of others.
func (s *Snapshot) Status(pool string, now time.Time) Status {
	out := Status{Nodes: []Node{}, Pools: []Pool{}, Advisories: []Advisory{}}
	agents := s.agentsByNode()
	for _, n := range s.nodes {
		if n.windows {
			continue
		}
		node := s.judge(n, agents[n.name], now)
		if pool == "" || node.Pool == pool {
			out.Nodes = append(out.Nodes, node)
		}
	}
	slices.SortFunc(out.Nodes, func(x, y Node) int {
		return cmp.Or(strings.Compare(x.Pool, y.Pool), cmp.Compare(rank(x.State), rank(y.State)),
			strings.Compare(x.Name, y.Name))
	})
	out.count()
	out.Advisories = countAdvisories(out.Nodes)
	return out
}

// judge returns the state of one node. A bad report stays bad however old: nothing shows a repair.
func (s *Snapshot) judge(n node, agents []agent, now time.Time) Node {
	out := Node{
		Name: n.name, Pool: n.poolOf(agents), Ready: n.ready,
		Desired: n.annotations[desiredKey], Observed: n.annotations[observedKey],
		Runtime: n.runtime,
	}
	if t, err := time.Parse(time.RFC3339, n.annotations[checkedAtKey]); err == nil {
		out.CheckedAt = &t
	}
	reported := Report{
		State: judge.State(n.annotations[stateKey]), Reason: n.annotations[reasonKey],
		Message: n.annotations[messageKey],
	}
	reason, why := s.doubt(n, agents, out.CheckedAt, now)
	switch {
	case reported.State == "":
		out.State, out.Reason, out.Message = judge.Unknown, ReasonNoReport, "no agent has reported"
		if reason == ReasonAgentMissing || reason == ReasonAgentNotReady || reason == ReasonNodeNotReady {
			out.Message += ": " + why
		}
	case !known(reported.State):
		out.State, out.Reason, out.Message = judge.Unknown, ReasonNoReport,
			"the reported state is none that this version knows"
		out.Reported = &reported
	case reason == "" || rank(reported.State) == 0:
		out.State, out.Reason, out.Message = reported.State, reported.Reason, reported.Message
		out.Stale = reason != ""
	default:
		out.State, out.Reason, out.Message = judge.Unknown, reason, why+"; last reported: "+string(reported.State)
		out.Stale, out.Reported = true, &reported
	}
	out.Advisories = advisories(out)
	return out
}

func known(s judge.State) bool {
	switch s {
	case judge.Contested, judge.Shadowed, judge.NotEnforced, judge.Blocked, judge.RolledBack, judge.Held, judge.Drifted,
		judge.Unknown, judge.Enforced:
		return true
	}
	return false
}

// doubt returns why a report may no longer hold. Agents write on change only, so age is no reason. A report holds if
// its agent runs and has reported since its start: every agent writes once after its start.
func (s *Snapshot) doubt(n node, agents []agent, checked *time.Time, now time.Time) (reason, why string) {
	switch {
	case n.ready != nil && !*n.ready:
		return ReasonNodeNotReady, "the node is not ready"
	case s.elsewhere:
		return "", ""
	case s.AgentsErr != nil:
		return ReasonAgentUnknown, "whether its agent is alive could not be told"
	case len(agents) == 0:
		return ReasonAgentMissing, "no agent runs on the node"
	}
	live := slices.IndexFunc(agents, func(a agent) bool { return a.ready })
	if live < 0 {
		return ReasonAgentNotReady, "the agent on the node is not ready (" + agents[0].phase + ")"
	}
	// The node's clock sets the report's time, the API server's the pod's: they may differ by the grace.
	started := agents[live].created
	if now.Sub(started) > grace && (checked == nil || started.Sub(*checked) > grace) {
		return ReasonAgentSilent, "the agent runs since " + started.UTC().Format(time.RFC3339) + " and has not reported"
	}
	return "", ""
}

func (s *Status) count() {
	pools := map[string]*Pool{}
	for _, n := range s.Nodes {
		p := pools[n.Pool]
		if p == nil {
			p = &Pool{Pool: n.Pool, States: map[judge.State]int{}, Desired: []string{}}
			pools[n.Pool] = p
		}
		p.States[n.State]++
		if n.Desired != "" && !slices.Contains(p.Desired, n.Desired) {
			p.Desired = append(p.Desired, n.Desired)
		}
		p.Summary.add(n)
		s.Summary.add(n)
	}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		slices.Sort(pools[name].Desired)
		s.Pools = append(s.Pools, *pools[name])
	}
}

func (s *Summary) add(n Node) {
	s.Nodes++
	switch rank(n.State) {
	case 0:
		s.Bad++
	case 1:
		s.Unknown++
	default:
		s.Enforced++
	}
	if n.Stale {
		s.Stale++
	}
}
