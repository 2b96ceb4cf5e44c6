package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/desired"
)

const (
	// simulatedUser is nobody else's: its inotify instances are its own.
	simulatedUser  = 65531
	simulatedLabel = "nodetrust.example/simulated"
	// atOnce bounds the requests in flight that make objects.
	atOnce = 16
)

// Fleet is many agents in one process (e2e/cmd/fleet): the agent's own loop and its own reporting code. Each has a
// Node object, a token bound to a pod on that node, and a connection of its own; rights, admission policy and flow
// control are those of deploy/. No kubelet is behind the nodes.
type Fleet struct {
	// Nodes are their names.
	Nodes []string

	c       *Cluster
	dir     string // kubeconfigs, host root and desired state
	base    []byte
	process *lab.Process
	unwatch func()

	mu   sync.Mutex
	said map[string]Said
}

// Said is what a Node's annotations say.
type Said struct{ State, Reason, Message, Desired, Observed string }

func said(m Metadata) Said {
	get := func(key string) string { return m.Annotations["nodetrust.io/"+key] }
	return Said{get("state"), get("reason"), get("message"), get("desired"), get("observed")}
}

// NewFleet makes what n agents need. They do not run yet.
func (c *Cluster) NewFleet(n int) (f *Fleet, err error) {
	f = &Fleet{c: c, said: map[string]Said{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.dir, err = os.MkdirTemp(c.dir, "fleet-"); err != nil {
		return f, err
	}
	for _, d := range []string{f.kubeconfigs(), f.host(), f.state()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return f, err
		}
	}
	if err := os.Chmod(f.dir, 0o755); err != nil {
		return f, err
	}
	root, err := lab.ModuleRoot()
	if err != nil {
		return f, err
	}
	base, err := c.Kubectl("kustomize", filepath.Join(root, "deploy/kustomize/base"))
	if err != nil {
		return f, err
	}
	f.base = []byte(base)
	if err := c.Apply(f.base); err != nil {
		return f, err
	}
	for i := range n {
		f.Nodes = append(f.Nodes, fmt.Sprintf("simulated-%05d", i))
	}
	ca, err := os.ReadFile(c.pki.path("ca.crt"))
	if err != nil {
		return f, err
	}
	var all errgroup.Group
	all.SetLimit(atOnce)
	for _, name := range f.Nodes {
		all.Go(func() error { return f.enrol(name, ca) })
	}
	if err := all.Wait(); err != nil {
		return f, err
	}
	f.unwatch = c.Watch("/api/v1/nodes?labelSelector="+simulatedLabel, func(object json.RawMessage) {
		var o struct{ Metadata Metadata }
		if json.Unmarshal(object, &o) == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.said[o.Metadata.Name] = said(o.Metadata)
		}
	})
	return f, nil
}

func (f *Fleet) kubeconfigs() string { return filepath.Join(f.dir, "kubeconfigs") }
func (f *Fleet) host() string        { return filepath.Join(f.dir, "host") }
func (f *Fleet) state() string       { return filepath.Join(f.dir, "desired") }

// simulatedNode is a Node with as many images as a kubelet reports, which is what makes Nodes large.
func simulatedNode(name string) any {
	type image struct {
		Names     []string `json:"names"`
		SizeBytes int64    `json:"sizeBytes"`
	}
	images := make([]image, 50)
	for i := range images {
		repo := fmt.Sprintf("registry.example.com/openshift-release-dev/component-%02d", i)
		images[i] = image{[]string{
			fmt.Sprintf("%s@sha256:%064x", repo, i),
			fmt.Sprintf("%s@sha256:%064x", repo, i+1<<20),
		}, 1 << 28}
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": name, "labels": map[string]string{simulatedLabel: ""}},
		"status":   map[string]any{"images": images},
	}
}

