package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// TestDaemonSet: the agents run from deploy/, each in a pod of its node, under a policy that covers their own image.
func TestDaemonSet(t *testing.T) {
	c := need(t)
	on := deploy(t, c).on

	t.Run("replaced directory", func(t *testing.T) {
		n := c.Nodes[0]
		containers := n.Path("etc/containers")
		want, err := os.ReadFile(filepath.Join(containers, "policy.json"))
		must(t, err)
		registries, err := os.ReadFile(filepath.Join(containers, "registries.conf"))
		must(t, err)
		mark, quiet := len(on[n.Name].all()), len(on[c.Nodes[1].Name].all())
		next := containers + ".next"
		must(t, os.MkdirAll(filepath.Join(next, "registries.d"), 0o755))
		must(t, os.WriteFile(filepath.Join(next, "registries.conf"), registries, 0o644))
		must(t, os.WriteFile(filepath.Join(next, "policy.json"), []byte(acceptAnything), 0o644))
		// It stays till the end: with it would go what is mounted on it.
		must(t, os.Rename(containers, containers+".old"))
		must(t, os.Rename(next, containers))
		must(t, n.Rebind()) // what the host's programs see from now on
		err = lab.Poll(time.Minute, func() error {
			got, err := os.ReadFile(filepath.Join(containers, "policy.json"))
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("policy.json has %d bytes", len(got))
			}
			return err
		})
		if err != nil {
			t.Fatalf("the new directory was not healed: %v", err)
		}
		err = lab.Poll(time.Minute, func() error {
			for _, r := range on[n.Name].all()[mark:] {
				if r.State == "Drifted" {
					return nil
				}
			}
			return fmt.Errorf("the Node says %q", on[n.Name].all()[mark:])
		})
		if err != nil {
			t.Fatalf("not reported: %v", err)
		}
		settle(t, on[n.Name], n.Name, "Enforced")
		if news := on[c.Nodes[1].Name].all()[quiet:]; len(news) > 0 {
			t.Errorf("the other node says %q", news)
		}
		if err := n.Pull(c.Unsigned, ""); err == nil || !strings.Contains(err.Error(), "SignatureValidationFailed") {
			t.Errorf("CRI-O takes the unsigned image: %v", err)
		}
	})
}
