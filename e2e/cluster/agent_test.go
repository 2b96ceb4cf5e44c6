package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

const agentAccount = `apiVersion: v1
kind: Namespace
metadata: {name: agents}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: agents}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lab-agent}
rules:
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lab-agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lab-agent}
subjects: [{kind: ServiceAccount, name: agent, namespace: agents}]
`

// agents run nodetrust-agent on every node, as processes of the node, and keep what they said on the Node objects.
type agents struct {
	*Cluster
	t       *testing.T
	desired string // file
	on      map[string]*agent
}

type agent struct {
	*lab.Process
	*reports
	node   *Node
	status string // file
}

// agentOptions say what agents find at their start.
type agentOptions struct {
	// root is the host root of a node; / without it.
	root func(*Node) string
	// prepare is called for each node that was reset, before its agent starts.
	prepare func(*Node)
}

// startAgents gives the nodes a trust config as desired state.
func startAgents(t *testing.T, c *Cluster, trust string, o agentOptions) *agents {
	t.Helper()
	if o.root == nil {
		o.root = func(*Node) string { return "/" }
	}
	must(t, c.Apply([]byte(agentAccount)))
	t.Cleanup(func() { must(t, c.Delete([]byte(agentAccount))) })
	dir, err := os.MkdirTemp(c.dir, "agents-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	a := &agents{Cluster: c, t: t, desired: filepath.Join(dir, "desired.yaml"), on: map[string]*agent{}}
	a.desire(trust)
	token, err := c.Kubectl("-n", "agents", "create", "token", "agent", "--duration=2h")
	must(t, err)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	must(t, os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://%s", certificate-authority: %s}}]
users: [{name: agent, user: {token: %s}}]
contexts: [{name: lab, context: {cluster: lab, user: agent}}]
current-context: lab
`, serviceAddress, c.pki.path("ca.crt"), strings.TrimSpace(token)), 0o600))
	for _, n := range c.Nodes {
		must(t, n.Reset())
		must(t, c.forget(n))
		if o.prepare != nil {
			o.prepare(n)
		}
		one := &agent{node: n, status: filepath.Join(dir, n.Name+".json"), reports: c.watchReports(n.Name)}
		one.Process, err = n.Start(c.Lab.Programs.Agent, append([]string{
			"--host-root", o.root(n), "--desired", a.desired, "--node-name", n.Name, "--kubeconfig", kubeconfig,
			"--status-file", one.status, "--runtime", "cri",
		}, brisk...)...)
		must(t, err)
		a.on[n.Name] = one
	}
	t.Cleanup(func() {
		for _, one := range a.on {
			one.Stop()
			one.stop()
			if t.Failed() {
				t.Logf("%s: the Node said: %q", one.node.Name, one.all())
				t.Logf("%s: the agent said:\n%s", one.node.Name, tail(one.Log.String()))
				status, _ := os.ReadFile(one.status)
				t.Logf("%s: status file: %s", one.node.Name, status)
			}
			must(t, one.node.Reset())
			must(t, c.forget(one.node))
		}
	})
	return a
}

// desire makes a trust config the desired state of all nodes, through `nodetrust render`.
func (a *agents) desire(trust string) {
	a.t.Helper()
	b, err := a.Nodes[0].Render(trust, "--to", "machineconfig")
	must(a.t, err)
	must(a.t, os.WriteFile(a.desired+".tmp", b, 0o644))
	must(a.t, os.Rename(a.desired+".tmp", a.desired))
}

// forget removes our annotations from the Node.
func (c *Cluster) forget(n *Node) error {
	args := []string{"annotate", "node", n.Name}
	for _, key := range []string{"state", "reason", "message", "desired", "observed", "checked-at"} {
		args = append(args, "nodetrust.io/"+key+"-")
	}
	_, err := c.Kubectl(args...)
	return err
}

// report is what a Node's annotations say.
type report struct{ State, Reason, Message, Desired, Observed string }

// reports are all that a Node's annotations have said, in order.
type reports struct {
	mu      sync.Mutex
	history []report
	stop    func()
}

func (c *Cluster) watchReports(node string) *reports {
	r := &reports{}
	r.stop = c.Watch("/api/v1/nodes?fieldSelector=metadata.name%3D"+node, func(object json.RawMessage) {
		var o NodeObject
		if json.Unmarshal(object, &o) == nil {
			r.add(o.Metadata)
		}
	})
	return r
}

func (r *reports) add(m Metadata) {
	get := func(key string) string { return m.Annotations["nodetrust.io/"+key] }
	now := report{get("state"), get("reason"), get("message"), get("desired"), get("observed")}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.history); n == 0 || r.history[n-1] != now {
		r.history = append(r.history, now)
	}
}

func (r *reports) all() []report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]report(nil), r.history...)
}

// mark is a point in the history.
func (r *reports) mark() int { return len(r.all()) }

// await waits until a report of a Node after mark is as ok wants it, and returns it.
func (r *reports) await(t *testing.T, node, what string, mark int, ok func(report) bool) report {
	t.Helper()
	var found report
	err := lab.Poll(patience, func() error {
		all := r.all()
		for _, one := range all[min(mark, len(all)):] {
			if ok(one) {
				found = one
				return nil
			}
		}
		return fmt.Errorf("the Node says %q", all[min(mark, len(all)):])
	})
	if err != nil {
		t.Fatalf("waiting for %s on %s: %v", what, node, err)
	}
	return found
}

func (a *agent) await(t *testing.T, what string, mark int, ok func(report) bool) report {
	t.Helper()
	return a.reports.await(t, a.node.Name, what, mark, ok)
}

func state(want string) func(report) bool {
	return func(r report) bool { return r.State == want }
}

// settle waits until the newest report of a Node is of the state, and returns it.
func settle(t *testing.T, on *reports, node, want string) report {
	t.Helper()
	var last report
	err := lab.Poll(patience, func() error {
		all := on.all()
		if len(all) > 0 {
			last = all[len(all)-1]
		}
		if last.State != want {
			return fmt.Errorf("the Node says %q", last)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("waiting for %s on %s: %v", want, node, err)
	}
	return last
}