// simulatedPod is bound to its node without a scheduler, and goes at once when it is deleted: no kubelet would say
// that it has ended.
func simulatedPod(node string) any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": node},
		"spec": map[string]any{
			"nodeName": node, "serviceAccountName": "nodetrust-agent", "automountServiceAccountToken": false,
			"terminationGracePeriodSeconds": 0,
			"tolerations":                   []any{map[string]string{"operator": "Exists"}},
			"containers":                    []any{map[string]string{"name": "agent", "image": "nodetrust"}},
		},
	}
}

func (c *Cluster) post(path string, object, out any) error {
	b, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return c.Do(http.MethodPost, path, "application/json", b, out)
}

// enrol makes a node, a pod on it, and the kubeconfig of the pod's token. The CA certificate has a comment of its own
// in each, for client-go shares connections between clients with the same TLS settings.
func (f *Fleet) enrol(name string, ca []byte) error {
	if err := f.c.post("/api/v1/nodes", simulatedNode(name), nil); err != nil {
		return err
	}
	var made struct{ Metadata Metadata }
	if err := f.c.post("/api/v1/namespaces/nodetrust/pods", simulatedPod(name), &made); err != nil {
		return err
	}
	request := map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{
		"expirationSeconds": 7200,
		"boundObjectRef":    map[string]string{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": made.Metadata.UID},
	}}
	var token struct{ Status struct{ Token string } }
	if err := f.c.post("/api/v1/namespaces/nodetrust/serviceaccounts/nodetrust-agent/token", request, &token); err != nil {
		return err
	}
	own := append([]byte("# of "+name+"\n"), ca...)
	return os.WriteFile(filepath.Join(f.kubeconfigs(), name), fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://%s", certificate-authority-data: %s}}]
users: [{name: agent, user: {token: %s}}]
contexts: [{name: lab, context: {cluster: lab, user: agent}}]
current-context: lab
`, serviceAddress, base64.StdEncoding.EncodeToString(own), token.Status.Token), 0o600)
}

// Provision makes the host that all agents observe as a trust config wants it. They are not root, and have files
// belong to their own user instead.
func (f *Fleet) Provision(trust string) error {
	if _, err := f.c.Nodes[0].Render(trust, "--to", "files", "-o", f.host()); err != nil {
		return err
	}
	return filepath.WalkDir(f.host(), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, simulatedUser, simulatedUser))
	})
}

// Desire gives all agents a desired state, at the same moment: those of them that got no inotify instance look every
// other second. It returns the digest.
func (f *Fleet) Desire(trust string) (string, error) {
	b, err := f.c.Nodes[0].Render(trust, "--to", "ignition")
	if err != nil {
		return "", err
	}
	path := filepath.Join(f.state(), desired.IgnitionFile)
	if err := errors.Join(os.WriteFile(path+".new", b, 0o644), os.Rename(path+".new", path)); err != nil {
		return "", err
	}
	s, err := desired.Load(path)
	if err != nil {
		return "", err
	}
	return s.Files.Digest(), nil
}

// Start starts all agents at the same moment.
func (f *Fleet) Start(ctx context.Context) error {
	program, err := f.c.Lab.Tool(ctx, "fleet")
	if err != nil {
		return err
	}
	f.process, err = f.c.plane.Start(program, "-kubeconfigs", f.kubeconfigs(), "-host-root", f.host(), "-desired",
		f.state(), "-uid", fmt.Sprint(simulatedUser))
	return err
}

// Wait waits until every Node says that digest is desired, in the given state.
func (f *Fleet) Wait(ctx context.Context, state, digest string) error {
	for {
		var missing []string
		var example Said
		f.mu.Lock()
		for _, n := range f.Nodes {
			if s := f.said[n]; s.State != state || s.Desired != digest {
				missing, example = append(missing, n), s
			}
		}
		f.mu.Unlock()
		switch {
		case len(missing) == 0:
			return nil
		case f.process.Exited():
			return fmt.Errorf("the fleet has ended: %s", tail(f.process.Log.String()))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %d of %d nodes do not say %s for %s; %s says %q", ctx.Err(), len(missing), len(f.Nodes),
				state, digest, missing[len(missing)-1], example)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Said is what the Nodes say now.
func (f *Fleet) Said() (map[string]Said, error) {
	var list struct{ Items []struct{ Metadata Metadata } }
	if err := f.c.Get("/api/v1/nodes?labelSelector="+simulatedLabel, &list); err != nil {
		return nil, err
	}
	all := map[string]Said{}
	for _, n := range list.Items {
		all[n.Metadata.Name] = said(n.Metadata)
	}
	return all, nil
}

// Stop ends all agents and returns what each of them decided last.
func (f *Fleet) Stop() (map[string]Said, error) {
	if code := f.process.Stop(); code != 0 {
		return nil, fmt.Errorf("the fleet ended with %d: %s", code, tail(f.process.Log.String()))
	}
	out := bytes.TrimSpace([]byte(f.process.Log.String()))
	all := map[string]Said{}
	if err := json.Unmarshal(out[bytes.LastIndexByte(out, '\n')+1:], &all); err != nil {
		return nil, fmt.Errorf("reading what the fleet decided: %w", err)
	}
	return all, nil
}

// Memory is the resident memory of all agents together, in bytes.
func (f *Fleet) Memory() (int64, error) { return lab.ResidentMemory(f.process.PID()) }

// Close removes the agents and all that was made for them.
func (f *Fleet) Close() error {
	if f.process != nil && !f.process.Exited() {
		f.process.Kill()
	}
	if f.unwatch != nil {
		f.unwatch()
	}
	var errs []error
	if len(f.Nodes) > 0 {
		errs = append(errs,
			f.c.Remove("/api/v1/namespaces/nodetrust/pods"),
			f.c.Remove("/api/v1/nodes?labelSelector="+simulatedLabel))
	}
	if f.base != nil {
		errs = append(errs, f.c.Delete(f.base))
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}

// Herd is what the API server has seen of many agents.
type Herd struct {
	Requests, Writes int
	// Busiest is the number of requests in the busiest second, wherever it begins.
	Busiest int
	// Failed are answers other than success, by status.
	Failed map[int]int
	// PerNode is the largest number of writes by one agent.
	PerNode int
	// Delays are those from the cause to the last write of each node, sorted.
	Delays []time.Duration
	// Body is the mean size of a write in bytes.
	Body int
}

// Herd counts what agents asked since a point in the audit log. Delays are counted from cause.
func (c *Cluster) Herd(since int64, cause time.Time) (Herd, error) {
	all, err := c.Requests(since)
	if err != nil {
		return Herd{}, err
	}
	slices.SortFunc(all, func(a, b Request) int { return a.At.Compare(b.At) })
	h := Herd{Requests: len(all), Failed: map[int]int{}}
	last, writes := map[string]time.Time{}, map[string]int{}
	first := 0
	for i, r := range all {
		for r.At.Sub(all[first].At) >= time.Second {
			first++
		}
		h.Busiest = max(h.Busiest, i-first+1)
		switch {
		case r.Code/100 != 2:
			h.Failed[r.Code]++
		case r.Verb == "patch":
			h.Writes++
			h.Body += r.Body
			writes[r.Node]++
			h.PerNode = max(h.PerNode, writes[r.Node])
			last[r.Node] = r.At
		}
	}
	for _, at := range last {
		h.Delays = append(h.Delays, at.Sub(cause))
	}
	slices.Sort(h.Delays)
	if h.Writes > 0 {
		h.Body /= h.Writes
	}
	return h, nil
}

// Delay is the one that p percent of the nodes were below.
func (h Herd) Delay(p int) time.Duration {
	if len(h.Delays) == 0 {
		return 0
	}
	return h.Delays[min(len(h.Delays)-1, len(h.Delays)*p/100)]
}

func (h Herd) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d requests, %d writes of %d bytes, at most %d by one agent, at most %d requests in a second, written after %.1fs (median), %.1fs (last)",
		h.Requests, h.Writes, h.Body, h.PerNode, h.Busiest, h.Delay(50).Seconds(), h.Delay(100).Seconds())
	if len(h.Failed) > 0 {
		fmt.Fprintf(&s, ", failed: %v", h.Failed)
	}
	return s.String()
}
