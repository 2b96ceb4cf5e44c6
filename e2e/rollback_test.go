package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/nodetrust/nodetrust/e2e/tamper"
)

// TestRollback: a new desired state that breaks the node is taken back; one that came at a bad moment is not.
func TestRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.installKey()
	w.write("etc/pki/rpm-gpg/RPM-GPG-KEY-stranger", stranger.Armored)
	must(t, w.node.StartCRIO(""))
	good := w.trustYAML()
	w.desire(w.render("machineconfig", good))
	a := w.startAgent()
	first := a.settle("Enforced")
	policy, err := os.ReadFile(w.node.Path("etc/containers/policy.json"))
	must(t, err)

	rolledBack := func(t *testing.T, desired []byte) {
		a := a.as(t)
		w := w.as(t)
		mark := a.mark()
		w.desire(desired)
		s := a.await("RolledBack", mark, state("RolledBack"))
		if s.Observed != first.Observed || s.Desired == first.Desired {
			t.Errorf("observed %s and desired %s, want the first set %s and another one: %v", s.Observed, s.Desired,
				first.Observed, s)
		}
		if s.Reason == "" || s.Message == "" {
			t.Errorf("rolled back without a word why: %v", s)
		}
		must(t, tamper.Whole(w.node.Path("etc/containers/policy.json"), policy))
		w.judges(w.signed, true)
		w.judges(w.unsigned, false)
		// It stays so: what was taken back is not tried again.
		again := a.mark()
		a.await("another look", again, func(n status) bool { return n.CheckedAt != s.CheckedAt })
		a.never(again, "Enforced", "NotEnforced", "Blocked", "Contested")
		must(t, tamper.Whole(w.node.Path("etc/containers/policy.json"), policy))

		mark = a.mark()
		w.desire(w.render("machineconfig", good))
		a.await("Enforced with the first set", mark,
			func(s status) bool { return s.State == "Enforced" && s.Desired == first.Desired })
	}

	t.Run("a set that does not load", func(t *testing.T) {
		broken := []byte(`{"default":[{"type":"fromTheFuture"}]}`)
		rolledBack(t, replaceFile(t, w.render("machineconfig", good), "/etc/containers/policy.json", broken))
	})
	t.Run("a set that refuses what was accepted", func(t *testing.T) {
		other := strings.NewReplacer(keyPath, "etc/pki/rpm-gpg/RPM-GPG-KEY-stranger", corp.Fingerprint,
			stranger.Fingerprint).Replace(good)
		rolledBack(t, w.render("machineconfig", other))
	})
	t.Run("a registry outage is not on trial", func(t *testing.T) {
		a := a.as(t)
		mark := a.mark()
		w.store.Registry.Stop()
		w.desire(w.render("machineconfig", w.trustYAML(fmt.Sprintf("  - scope: %s/closed\n    require: reject\n",
			w.store.Registry.Host))))
		s := a.await("Unknown under the new set", mark, func(s status) bool {
			return s.State == "Unknown" && s.Desired != first.Desired && s.Observed == s.Desired
		})
		a.never(mark, "RolledBack", "Blocked", "NotEnforced")
		mark = a.mark()
		must(t, w.store.Registry.Start())
		e := a.await("Enforced", mark, state("Enforced"))
		if e.Desired != s.Desired || e.Observed != s.Desired {
			t.Errorf("the set that was applied during the outage is not the one that stayed: %v", e)
		}
		a.never(mark, "RolledBack", "Blocked", "NotEnforced")
	})
}

// replaceFile gives a file of a MachineConfig other content, as someone's hand would: the digest that it was rendered
// with is taken off.
func replaceFile(t *testing.T, machineConfig []byte, path string, data []byte) []byte {
	t.Helper()
	var mc map[string]any
	must(t, yaml.Unmarshal(machineConfig, &mc))
	delete(mc["metadata"].(map[string]any)["annotations"].(map[string]any), "nodetrust.io/digest")
	files := mc["spec"].(map[string]any)["config"].(map[string]any)["storage"].(map[string]any)["files"].([]any)
	for _, f := range files {
		file := f.(map[string]any)
		if file["path"] != path {
			continue
		}
		file["contents"] = map[string]any{"source": "data:;base64," + base64.StdEncoding.EncodeToString(data)}
		out, err := yaml.Marshal(mc)
		must(t, err)
		return out
	}
	t.Fatalf("no %s in the MachineConfig:\n%s", path, machineConfig)
	return nil
}
