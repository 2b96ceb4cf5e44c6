package cluster

import (
	"context"
	"time"

	"github.com/nodetrust/nodetrust/internal/cluster/rollout"
)

const (
	// pollEvery is the time between two looks at a rollout: nodes take minutes.
	pollEvery = 5 * time.Second
	// badFor is how long a pool must be bad before a wait ends: the Machine Config Operator takes some seconds to
	// forget a repaired fault, and an agent to look again.
	badFor = 15 * time.Second
)

// Waiting configures a wait for rollouts.
type Waiting struct {
	Read func(context.Context) (rollout.Report, error)
	// Show receives every report but the last. Its error ends the wait.
	Show func(rollout.Report) error
	// Warn receives an error of reading, once for equal ones in a row.
	Warn func(error)
}

// WaitRollout reads until all pools are rolled out, or one has been bad for badFor. It returns the last report, or nil
// and the first error if none could be read. When ctx ends the error is ctx.Err().
func WaitRollout(ctx context.Context, w Waiting) (last *rollout.Report, err error) {
	var warned string
	var badSince time.Time
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		r, err := w.Read(ctx)
		switch {
		case ctx.Err() != nil:
			return last, ctx.Err()
		case err != nil && last == nil:
			return nil, err
		case err != nil:
			if err.Error() != warned {
				w.Warn(err)
			}
			warned = err.Error()
		default:
			last, warned = &r, ""
			if !r.Bad() {
				badSince = time.Time{}
			} else if badSince.IsZero() {
				badSince = time.Now()
			}
			if r.Done() || r.Bad() && time.Since(badSince) >= badFor {
				return last, nil
			}
			if err := w.Show(r); err != nil {
				return last, err
			}
		}
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-tick.C:
		}
	}
}
