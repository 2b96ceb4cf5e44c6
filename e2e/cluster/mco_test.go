package cluster

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// snapshot is all that a host has below some directories; a file that is written again with the same bytes differs too.
func snapshot(t *testing.T, n *Node, dirs ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range dirs {
		err := filepath.WalkDir(n.Path(dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			what := fmt.Sprintf("%v inode %d", info.Mode(), info.Sys().(*syscall.Stat_t).Ino)
			if info.Mode().IsRegular() {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				what += fmt.Sprintf(" %v %x", info.ModTime(), sha256.Sum256(b))
			}
			found[strings.TrimPrefix(path, n.Root)] = what
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// untouched fails the test if the agent, given time to look and probe a few times, changes anything on the host.
func untouched(t *testing.T, n *Node, before map[string]string) {
	t.Helper()
	time.Sleep(7 * time.Second) // three looks, two rounds of canaries
	if after := snapshot(t, n, hostDirs...); !maps.Equal(after, before) {
		t.Errorf("%s was written to:\n%q\n%q", n.Name, before, after)
	}
}

// hostDirs are those in which the Machine Config Operator's files are.
var hostDirs = []string{"etc", "root", "usr"}

// operate does what the Machine Config Operator does with a MachineConfig: it writes the files, and says so in
// currentconfig.
func operate(t *testing.T, n *Node, trust string) {
	t.Helper()
	config, err := n.Render(trust, "--to", "machineconfig")
	must(t, err)
	config, err = yaml.YAMLToJSON(config)
	must(t, err)
	dir := n.Path("etc/machine-config-daemon")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, n.Provision(trust))
	must(t, os.WriteFile(filepath.Join(dir, "currentconfig"), config, 0o644))
}

// TestOperator: a node of the Machine Config Operator is known by its directory (node1) or by its Node's annotation
// (node2). It is never written to, and what the Node says is right.
func TestOperator(t *testing.T) {
	const annotation = "machineconfiguration.openshift.io/currentConfig"
	c := need(t)
	ours := c.Trust("")
	theirs := c.Trust(fmt.Sprintf("  - scope: %s/theirs\n    require: reject\n", c.Registry.Host))
	before := map[string]map[string]string{}
	t.Cleanup(func() {
		must(t, os.RemoveAll(c.Nodes[0].Path("etc/machine-config-daemon")))
		_, err := c.Kubectl("annotate", "node", "node2", annotation+"-")
		must(t, err)
	})
	a := startAgents(t, c, ours, agentOptions{
		root: func(n *Node) string { return n.Root },
		prepare: func(n *Node) {
			if n.Name == "node1" {
				operate(t, n, theirs)
			} else {
				_, err := c.Kubectl("annotate", "--overwrite", "node", n.Name, annotation+"=rendered-worker-1")
				must(t, err)
			}
			before[n.Name] = snapshot(t, n, hostDirs...)
		},
	})
	one, two := a.on["node1"], a.on["node2"]

	t.Run("another MachineConfig has won", func(t *testing.T) {
		r := settle(t, one.reports, "node1", "Shadowed")
		if r.Reason != "OtherMachineConfig" || !strings.Contains(r.Message, "apply MachineConfig 51-worker-lab") ||
			r.Desired == r.Observed {
			t.Errorf("the Node says %q", r)
		}
		untouched(t, one.node, before["node1"])
	})
	t.Run("nothing applied yet", func(t *testing.T) {
		r := settle(t, two.reports, "node2", "Drifted")
		if r.Desired == r.Observed {
			t.Errorf("the Node says %q", r)
		}
		untouched(t, two.node, before["node2"])
	})
	t.Run("ours is applied", func(t *testing.T) {
		operate(t, one.node, ours)
		must(t, two.node.Provision(ours))
		for _, on := range []*agent{one, two} {
			if r := settle(t, on.reports, on.node.Name, "Enforced"); r.Desired != r.Observed {
				t.Errorf("%s says %q", on.node.Name, r)
			}
		}
	})
	t.Run("tampering", func(t *testing.T) {
		for _, on := range []*agent{one, two} {
			mark := on.mark()
			must(t, os.WriteFile(on.node.Path("etc/containers/policy.json"), []byte(acceptAnything), 0o644))
			is := snapshot(t, on.node, hostDirs...)
			r := on.await(t, "Drifted", mark, state("Drifted"))
			if !strings.Contains(r.Message, "policy.json") {
				t.Errorf("%s says %q", on.node.Name, r)
			}
			untouched(t, on.node, is)
			settle(t, on.reports, on.node.Name, "Drifted")
		}
	})
	t.Run("the operator is back", func(t *testing.T) {
		operate(t, one.node, ours)
		settle(t, one.reports, "node1", "Enforced")
	})
}
