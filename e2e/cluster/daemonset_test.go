package cluster

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/e2e/tamper"
)

// TestDaemonSet: the agents run from deploy/, each in a pod of its node, under a policy that covers their own image.
// They turn enforcement on and say on the Node objects what becomes of it.
func TestDaemonSet(t *testing.T) {
	c := need(t)
	on := deploy(t, c).on
	one, two := c.Nodes[0], c.Nodes[1]
	for _, n := range c.Nodes {
		if r := settle(t, on[n.Name], n.Name, "Enforced"); r.Desired == "" || r.Desired != r.Observed {
			t.Errorf("%s: desired %q, observed %q: want the same digest", n.Name, r.Desired, r.Observed)
		}
	}

	t.Run("pods", func(t *testing.T) {
		signed, unsigned := daemonSet("enforced-signed", c.Signed), daemonSet("enforced-unsigned", c.Unsigned)
		t.Cleanup(func() { must(t, c.Delete(signed)); must(t, c.Delete(unsigned)) })
		must(t, c.Apply(signed))
		must(t, c.Apply(unsigned))
		onEveryNode(t, c, "enforced-signed", ready)
		onEveryNode(t, c, "enforced-unsigned", refused)
	})

	t.Run("its own image", func(t *testing.T) {
		for _, n := range c.Nodes {
			judges(t, n, c.Agent, true)
		}
		// The same image without a signature could not come back.
		_, unsigned, err := c.pushAgent("team/nodetrust-unsigned", nil)
		must(t, err)
		judges(t, one, unsigned, false)
	})

	t.Run("tampering", func(t *testing.T) {
		tamperings, err := tamper.Tamperings(tamper.Host{Root: one.Root, Key: KeyPath, Rebind: one.Rebind})
		must(t, err)
		quiet, before := on[two.Name].mark(), snapshot(t, two, "etc", "root")
		for _, d := range tamperings {
			t.Run(d.Name, func(t *testing.T) { live(t, on[one.Name], one.Name, d) })
		}
		judges(t, one, c.Signed, true)
		judges(t, one, c.Unsigned, false)
		if news := on[two.Name].all()[quiet:]; len(news) > 0 {
			t.Errorf("%s was not touched, yet its Node says %q", two.Name, news)
		}
		if after := snapshot(t, two, "etc", "root"); !maps.Equal(after, before) {
			t.Errorf("%s was written to:\n%q\n%q", two.Name, before, after)
		}
	})

	t.Run("another policy", func(t *testing.T) {
		must(t, os.WriteFile(one.Path("etc/crio/loose.json"), []byte(acceptAnything), 0o644))
		mark := on[one.Name].mark()
		must(t, one.StartCRIO("/etc/crio/loose.json"))
		r := on[one.Name].await(t, one.Name, "NotEnforced", mark, state("NotEnforced"))
		if r.Desired != r.Observed {
			t.Errorf("the files are as desired, yet the Node says %q", r)
		}
		must(t, one.StartCRIO(""))
		settle(t, on[one.Name], one.Name, "Enforced")
	})

	t.Run("dead lookaside", func(t *testing.T) {
		marks := map[string]int{}
		for _, n := range c.Nodes {
			marks[n.Name] = on[n.Name].mark()
		}
		c.Lookaside.Stop()
		for _, n := range c.Nodes {
			// A pull that was under way may have been cut off in its own way.
			on[n.Name].await(t, n.Name, "LookasideUnreachable", marks[n.Name], func(r report) bool {
				return r.State == "Unknown" && r.Reason == "LookasideUnreachable"
			})
		}
		must(t, c.StartServer(c.Lookaside.Server))
		for _, n := range c.Nodes {
			settle(t, on[n.Name], n.Name, "Enforced")
			for _, r := range on[n.Name].all()[marks[n.Name]:] {
				if r.State == "NotEnforced" || r.State == "Blocked" || r.State == "RolledBack" {
					t.Errorf("%s: an outage made the Node say %q", n.Name, r)
				}
			}
		}
	})
}

// live does a tampering on a node whose agent runs: it must be told on the Node, and healed unless it isn't the
// agent's to heal.
func live(t *testing.T, on *reports, node string, d tamper.Tampering) {
	mark := on.mark()
	must(t, d.Do())
	undone := d.Undo == nil
	t.Cleanup(func() {
		if !undone {
			must(t, d.Undo())
		}
	})
	if d.Undo == nil {
		if err := lab.Poll(patience, d.Healed); err != nil {
			t.Fatalf("not healed: %v", err)
		}
	}
	r := on.await(t, node, "a report that names "+d.Path, mark, func(r report) bool {
		// What is read instead of our files may refuse the accept-canary at once, and worse is told first.
		return r.State != "Enforced" && strings.Contains(r.Message, d.Path) || d.Kind == "masks" && r.State == "Blocked"
	})
	if d.Undo != nil {
		undone = true
		must(t, d.Undo())
	} else if r.State != "Drifted" {
		t.Errorf("the Node says %q", r)
	}
	settle(t, on, node, "Enforced")
	for _, r := range on.all()[mark:] {
		if d.Undo == nil && (r.State == "Blocked" || r.State == "RolledBack" || r.State == "NotEnforced") {
			t.Errorf("the Node says %q", r)
		}
	}
}

// judges asks CRI-O to pull: it must accept the image, or refuse it for its signature.
func judges(t *testing.T, n *Node, image string, accept bool) {
	t.Helper()
	err := n.Pull(image, "")
	if err == nil && !accept {
		err = errors.New("it is accepted")
	}
	if accept && err != nil || !accept && !strings.Contains(err.Error(), "SignatureValidationFailed") {
		t.Errorf("CRI-O on %s: %s: %v", n.Name, image, err)
	}
}
