package audit

import (
	"fmt"
	"sync"
	"time"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// An unresponsive registry costs each image the whole timeout. After this many failures in a row that took this long
// together, its remaining images are unknown without a request.
const (
	breakAfter = 16
	breakTime  = 2 * time.Minute
)

type breaker struct {
	now func() time.Time

	mu    sync.Mutex
	count int
	lost  time.Duration
	last  verdict.Verdict
}

func (b *breaker) saw(v verdict.Verdict, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch v.Reason {
	case verdict.RegistryUnreachable, verdict.LookasideUnreachable, verdict.RateLimited, verdict.Timeout:
		b.count++
		b.lost += took
		b.last = v
	default:
		b.count, b.lost = 0, 0
	}
}

// open returns the verdict on images that are no longer asked for.
func (b *breaker) open(registry string) (verdict.Verdict, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count < breakAfter || b.lost < breakTime {
		return verdict.Verdict{}, false
	}
	v := unknown(b.last.Reason, fmt.Sprintf("not asked: the last %d images of %s had no answer, at the end because: %s",
		b.count, registry, b.last.Message))
	v.Hint, v.Mechanism = b.last.Hint, b.last.Mechanism
	return v, true
}
