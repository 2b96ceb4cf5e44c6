package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	for _, master := range []string{"master", "control-plane"} {
		if slices.Contains(roles, master) {
			return "master"
		}
	}
	for _, r := range roles {
		if r != "worker" {
			return r
		}
	}
	if len(roles) > 0 {
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

const (
	// settle is how long changes are gathered before they are shown.
	settle = 300 * time.Millisecond
	// pause is the time between attempts to reach the API server.
	pause = 3 * time.Second
)

// Watch calls show with a snapshot at first and after changes. While the API server can't be read, show gets an error
// and the last snapshot. Watch ends with ctx, or with an error if the first list fails for good.
func (c *Client) Watch(ctx context.Context, agents string, show func(*Snapshot, error)) error {
	w := &watcher{c: c, poke: make(chan struct{}, 1), nodes: map[string]node{}, agents: map[string]agent{}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() { w.follow(ctx, cancel, nodesPath, "", w.setNodes, w.nodeChanged) })
	if agents != AgentsElsewhere {
		done.Go(func() { w.follow(ctx, cancel, agentsPath, agentLabel, w.setAgents, w.agentChanged) })
	}
	for {
		select {
		case <-ctx.Done():
			var first *firstError
			if errors.As(context.Cause(ctx), &first) {
				return first.err
			}
			return nil
		case <-w.poke:
		}
		s, ready, err := w.snapshot(agents)
		if ready {
			show(s, err)
		}
		t := time.NewTimer(settle)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

type firstError struct{ err error }

func (e *firstError) Error() string { return e.err.Error() }

type watcher struct {
	c    *Client
	poke chan struct{}

	mu                    sync.Mutex
	nodes                 map[string]node
	agents                map[string]agent
	haveNodes, haveAgents bool
	nodesErr, agentsErr   error
}

func (w *watcher) snapshot(agents string) (s *Snapshot, ready bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s = &Snapshot{elsewhere: agents == AgentsElsewhere, AgentsErr: w.agentsErr}
	for _, n := range w.nodes {
		s.nodes = append(s.nodes, n)
	}
	for _, a := range w.agents {
		s.agents = append(s.agents, a)
	}
	return s, w.haveNodes && (w.haveAgents || w.agentsErr != nil || s.elsewhere), w.nodesErr
}

// follow lists and watches path until ctx is done. set takes a whole list or its error, change one event.
func (w *watcher) follow(ctx context.Context, fail context.CancelCauseFunc, path, selector string,
	set func([]row, error) (first bool), change func(string, row),
) {
	version := ""
	for ctx.Err() == nil {
		var err error
		if version == "" {
			var rows []row
			if rows, version, err = w.c.list(ctx, path, selector); err == nil {
				set(rows, nil)
			}
		}
		if err == nil {
			err = w.c.watch(ctx, path, selector, version, func(kind string, r row) {
				version = r.Metadata.ResourceVersion
				change(kind, r)
				w.hint()
			})
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				version = ""
				continue
			}
			if err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		if first := set(nil, err); first && path == nodesPath {
			fail(&firstError{fmt.Errorf("listing nodes: %w", err)})
			return
		}
		version = "" // a new list has the missed changes
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func (w *watcher) hint() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

func (w *watcher) setNodes(rows []row, err error) (first bool) {
	defer w.hint()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodesErr = err
	if err != nil {
		return !w.haveNodes
	}
	w.haveNodes = true
	clear(w.nodes)
	for _, r := range rows {
		w.nodes[r.Metadata.Name] = newNode(r)
	}
	return false
}

func (w *watcher) setAgents(rows []row, err error) (first bool) {
	defer w.hint()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.agentsErr = err
	if err != nil {
		w.agentsErr = fmt.Errorf("listing the agents' pods: %w", err)
		return !w.haveAgents
	}
	w.haveAgents = true
	clear(w.agents)
	for _, r := range rows {
		w.agents[r.Metadata.Name] = newAgent(r)
	}
	return false
}

func (w *watcher) nodeChanged(kind string, r row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if kind == "DELETED" {
		delete(w.nodes, r.Metadata.Name)
		return
	}
	w.nodes[r.Metadata.Name] = newNode(r)
}

func (w *watcher) agentChanged(kind string, r row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if kind == "DELETED" {
		delete(w.agents, r.Metadata.Name)
		return
	}
	w.agents[r.Metadata.Name] = newAgent(r)
}
