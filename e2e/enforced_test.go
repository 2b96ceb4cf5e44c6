package e2e

import (
	"slices"
	"testing"
)

// TestNotEnforced: files that are right prove nothing; the canaries tell a runtime that reads another policy, and a
// network that tells nothing.
func TestNotEnforced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.installKey()
	must(t, w.node.StartCRIO(""))
	w.desire(w.render("machineconfig", w.trustYAML()))
	a := w.startAgent()
	first := a.settle("Enforced")

	t.Run("CRI-O with another signature_policy", func(t *testing.T) {
		a := a.as(t)
		w.write("etc/crio/loose.json", []byte(acceptAnything))
		must(t, w.node.StartCRIO("/etc/crio/loose.json"))
		s := a.settle("NotEnforced")
		if len(s.Differences) > 0 || s.Observed != first.Desired {
			t.Errorf("the files are as desired, yet: %v", s)
		}
		if !pulled(s, "cri", "refuse") {
			t.Errorf("no refuse-canary that CRI-O pulled: %v", s)
		}
		mark := a.mark()
		must(t, w.node.StartCRIO(""))
		a.await("Enforced again", mark, state("Enforced"))
	})

	for _, tt := range []struct {
		name        string
		stop, start func()
		reason      string
	}{
		{"dead lookaside", w.store.Lookaside.Stop, func() { must(t, w.store.Lookaside.Start()) }, "LookasideUnreachable"},
		{"dead registry", w.store.Registry.Stop, func() { must(t, w.store.Registry.Start()) }, "RegistryUnreachable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := a.as(t)
			mark := a.mark()
			tt.stop()
			// A round that was under way may have been cut off in its own way. Later ones have nothing to ask: no canary comes
			// out right.
			s := a.await("Unknown "+tt.reason+" of every canary", mark, func(s status) bool {
				return s.State == "Unknown" && s.Reason == tt.reason &&
					!slices.ContainsFunc(s.Canaries, func(c canary) bool { return c.OK })
			})
			// Once more, lest the first answer was luck.
			mark = a.mark()
			a.await("another round", mark, func(n status) bool { return n.CheckedAt != s.CheckedAt })
			a.never(mark, "Enforced", "NotEnforced", "Blocked", "RolledBack", "Drifted")
			mark = a.mark()
			tt.start()
			a.await("Enforced again", mark, state("Enforced"))
			a.never(mark, "NotEnforced", "Blocked", "RolledBack", "Drifted")
		})
	}
}

func pulled(s status, runtime, expect string) bool {
	for _, c := range s.Canaries {
		if c.Runtime == runtime && c.Expect == expect && c.Verdict == "accept" {
			return true
		}
	}
	return false
}
