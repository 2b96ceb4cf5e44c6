package cluster

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

const (
	// idle is how long nothing may be asked of the API server when nothing happens: fifteen looks, ten rounds of canaries.
	idle = 30 * time.Second
	// outage is the API server's; in production it may take as long as it likes (agent/node tests a day).
	outage = 15 * time.Second
)

// another is a trust config that differs by one rejected scope.
func (c *Cluster) another(scope string) string {
	return c.Trust(fmt.Sprintf("  - scope: %s/%s\n    require: reject\n", c.Registry.Host, scope))
}

// applied waits until the Node says that another digest than old is enforced, and returns it.
func applied(t *testing.T, on *reports, node, old string) string {
	t.Helper()
	var last report
	err := lab.Poll(2*time.Minute, func() error {
		all := on.all()
		last = all[len(all)-1]
		if last.State != "Enforced" || last.Desired == old || last.Desired != last.Observed {
			return fmt.Errorf("the Node says %q", last)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("waiting for the new state on %s: %v", node, err)
	}
	return last.Desired
}

// TestChange: what the agents do when the world around them changes, and that they leave the API server alone when it doesn't.
func TestChange(t *testing.T) {
	c := need(t)
	d := deploy(t, c)
	pods := map[string]pod{}
	for _, n := range c.Nodes {
		p, err := d.pod(n.Name)
		must(t, err)
		pods[n.Name] = p
	}
	one := c.Nodes[0]

	t.Run("idle", func(t *testing.T) {
		time.Sleep(5 * time.Second) // what was under way
		since := c.audited(t)
		time.Sleep(idle)
		for node, requests := range c.requests(t, since) {
			t.Errorf("%s asked in %s of quiet: %v", node, idle, requests)
		}
	})

	t.Run("ConfigMap", func(t *testing.T) {
		since, marks, old := c.audited(t), map[string]int{}, map[string]string{}
		for _, n := range c.Nodes {
			all := d.on[n.Name].all()
			marks[n.Name], old[n.Name] = len(all), all[len(all)-1].Desired
		}
		d.desire(t, c.another("changed"))
		digests := map[string]bool{}
		for _, n := range c.Nodes {
			digests[applied(t, d.on[n.Name], n.Name, old[n.Name])] = true
		}
		if len(digests) != 1 {
			t.Errorf("the nodes have %d different digests", len(digests))
		}
		time.Sleep(5 * time.Second) // for writes that are too many
		requests := c.requests(t, since)
		for _, n := range c.Nodes {
			if news := d.on[n.Name].all()[marks[n.Name]:]; len(news) != 1 || len(requests[n.Name]) != 1 {
				t.Errorf("%s: one write was enough, there were %v: the Node said %q", n.Name, requests[n.Name], news)
			}
			p, err := d.pod(n.Name)
			must(t, err)
			if was := pods[n.Name]; p.Metadata.UID != was.Metadata.UID || p.Status.ContainerStatuses[0].RestartCount != was.Status.ContainerStatuses[0].RestartCount {
				t.Errorf("the agent on %s was started again", n.Name)
			}
		}
	})

	t.Run("API server stopped", func(t *testing.T) {
		policy := one.Path("etc/containers/policy.json")
		want, err := os.ReadFile(policy)
		must(t, err)
		marks := map[string]int{}
		for _, n := range c.Nodes {
			marks[n.Name] = d.on[n.Name].mark()
		}
		c.StopAPIServer()
		began := time.Now()
		for range 3 {
			must(t, os.WriteFile(policy, []byte(acceptAnything), 0o644))
			err = lab.Poll(10*time.Second, func() error {
				got, err := os.ReadFile(policy)
				if err == nil && string(got) != string(want) {
					err = fmt.Errorf("policy.json has %d bytes", len(got))
				}
				return err
			})
			if err != nil {
				t.Errorf("not healed without an API server: %v", err)
			}
		}
		c.Lookaside.Stop() // a state that stays
		time.Sleep(time.Until(began.Add(outage)))
		must(t, c.StartAPIServer())
		must(t, c.WaitReady())
		for _, n := range c.Nodes {
			if r := settle(t, d.on[n.Name], n.Name, "Unknown"); r.Reason != "LookasideUnreachable" {
				t.Errorf("%s says %q", n.Name, r)
			}
		}
		must(t, c.StartServer(c.Lookaside.Server))
		for _, n := range c.Nodes {
			settle(t, d.on[n.Name], n.Name, "Enforced")
			for _, r := range d.on[n.Name].all()[marks[n.Name]:] {
				if r.State != "Unknown" && r.State != "Enforced" && (r.State != "Drifted" || n != one) {
					t.Errorf("%s said %q", n.Name, r)
				}
			}
		}
	})

	t.Run("CRI-O stopped", func(t *testing.T) {
		two := c.Nodes[1]
		quiet := d.on[two.Name].mark()
		one.StopCRIO()
		r := settle(t, d.on[one.Name], one.Name, "Unknown")
		if r.Desired != r.Observed {
			t.Errorf("the files are as desired, yet the Node says %q", r)
		}
		must(t, one.StartCRIO(""))
		settle(t, d.on[one.Name], one.Name, "Enforced")
		if news := d.on[two.Name].all()[quiet:]; len(news) > 0 {
			t.Errorf("the other node says %q", news)
		}
	})
}
