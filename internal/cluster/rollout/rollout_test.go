package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

var (
	files = trust.FileSet{
		{Path: "/etc/containers/policy.json", Mode: 0o644, Data: []byte("new")},
		{Path: "/etc/containers/registries.d/corp.yaml", Mode: 0o644, Data: []byte("corp")},
	}
	old = trust.FileSet{{Path: "/etc/containers/policy.json", Mode: 0o644, Data: []byte("old")}}
)

const (
	ours   = "51-worker-corp"
	shadow = "99-worker-generated-registries"
)

// done is a rollout that has come to its end on two nodes.
func done() *Snapshot {
	s := &Snapshot{
		Pool: Pool{
			Name: "worker", Generation: 7, ObservedGeneration: 7, Rendered: "rendered-worker-new",
			Reached: "rendered-worker-new",
			Source:  []string{"01-worker-container-runtime", ours, shadow}, Machines: 2, Updated: 2, Ready: 2,
			Conditions: map[string]Condition{
				"Updated": {Status: "True"}, "Updating": {Status: "False"}, "Degraded": {Status: "False"},
				"RenderDegraded": {Status: "False"}, "NodeDegraded": {Status: "False"},
			},
		},
		Name: ours, Want: files, Live: Files{Found: true, Files: files}, Rendered: Files{Found: true, Files: files},
	}
	for i := range 2 {
		s.Nodes = append(s.Nodes, Node{
			Name: fmt.Sprintf("n%d", i+1), Current: "rendered-worker-new", Desired: "rendered-worker-new", Daemon: "Done",
			Agent: Agent{State: judge.Enforced, Reason: "OK", Desired: files.Digest()},
		})
	}
	return s
}

// before is the moment after apply: all that the pool says is still of the config before, and looks finished.
func before() *Snapshot {
	s := done()
	s.Pool.Rendered, s.Pool.Reached = "rendered-worker-old", "rendered-worker-old"
	s.Pool.Source = []string{"01-worker-container-runtime", shadow}
	s.Rendered.Files = old
	s.Merge = Merge{Selected: true}
	for i := range s.Nodes {
		s.Nodes[i].Current, s.Nodes[i].Desired = "rendered-worker-old", "rendered-worker-old"
	}
	return s
}

// updating is the middle of it: n1 has the new config, n2 waits.
func updating() *Snapshot {
	s := done()
	s.Pool.Reached, s.Pool.Updated, s.Pool.Ready = "rendered-worker-old", 1, 1
	s.Pool.Conditions["Updated"] = Condition{Status: "False"}
	s.Nodes[1].Current, s.Nodes[1].Desired = "rendered-worker-old", "rendered-worker-old"
	s.Nodes[1].Agent = Agent{State: judge.Shadowed, Desired: files.Digest()}
	return s
}

