package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	read "github.com/nodetrust/nodetrust/internal/cluster"
)

// crowd is the node and the namespace of pods that nobody runs.
const crowd = "simulated-pods"

// PodMargin is how many bytes of each pod of FillPods nobody needs.
const PodMargin = 6 << 10

// FillPods makes n pods on a node that no kubelet is behind, and returns what removes them. Each is about as large as
// a real one, 8 KiB, and runs one of the images in turn.
func (c *Cluster) FillPods(n int, images ...string) (remove func() error, err error) {
	remove = func() error {
		return errors.Join(
			c.Remove("/api/v1/namespaces/"+crowd+"/pods"),
			c.Remove("/api/v1/namespaces/"+crowd),
			c.Remove("/api/v1/nodes/"+crowd))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	for _, o := range []struct{ path, kind, name string }{
		{"/api/v1/nodes", "Node", crowd},
		{"/api/v1/namespaces", "Namespace", crowd},
		{"/api/v1/namespaces/" + crowd + "/serviceaccounts", "ServiceAccount", "pods"},
	} {
		object := map[string]any{"apiVersion": "v1", "kind": o.kind, "metadata": map[string]string{"name": o.name}}
		if err := c.post(o.path, object, nil); err != nil {
			return remove, fmt.Errorf("making the %s %s: %w", o.kind, o.name, err)
		}
	}
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i := range n {
		all.Go(func() error {
			margin := make([]byte, PodMargin*3/4)
			_, _ = rand.Read(margin) // never fails, and can't be compressed
			return c.post("/api/v1/namespaces/"+crowd+"/pods", map[string]any{
				"apiVersion": "v1", "kind": "Pod",
				"metadata": map[string]any{
					"name":        fmt.Sprintf("pod-%05d", i),
					"annotations": map[string]string{"example.com/size": base64.StdEncoding.EncodeToString(margin)},
				},
				"spec": map[string]any{
					"nodeName": crowd, "serviceAccountName": "pods", "automountServiceAccountToken": false,
					"terminationGracePeriodSeconds": 0,
					"containers":                    []any{map[string]string{"name": "c", "image": images[i%len(images)]}},
				},
			}, nil)
		})
	}
	return remove, all.Wait()
}

// Listing is what it took to read all pods of the cluster.
type Listing struct {
	Pods, Pages int
	// Sent is how many bytes the API server has sent, compressed, as it says itself.
	Sent int64
	// Live is the most memory that was reachable at any time, in bytes above what was so before.
	Live int64
}

// ListPods reads all pods as `nodetrust audit` does, and drops each.
func (c *Cluster) ListPods(ctx context.Context) (l Listing, err error) {
	client, err := read.New(read.Config{Kubeconfig: c.Kubeconfig})
	if err != nil {
		return l, err
	}
	since, err := c.Audited()
	if err != nil {
		return l, err
	}
	sent, err := c.sentPods()
	if err != nil {
		return l, err
	}
	before := reachable()
	err = client.Pods(ctx, func(read.Pod) error {
		if l.Pods++; l.Pods%100 == 0 {
			l.Live = max(l.Live, reachable()-before)
		}
		return nil
	})
	if err != nil {
		return l, err
	}
	after, err := c.sentPods()
	if err != nil {
		return l, err
	}
	l.Sent = int64(after - sent)
	pages, err := c.requestsOf(since, func(e event) bool {
		return e.UserAgent == "nodetrust" && e.Verb == "list" && strings.HasPrefix(e.RequestURI, "/api/v1/pods?")
	})
	l.Pages = len(pages)
	return l, err
}

func (c *Cluster) sentPods() (float64, error) {
	m, err := c.APIServerMetrics()
	return m.Sum("apiserver_response_sizes_sum", `resource="pods"`, `verb="LIST"`), err
}

// reachable is the memory that is reachable now, in bytes.
func reachable() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Audit is `nodetrust audit` of all pods by a trust config file, as a program on node1.
func (c *Cluster) Audit(ctx context.Context, trust string) *exec.Cmd {
	return c.Nodes[0].Command(ctx, c.Lab.Programs.Nodetrust, "audit", "--config", trust, "--images-from", "cluster",
		"--kubeconfig", c.pki.path("admin.kubeconfig"), "--tls-verify=false", "--no-cache", "-o", "json")
}
