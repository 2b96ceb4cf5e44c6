package verify

import (
	"context"
	"time"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
)

// grace is how long an evaluation may take to come to an end by itself when its context has ended. What goes on after
// that is left alone: the library, a name server or gpg may know of no contexts.
const grace = 700 * time.Millisecond

// judge reads the image and evaluates the requirements. It returns when it has an answer or, soon after the end of ctx,
// without: what then is still under way changes nothing of e.
func (e *evaluation) judge(ctx context.Context) {
	if ctx.Err() != nil {
		e.stop(verdict.Timeout, "no time left")
		return
	}
	run := e.clone()
	done := make(chan struct{})
	go func() {
		defer close(done)
		run.evaluate(withBudget(ctx))
	}()
	if !Within(ctx, done) {
		e.policy.late.Store(true)
		if e.fetched != nil {
			e.fetched = &fetch.Source{} // the other is still read from
		}
		e.stop(verdict.Timeout, "no answer in time")
		return
	}
	*e = *run
}

// Within waits for done, and is false if it isn't closed soon after the end of ctx.
func Within(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