func TestJudge(t *testing.T) {
	bad := func(name string) Condition { return Condition{Status: "True", Message: name + " says why"} }
	for _, c := range []struct {
		name   string
		from   func() *Snapshot
		change func(*Snapshot)
		state  State
		reason string
		says   string
	}{
		{"done", done, func(*Snapshot) {}, RolledOut, "", "51-worker-corp is on 2 of 2 nodes"},

		{"applied, not in the source yet, Updated=True", before, func(*Snapshot) {}, Progressing, ReasonNotRendered, ours},
		{
			"in the source, rendered bytes of before, Updated=True", before,
			func(s *Snapshot) { s.Pool.Source = append(s.Pool.Source, ours) }, Progressing, ReasonNotRendered, ours,
		},
		{"our bytes rendered by chance, not in the source", done, func(s *Snapshot) {
			s.Pool.Source, s.Merge = []string{shadow}, Merge{Selected: true}
		}, Progressing, ReasonNotRendered, ours},
		{
			"the rendered one is gone", done, func(s *Snapshot) { s.Rendered, s.Merge = Files{}, Merge{Selected: true} },
			Progressing, ReasonNotRendered, ours,
		},
		{"one file of two rendered", done, func(s *Snapshot) {
			s.Rendered.Files, s.Merge = files[:1], Merge{Selected: true}
		}, Progressing, ReasonNotRendered, ours},
		{"rendered, Updated=True still of before", done, func(s *Snapshot) {
			s.Pool.Reached = "rendered-worker-old"
		}, Progressing, ReasonUpdating, "2 of 2 nodes updated"},
		{
			"rendered, generation not observed", done, func(s *Snapshot) { s.Pool.Generation = 8 }, Progressing,
			ReasonNotObserved, "",
		},
		{"degraded, but of before", done, func(s *Snapshot) {
			s.Pool.Generation, s.Pool.Conditions["Degraded"] = 8, bad("Degraded")
		}, Progressing, ReasonNotObserved, ""},
		{"rendered, counts all 0 for two nodes", done, func(s *Snapshot) {
			s.Pool.Machines, s.Pool.Updated, s.Pool.Ready = 0, 0, 0
		}, Progressing, ReasonUpdating, "counts 0 nodes"},
		{"nodes not told yet, counts of before", done, func(s *Snapshot) {
			for i := range s.Nodes {
				s.Nodes[i].Current, s.Nodes[i].Desired = "rendered-worker-old", "rendered-worker-old"
			}
		}, Progressing, ReasonUpdating, "0 of 2 nodes"},

		{"halfway", updating, func(*Snapshot) {}, Progressing, ReasonUpdating, "1 of 2 nodes"},
		{"working", done, func(s *Snapshot) { s.Nodes[0].Daemon = "Working" }, Progressing, ReasonUpdating, "1 of 2 nodes"},
		{
			"rebooting", done, func(s *Snapshot) { s.Nodes[0].Daemon = "Rebooting" }, Progressing, ReasonUpdating,
			"1 of 2 nodes",
		},
		{
			"no word from the daemon", done, func(s *Snapshot) { s.Nodes[0] = Node{Name: "n1"} }, Progressing, ReasonUpdating,
			"1 of 2 nodes",
		},
		{
			"desired ahead of current", done, func(s *Snapshot) { s.Nodes[0].Desired = "rendered-worker-next" }, Progressing,
			ReasonUpdating, "1 of 2 nodes",
		},
		{
			"a node more than counted", done, func(s *Snapshot) { s.Pool.Machines, s.Pool.Updated, s.Pool.Ready = 1, 1, 1 },
			Progressing, ReasonUpdating, "counts 1 nodes",
		},
		{
			"a node less than counted", done, func(s *Snapshot) { s.Nodes = s.Nodes[:1] }, Progressing, ReasonUpdating,
			"counts 2 nodes",
		},
		{
			"not ready", done, func(s *Snapshot) { s.Pool.Ready, s.Pool.Unavailable = 1, 1 }, Progressing, ReasonUpdating,
			"1 unavailable",
		},
		{
			"Updated unknown", done, func(s *Snapshot) { delete(s.Pool.Conditions, "Updated") }, Progressing,
			ReasonUpdating, "",
		},

		{"paused", updating, func(s *Snapshot) { s.Pool.Paused = true }, Paused, ReasonPaused, "1 of 2 nodes"},
		{"paused after the end", done, func(s *Snapshot) { s.Pool.Paused = true }, Paused, ReasonPaused, "2 of 2 nodes"},
		{"paused before it is rendered", before, func(s *Snapshot) { s.Pool.Paused = true }, Paused, ReasonPaused, ours},

		{"shadowed, Updated=True", done, func(s *Snapshot) {
			s.Rendered.Files = trust.FileSet{old[0], files[1]}
			s.Merge = Merge{Selected: true, Owners: map[string]string{
				"/etc/containers/policy.json": shadow,
				files[1].Path:                 ours,
			}}
		}, Shadowed, ReasonFile, "/etc/containers/policy.json of 51-worker-corp never reaches a node: " + shadow},
		{"shadowed and paused", done, func(s *Snapshot) {
			s.Pool.Paused, s.Rendered.Files = true, old
			s.Merge = Merge{Selected: true, Owners: map[string]string{"/etc/containers/policy.json": shadow}}
		}, Shadowed, ReasonFile, shadow},
		{"about to be shadowed", before, func(s *Snapshot) {
			s.Merge.Owners = map[string]string{"/etc/containers/policy.json": shadow}
		}, Shadowed, ReasonFile, shadow},
		{"another mode", done, func(s *Snapshot) {
			f := files[0]
			f.Mode = 0o600
			s.Rendered.Files, s.Merge = trust.FileSet{f, files[1]}, Merge{Selected: true}
		}, Progressing, ReasonNotRendered, ""},

		{
			"render degraded", before, func(s *Snapshot) { s.Pool.Conditions["RenderDegraded"] = bad("RenderDegraded") },
			Degraded, ReasonPool, "RenderDegraded says why",
		},
		{"degraded of the config before", before, func(s *Snapshot) {
			s.Pool.Conditions["NodeDegraded"] = bad("NodeDegraded")
		}, Progressing, ReasonNotRendered, ""},
		{
			"pool degraded", updating, func(s *Snapshot) { s.Pool.Conditions["Degraded"] = bad("Degraded") }, Degraded,
			ReasonPool, "Degraded says why",
		},
		{
			"node degraded", updating, func(s *Snapshot) { s.Nodes[1].Daemon, s.Nodes[1].Why = "Degraded", "disk full" },
			Degraded, ReasonNodes, "n2: Degraded disk full",
		},
		{
			"node unreconcilable, and paused", updating,
			func(s *Snapshot) { s.Nodes[1].Daemon, s.Pool.Paused = "Unreconcilable", true }, Degraded, ReasonNodes,
			"n2: Unreconcilable",
		},

		{"not enforced", done, func(s *Snapshot) {
			s.Nodes[1].Agent.State, s.Nodes[1].Agent.Reason = judge.NotEnforced, "RefuseCanaryPulled"
		}, NotEnforced, ReasonAgents, "n2: NotEnforced (RefuseCanaryPulled)"},
		{"drifted on one, unknown on the other", done, func(s *Snapshot) {
			s.Nodes[0].Agent.State, s.Nodes[1].Agent.State = judge.Unknown, judge.Drifted
		}, NotEnforced, ReasonAgents, "n2: Drifted"},
		{"no report", done, func(s *Snapshot) {
			s.Nodes[0].Agent = Agent{State: judge.Unknown, Reason: "NoReport", Message: "no agent has reported"}
		}, Unknown, ReasonAgent, "n1: no agent has reported"},
		{"no agent known", done, func(s *Snapshot) { s.Nodes[0].Agent = Agent{} }, Unknown, ReasonAgent, "n1"},
		{
			"enforced, but other files", done, func(s *Snapshot) { s.Nodes[0].Agent.Desired = old.Digest() }, Progressing,
			ReasonAgentBehind, "1 of 2 agents",
		},
		{"bad, but of other files", done, func(s *Snapshot) {
			s.Nodes[0].Agent = Agent{State: judge.Drifted, Desired: old.Digest()}
		}, Progressing, ReasonAgentBehind, "1 of 2 agents"},

		{
			"outdated", done, func(s *Snapshot) { s.Outdated = []string{"x has another policy.json"} }, Outdated, ReasonMerged,
			"x has another policy.json",
		},
		{"outdated, and not enforced", done, func(s *Snapshot) {
			s.Outdated, s.Nodes[1].Agent.State = []string{"x"}, judge.NotEnforced
		}, NotEnforced, ReasonAgents, "n2"},
		{
			"outdated can't be told", done, func(s *Snapshot) { s.OutdatedErr = errors.New("gone") }, Unknown,
			ReasonMerged, "gone",
		},
		{
			"several of ours", done, func(s *Snapshot) { s.Name, s.Ambiguous = "", errors.New("version not known") }, Unknown,
			ReasonNoOwner, "version not known",
		},

		{"no nodes", done, func(s *Snapshot) {
			s.Nodes, s.Pool.Machines, s.Pool.Updated, s.Pool.Ready = nil, 0, 0, 0
		}, Unknown, ReasonNoNodes, "nothing is proved"},
		{
			"nothing of ours", before, func(s *Snapshot) { s.Name, s.Want, s.Live = "", nil, Files{} }, Unknown,
			ReasonNotApplied, "no MachineConfig of nodetrust",
		},
		{"not applied", before, func(s *Snapshot) { s.Live = Files{} }, Unknown, ReasonNotApplied, ours},
		{"deleted after the rollout", done, func(s *Snapshot) { s.Live = Files{} }, Unknown, ReasonNotApplied, ours},
		{
			"edited in the cluster", done, func(s *Snapshot) { s.Live.Files = trust.FileSet{old[0], files[1]} }, Unknown,
			ReasonOtherBytes, "policy.json",
		},
		{
			"unreadable", done, func(s *Snapshot) { s.Live.Err = errors.New("no valid data URL") }, Unknown, ReasonUnreadable,
			"no valid data URL",
		},
		{"rendered unreadable", done, func(s *Snapshot) {
			s.Rendered = Files{
				Found: true,
				Err:   errors.New("no valid data URL"),
			}
		}, Unknown, ReasonUnreadable, "rendered-worker-new"},
		{"empty", done, func(s *Snapshot) { s.Want = nil }, Unknown, ReasonUnreadable, "no files"},
		{"not selected", before, func(s *Snapshot) { s.Merge.Selected = false }, Unknown, ReasonNotSelected, "labels"},
		{
			"owner unknown", before, func(s *Snapshot) { s.Merge.Err = errors.New("version not known") }, Unknown, ReasonNoOwner,
			"version not known",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.from()
			c.change(s)
			v := Judge(*s)
			if v.State != c.state || v.Reason != c.reason || !strings.Contains(v.Message, c.says) {
				t.Errorf("%s (%s): %s; want %s (%s): …%s…", v.State, v.Reason, v.Message, c.state, c.reason, c.says)
			}
			if c.state == Shadowed && !slices.Equal(v.ShadowedBy, []string{shadow}) {
				t.Errorf("shadowed by %v", v.ShadowedBy)
			}
			if c.state == NotEnforced && !slices.Equal(v.On, []string{"n2"}) {
				t.Errorf("on %v", v.On)
			}
		})
	}
}

