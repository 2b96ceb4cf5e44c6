package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// daemonSet is a DaemonSet in namespace default whose pods, one per node, run image.
func daemonSet(name, image string) []byte {
	return fmt.Appendf(nil, `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s, namespace: default}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: %[2]s
        imagePullPolicy: Always
`, name, image)
}

type pod struct {
	Metadata Metadata `json:"metadata"`
	Spec     struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		PodIP             string `json:"podIP"`
		ContainerStatuses []struct {
			Ready        bool `json:"ready"`
			RestartCount int  `json:"restartCount"`
			State        struct {
				Waiting *struct{ Reason, Message string } `json:"waiting"`
			} `json:"state"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

// pods are those of a DaemonSet by node.
func (c *Cluster) pods(app string) (map[string]pod, error) {
	var list struct{ Items []pod }
	if err := c.Get("/api/v1/namespaces/default/pods?labelSelector=app%3D"+app, &list); err != nil {
		return nil, err
	}
	byNode := map[string]pod{}
	for _, p := range list.Items {
		byNode[p.Spec.NodeName] = p
	}
	return byNode, nil
}

// onEveryNode waits until the pod of a DaemonSet is as ok wants it on every node.
func onEveryNode(t *testing.T, c *Cluster, app string, ok func(pod) error) {
	t.Helper()
	err := lab.Poll(patience, func() error {
		pods, err := c.pods(app)
		if err != nil {
			return err
		}
		for _, n := range c.Nodes {
			p, there := pods[n.Name]
			if !there {
				return fmt.Errorf("%s has no pod of %s", n.Name, app)
			}
			if err := ok(p); err != nil {
				return fmt.Errorf("pod of %s on %s: %w", app, n.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ready(p pod) error {
	for _, s := range p.Status.ContainerStatuses {
		if s.Ready {
			return nil
		}
		if s.State.Waiting != nil {
			return fmt.Errorf("waiting: %s: %s", s.State.Waiting.Reason, s.State.Waiting.Message)
		}
	}
	return errors.New("not ready")
}

// refused is right for a pod whose image the node refuses for its signature. The kubelet tries again and again: it
// says so at first, and that it backs off later.
func refused(p pod) error {
	if len(p.Status.ContainerStatuses) == 0 {
		return errors.New("not started")
	}
	s := p.Status.ContainerStatuses[0]
	w := s.State.Waiting
	switch {
	case s.Ready:
		return errors.New("it runs")
	case w == nil:
		return errors.New("it has no reason to wait")
	case w.Reason == "SignatureValidationFailed", w.Reason == "ImagePullBackOff" &&
		strings.Contains(w.Message, "SignatureValidationFailed"):
		return nil
	}
	return fmt.Errorf("waiting: %s: %s", w.Reason, w.Message)
}

// TestSigned: nodes that were provisioned with rendered files run pods of a signed image and refuse those of an
// unsigned one.
func TestSigned(t *testing.T) {
	c := need(t)
	for _, n := range c.Nodes {
		must(t, n.Provision(c.Trust("")))
	}
	t.Cleanup(func() {
		for _, n := range c.Nodes {
			must(t, n.Reset())
		}
	})
	signed, unsigned := daemonSet("signed", c.Signed), daemonSet("unsigned", c.Unsigned)
	t.Cleanup(func() { must(t, c.Delete(signed)); must(t, c.Delete(unsigned)) })
	must(t, c.Apply(signed))
	must(t, c.Apply(unsigned))
	onEveryNode(t, c, "signed", ready)
	onEveryNode(t, c, "unsigned", refused)
	pods, err := c.pods("signed")
	must(t, err)
	for i, n := range c.Nodes {
		if want := fmt.Sprintf("10.251.%d.", i+1); !strings.HasPrefix(pods[n.Name].Status.PodIP, want) {
			t.Errorf("the pod on %s has the address %q, want one of its node's network %s0/24", n.Name,
				pods[n.Name].Status.PodIP, want)
		}
	}
}
