package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Keys of the agents' annotations: those of agent/node, which the CLI does not link.
const (
	stateKey     = "nodetrust.io/state"
	reasonKey    = "nodetrust.io/reason"
	messageKey   = "nodetrust.io/message"
	desiredKey   = "nodetrust.io/desired"
	observedKey  = "nodetrust.io/observed"
	checkedAtKey = "nodetrust.io/checked-at"
)

const (
	nodesPath  = "/api/v1/nodes"
	agentsPath = "/api/v1/namespaces/nodetrust/pods"
	agentLabel = "app.kubernetes.io/name=nodetrust-agent"
	poolLabel  = "nodetrust.io/pool"
	rolePrefix = "node-role.kubernetes.io/"
)

// Where agents run.
const (
	AgentsPods      = "pods"      // as the DaemonSets of deploy/ run them
	AgentsElsewhere = "elsewhere" // as services of their hosts: whether they are alive is unknown
)

// Snapshot is the state that was read at one time.
type Snapshot struct {
	// AgentsErr is why the agents' pods could not be read.
	AgentsErr error

	nodes     []node
	agents    []agent
	elsewhere bool
}

type node struct {
	name        string
	labels      map[string]string
	annotations map[string]string
	ready       *bool
	windows     bool
	// runtime is the CRI runtime as its kubelet names it: cri-o://1.34.0.
	runtime string
}

type agent struct {
	node, pool, phase string
	ready             bool
	created           time.Time
}

func newNode(r row) node {
	n := node{name: r.Metadata.Name, labels: r.Metadata.Labels, annotations: r.Metadata.Annotations}
	n.runtime = cmp.Or(r.cells["Container-Runtime"], r.Status.NodeInfo.ContainerRuntimeVersion)
	n.windows = n.labels["kubernetes.io/os"] == "windows"
	var ready bool
	if cell, ok := r.cells["Status"]; ok { // "Ready", "NotReady,SchedulingDisabled", "Unknown"
		ready = slices.Contains(strings.Split(cell, ","), "Ready")
		n.ready = &ready
	} else if status := r.is("Ready"); status != "" {
		ready = status == "True"
		n.ready = &ready
	}
	return n
}

// poolOf returns the pool in the agent's report, else the pool by labels, with roles as the Machine Config Operator
// takes them: a custom role wins over worker.
func (n node) poolOf(agents []agent) string {
	for _, a := range agents {
		if a.pool != "" {
			return a.pool
		}
	}
	if p := n.labels[poolLabel]; p != "" {
		return p
	}
	var roles []string
	for l := range n.labels {
		if r, ok := strings.CutPrefix(l, rolePrefix); ok {
			roles = append(roles, r)
		}
	}
	slices.Sort(roles)
	custom := slices.IndexFunc(roles, func(r string) bool { return r != "worker" })
	switch {
	case slices.Contains(roles, "master"), slices.Contains(roles, "control-plane"):
		return "master"
	case custom >= 0:
		return roles[custom]
	case len(roles) > 0:
		return "worker"
	}
	return ""
}

func newAgent(r row) agent {
	a := agent{
		node: r.Spec.NodeName, pool: r.Metadata.Labels[poolLabel], phase: r.Status.Phase,
		ready: r.is("Ready") == "True", created: r.Metadata.CreationTimestamp.Time,
	}
	if r.cells != nil {
		a.node, a.phase = r.cells["Node"], r.cells["Status"]
		have, of, ok := strings.Cut(r.cells["Ready"], "/")
		a.ready = ok && have == of && have != "0" && a.phase == "Running"
	}
	if r.Metadata.DeletionTimestamp != nil {
		a.ready, a.phase = false, "Terminating"
	}
	return a
}

func (s *Snapshot) agentsByNode() map[string][]agent {
	out := map[string][]agent{}
	for _, a := range s.agents {
		out[a.node] = append(out[a.node], a)
	}
	return out
}

// Read reads all nodes and, unless agents is AgentsElsewhere, the agents' pods. Unreadable pods set Snapshot.AgentsErr
// and are no error.
func (c *Client) Read(ctx context.Context, agents string) (*Snapshot, error) {
	s := &Snapshot{elsewhere: agents == AgentsElsewhere}
	rows, _, err := c.list(ctx, nodesPath, "")
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	for _, r := range rows {
		s.nodes = append(s.nodes, newNode(r))
	}
	if s.elsewhere {
		return s, nil
	}
	rows, _, err = c.list(ctx, agentsPath, agentLabel)
	if err != nil {
		s.AgentsErr = fmt.Errorf("listing the agents' pods: %w", err)
	}
	for _, r := range rows {
		s.agents = append(s.agents, newAgent(r))
	}
	return s, nil
}
