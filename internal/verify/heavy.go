package verify

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// lightReceived is how many bytes a session receives for an image without further ado. A manifest has some KiB, a
// signature less than one; of images that take more only one is judged at a time, because many may be under way.
const lightReceived = 512 << 10

// othersMemory is how many bytes of memory those may take that are under way as well.
const othersMemory = 8 << 20

// bounded judges one image, and once more with all the room that Image gives if it takes more than lightReceived. The
// time that it then waits for its turn is not the image's.
func (s *Session) bounded(ctx context.Context, image string) (verdict.Verdict, error) {
	start := time.Now()
	light := traffic.NewBudget(lightReceived)
	light.Others, light.Small = othersMemory, true
	v, err := s.judge(traffic.WithBudget(ctx, light), image)
	if err != nil || !light.Exceeded() {
		return v, err
	}
	left := s.options.Timeout - time.Since(start)
	if s.options.Timeout > 0 && left <= 0 {
		return v, nil
	}
	select {
	case s.heavy <- struct{}{}:
		defer func() { <-s.heavy }()
		debug.FreeOSMemory() // what the one before has left, and the first look at this one
	case <-ctx.Done():
		return v, nil
	}
	full := traffic.NewBudget(MaxReceived - lightReceived)
	full.Others = othersMemory
	ctx = traffic.WithBudget(ctx, full)
	if s.options.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	return s.judge(ctx, image)
}
