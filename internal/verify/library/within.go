package library

import (
	"context"
	"time"
)

// Grace is how long an evaluation may take to come to an end by itself when its context has ended.
const Grace = 700 * time.Millisecond

// Within returns what run returns, or false if run goes on for longer than grace after the end of ctx: the library, a
// name server or gpg may know of no contexts. Such a run is left alone, so it must change nothing that is used later.
func Within[T any](ctx context.Context, grace time.Duration, run func() T) (out T, ended bool) {
	done := make(chan T, 1)
	go func() { done <- run() }()
	select {
	case out = <-done:
		return out, true
	case <-ctx.Done():
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case out = <-done:
		return out, true
	case <-t.C:
		return out, false
	}
}
