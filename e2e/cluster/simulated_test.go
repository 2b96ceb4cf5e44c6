package cluster

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"
)

const (
	simulatedAgents = 1000
	// atMost is what a second of the API server may see of all agents together.
	atMost = 100
)

// TestSimulated: a thousand agents have the same to say at the same moment, with the API server there and with one that comes back.
// What is counted is what the API server has logged.
func TestSimulated(t *testing.T) {
	c := need(t)
	f, err := c.NewFleet(simulatedAgents)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
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

	check := func(t *testing.T, since int64, cause time.Time) {
		t.Helper()
		h, err := c.Herd(since, cause)
		must(t, err)
		t.Log(h)
		if h.Busiest > atMost {
			t.Errorf("%d requests in one second, want at most %d", h.Busiest, atMost)
		}
		if len(h.Delays) != simulatedAgents || h.PerNode > 1 {
			t.Errorf("%d agents have written, one of them %d times; want all %d, once each", len(h.Delays), h.PerNode, simulatedAgents)
		}
	}
	t.Run("common change", func(t *testing.T) {
		since, cause := c.audited(t), time.Now()
		digest, err := f.Desire(c.another("changed"))
		must(t, err)
		must(t, f.Wait(ctx, "Drifted", digest))
		check(t, since, cause)
	})
	t.Run("API server comes back", func(t *testing.T) {
		c.StopAPIServer()
		digest, err := f.Desire(c.another("changed-while-away"))
		must(t, err)
		time.Sleep(25 * time.Second) // every agent has tried
		since := c.audited(t)
		must(t, c.StartAPIServer())
		must(t, c.WaitReady())
		cause := time.Now()
		must(t, f.Wait(ctx, "Drifted", digest))
		check(t, since, cause)
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
