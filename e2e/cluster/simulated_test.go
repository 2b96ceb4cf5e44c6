package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

const (
	simulatedAgents = 1000
	// atMost is what a second of the API server may see of all agents together.
	atMost = 100
)

// TestSimulated: a thousand agents have the same to say at the same moment, with the API server there and with one
// that comes back. What is counted is what the API server has logged.
func TestSimulated(t *testing.T) {
	c := need(t)
	f, err := c.NewFleet(simulatedAgents)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	must(t, f.Provision(c.Trust("")))
	digest, err := f.Desire(c.Trust(""))
	must(t, err)
	since, cause := c.audited(t), time.Now()
	must(t, f.Start(ctx))
	must(t, f.Wait(ctx, "Unknown", digest)) // NoCanary
	h, err := c.Herd(since, cause)
	must(t, err)
	t.Logf("start: %s", h)

	// check has all agents learn of a desired state, and looks at what the API server sees of that since a moment. A
	// machine that stands still for a second makes a crowd of those who wait for it: that is looked at again, up to
	// three times.
	check := func(t *testing.T, learn func(name string) (since int64, cause time.Time, digest string)) {
		t.Helper()
		for try := 1; ; try++ {
			since, cause, digest := learn(fmt.Sprint("changed-", try))
			must(t, f.Wait(ctx, "Drifted", digest))
			var h Herd
			must(t, lab.Poll(patience, func() (err error) { // a Node has changed before its request is in the log
				if h, err = c.Herd(since, cause); err == nil && len(h.Delays) < simulatedAgents {
					err = fmt.Errorf("%d agents have written", len(h.Delays))
				}
				return err
			}))
			t.Log(h)
			if len(h.Delays) != simulatedAgents || h.PerNode > 1 {
				t.Errorf("%d agents have written, one of them %d times; want all %d, once each", len(h.Delays), h.PerNode,
					simulatedAgents)
			}
			if h.Busiest <= atMost {
				return
			}
			if try == 3 {
				t.Errorf("%d requests in one second, want at most %d", h.Busiest, atMost)
				return
			}
		}
	}
	t.Run("common change", func(t *testing.T) {
		check(t, func(name string) (int64, time.Time, string) {
			since, cause := c.audited(t), time.Now()
			digest, err := f.Desire(c.another(name))
			must(t, err)
			return since, cause, digest
		})
	})
	t.Run("API server comes back", func(t *testing.T) {
		check(t, func(name string) (int64, time.Time, string) {
			c.StopAPIServer()
			digest, err := f.Desire(c.another(name + "-while-away"))
			must(t, err)
			time.Sleep(25 * time.Second) // every agent has tried
			since := c.audited(t)
			must(t, c.StartAPIServer())
			must(t, c.WaitReady())
			return since, time.Now(), digest
		})
	})
	t.Run("nothing lost", func(t *testing.T) {
		since := c.audited(t)
		time.Sleep(5 * time.Second)
		h, err := c.Herd(since, time.Now())
		must(t, err)
		if h.Requests > 0 {
			t.Errorf("%d requests when all was told", h.Requests)
		}
		decided, err := f.Stop()
		must(t, err)
		told, err := f.Said()
		must(t, err)
		if len(decided) != simulatedAgents {
			t.Errorf("%d agents have decided something", len(decided))
		}
		for _, n := range slices.Sorted(maps.Keys(decided)) {
			if told[n] != decided[n] {
				t.Errorf("%s says %q, its agent decided %q", n, told[n], decided[n])
			}
		}
	})
}
