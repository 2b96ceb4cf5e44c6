package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/judge"
)

// deployment is deploy/ on the cluster, with the desired state as a ConfigMap.
type deployment struct {
	*Cluster
	on map[string]*reports
}

// deploy runs the agents in pods, under a policy that covers their own image, and waits for Enforced on every Node.
func deploy(t *testing.T, c *Cluster) *deployment {
	t.Helper()
	manifests, err := c.AgentManifests(brisk...)
	must(t, err)
	d := deployManifests(t, c, manifests)
	d.desire(t, c.Trust(""))
	for _, n := range c.Nodes {
		settle(t, d.on[n.Name], n.Name, "Enforced")
	}
	return d
}

// brisk arguments make agents look, and write, often enough for tests. TestSimulated is about the spread that they
// have else.
var brisk = []string{"--resync=2s", "--probe-interval=3s", "--report-spread=2s"}

// deployManifests runs agents in pods till the end of the test, on nodes that accept every image.
func deployManifests(t *testing.T, c *Cluster, manifests []byte) *deployment {
	t.Helper()
	d := &deployment{Cluster: c, on: map[string]*reports{}}
	for _, n := range c.Nodes {
		must(t, n.Reset())
		must(t, c.forget(n))
		d.on[n.Name] = c.watchReports(n.Name)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, args := range [][]string{
				{"-n", "nodetrust", "get", "pods", "-o", "wide"},
				{"-n", "nodetrust", "get", "events"},
				{"-n", "nodetrust", "logs", "-l", "app.kubernetes.io/name=nodetrust-agent", "--prefix", "--tail=60"},
			} {
				out, err := c.Kubectl(args...)
				t.Logf("kubectl %q: %v\n%s", args, err, tail(out))
			}
			for _, n := range c.Nodes {
				t.Logf("%s: the Node said: %q", n.Name, d.on[n.Name].all())
			}
		}
		must(t, c.Delete(manifests))
		for _, n := range c.Nodes {
			d.on[n.Name].stop()
			must(t, n.Reset())
			must(t, c.forget(n))
		}
	})
	must(t, c.Apply(manifests))
	return d
}

// desire makes a trust config the desired state, through `nodetrust render`.
func (d *deployment) desire(t *testing.T, trust string) {
	t.Helper()
	must(t, d.Desire(trust))
}

// pod is the running agent's of a node.
func (d *deployment) pod(node string) (pod, error) {
	var list struct{ Items []pod }
	err := d.Get("/api/v1/namespaces/nodetrust/pods?labelSelector=app.kubernetes.io%2Fname%3Dnodetrust-agent&fieldSelector=spec.nodeName%3D"+node, &list)
	if err != nil {
		return pod{}, err
	}
	if len(list.Items) != 1 {
		return pod{}, fmt.Errorf("%s has %d pods of the agent", node, len(list.Items))
	}
	return list.Items[0], nil
}

// token is the one that the agent of a node has.
func (d *deployment) token(n *Node) (string, error) {
	p, err := d.pod(n.Name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path := "/var/lib/kubelet/pods/" + p.Metadata.UID + "/volumes/kubernetes.io~projected/token/token"
	b, err := n.Command(ctx, "cat", path).Output()
	if err != nil {
		return "", fmt.Errorf("reading the agent's token: %w", err)
	}
	if len(b) == 0 {
		return "", errors.New("the agent's token is empty")
	}
	return string(b), nil
}

// gathered is a bit less than the 2 s over which an agent gathers at least what it has to say before it writes.
const gathered = 1500 * time.Millisecond

// pending is how long at most the agent of a node was on its way to a state, since a moment. Only where that took as
// long as it gathers may it have told so.
func (d *deployment) pending(t *testing.T, node string, since time.Time) (longest time.Duration) {
	t.Helper()
	p, err := d.pod(node)
	must(t, err)
	log, err := d.Kubectl("-n", "nodetrust", "logs", p.Metadata.Name)
	must(t, err)
	var began time.Time
	for line := range strings.Lines(log) {
		var e struct {
			Time        time.Time
			Msg, Reason string
		}
		if json.Unmarshal([]byte(line), &e) != nil || e.Msg != "state changed" || e.Time.Before(since) {
			continue
		}
		switch on := e.Reason == judge.ReasonLoadPending || e.Reason == judge.ReasonProbePending; {
		case on && began.IsZero():
			began = e.Time
		case !on && !began.IsZero():
			longest, began = max(longest, e.Time.Sub(began)), time.Time{}
		}
	}
	return longest
}

// preliminary reports are those of an agent on its way to a state.
func (r report) preliminary() bool {
	return r.State == "Unknown" && (r.Reason == judge.ReasonLoadPending || r.Reason == judge.ReasonProbePending)
}
