package library

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// What never ends is left alone soon after the deadline; what ends by itself meanwhile is not lost.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stop := make(chan struct{})
		defer close(stop)
		start := time.Now()
		soon := func() int { time.Sleep(time.Second + Grace/2); return 1 }
		if got, ended := Within(ctx, Grace, soon); !ended || got != 1 {
			t.Error("what ends soon after the deadline was not waited for")
		}
		if _, ended := Within(ctx, Grace, func() int { <-stop; return 0 }); ended {
			t.Error("what never ends has ended")
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("returned %s after the deadline", d-time.Second)
		}
	})
}