// TestJudge_everyStep takes each thing that RolledOut needs away, one at a time.
func TestJudge_everyStep(t *testing.T) {
	for name, spoil := range map[string]func(*Snapshot){
		"live":       func(s *Snapshot) { s.Live.Found = false },
		"source":     func(s *Snapshot) { s.Pool.Source = nil },
		"rendered":   func(s *Snapshot) { s.Rendered.Files = s.Rendered.Files[1:] },
		"twice":      func(s *Snapshot) { s.Rendered.Files = append(slices.Clone(s.Rendered.Files), old...) },
		"name":       func(s *Snapshot) { s.Pool.Rendered = "" },
		"generation": func(s *Snapshot) { s.Pool.ObservedGeneration-- },
		"reached":    func(s *Snapshot) { s.Pool.Reached = "" },
		"updated":    func(s *Snapshot) { s.Pool.Updated-- },
		"ready":      func(s *Snapshot) { s.Pool.Ready-- },
		"current":    func(s *Snapshot) { s.Nodes[1].Current = "" },
		"desired":    func(s *Snapshot) { s.Nodes[1].Desired = "" },
		"daemon":     func(s *Snapshot) { s.Nodes[1].Daemon = "" },
		"agent":      func(s *Snapshot) { s.Nodes[1].Agent.State = "Sparkling" },
		"merged":     func(s *Snapshot) { s.Outdated = []string{"x"} },
		"digest":     func(s *Snapshot) { s.Nodes[1].Agent.Desired = "" },
	} {
		s := done()
		spoil(s)
		if v := Judge(*s); v.State == RolledOut {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
