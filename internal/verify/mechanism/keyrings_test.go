package mechanism

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.podman.io/image/v5/signature"
)

// slow is a mechanism that judges for a minute.
type slow struct {
	signature.SigningMechanism
	closed atomic.Int32
}

func (s *slow) Verify([]byte) ([]byte, string, error) {
	time.Sleep(time.Minute)
	return nil, "", errors.New("no signature")
}

func (s *slow) Close() error {
	s.closed.Add(1)
	return nil
}

// TestClose_late: a keyring that is in use when all are closed is not waited for long, and removed when it is given
// back.
func TestClose_late(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := NewKeyrings(func() (stop func()) { return func() {} })
		r := k.Get([]byte("key"))
		idle, busy := &slow{}, &slow{}
		r.free <- &loaded{SigningMechanism: busy}
		ctx, interrupt := context.WithTimeout(t.Context(), time.Second)
		defer interrupt()
		if _, _, _, err := k.Verify(ctx, r, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		r.free <- &loaded{SigningMechanism: idle}
		start := time.Now()
		k.Close()
		if d := time.Since(start); d != CloseTimeout || idle.closed.Load() != 1 || busy.closed.Load() != 0 {
			t.Errorf("closed after %s, the idle one %d times, the busy one %d times", d, idle.closed.Load(), busy.closed.Load())
		}
		time.Sleep(2 * time.Minute)
		if idle.closed.Load() != 1 || busy.closed.Load() != 1 {
			t.Errorf("later the idle one was closed %d times, the busy one %d times", idle.closed.Load(), busy.closed.Load())
		}
	})
}
