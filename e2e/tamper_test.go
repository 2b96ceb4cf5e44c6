package e2e

import (
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/e2e/tamper"
)

const acceptAnything = tamper.AcceptAnything

// TestTamper: whatever is done to the files is seen and healed, or named where the agent may not heal it.
func TestTamper(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.installKey()
	must(t, w.node.StartCRIO(""))
	w.desire(w.render("machineconfig", w.trustYAML()))
	a := w.startAgent()
	a.settle("Enforced")

	tamperings, err := tamper.Tamperings(tamper.Host{Root: w.node.Root, Key: keyPath, Rebind: w.node.Rebind})
	must(t, err)
	for _, d := range tamperings {
		t.Run(d.Name, func(t *testing.T) {
			sub := a.as(t)
			mark := a.mark()
			start := time.Now()
			must(t, d.Do())
			if d.Undo == nil {
				if err := lab.Poll(lab.Patience, d.Healed); err != nil {
					t.Fatalf("not healed: %v", err)
				}
				t.Logf("healed in less than %s", time.Since(start).Round(time.Millisecond))
			}
			sub.await("a status that names "+d.Path+" "+d.Kind, mark, func(s status) bool {
				return s.State != "Enforced" && s.differs(d.Path, d.Kind)
			})
			if d.Undo != nil {
				mark = a.mark()
				must(t, d.Undo())
				sub.await("Enforced again", mark, state("Enforced"))
			}
			if s := sub.settle("Enforced"); len(s.Differences) > 0 {
				t.Errorf("Enforced with differences: %v", s)
			}
			if d.Undo == nil {
				sub.never(mark, "Blocked", "RolledBack", "unreadable")
			}
		})
	}
	// What was healed is what counts: the runtimes enforce.
	w.judges(w.signed, true)
	w.judges(w.unsigned, false)
}
