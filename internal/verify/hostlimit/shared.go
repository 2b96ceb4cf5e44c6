package hostlimit

import (
	"context"
	"errors"
	"sync"
)

// Shared remembers the results of calls by key, and lets concurrent callers of one key share one call. Errors are
// shared with the callers that wait meanwhile, but not remembered. The zero value is empty.
type Shared[V any] struct {
	// Valid reports whether a value may still be used; nil: all may.
	Valid func(V) bool
	// Size returns the bytes that a value takes. Values beyond Room bytes in all are not remembered; nil: all are.
	Size func(V) int
	Room int

	mu    sync.Mutex
	calls map[string]*call[V]
}

type call[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// Do returns the value for key, which the first caller asks for.
func (s *Shared[V]) Do(ctx context.Context, key string, ask func() (V, error)) (V, error) {
	for {
		s.mu.Lock()
		if s.calls == nil {
			s.calls = map[string]*call[V]{}
		}
		c, ok := s.calls[key]
		if !ok {
			c = &call[V]{done: make(chan struct{})}
			s.calls[key] = c
		}
		s.mu.Unlock()
		if !ok {
			if c.value, c.err = ask(); c.err != nil || !s.fits(c.value) {
				s.forget(key, c)
			}
			close(c.done)
			return c.value, c.err
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return c.value, ctx.Err()
		}
		switch {
		case c.err == nil && (s.Valid == nil || s.Valid(c.value)):
			return c.value, nil
		case c.err == nil:
			s.forget(key, c)
		case !errors.Is(c.err, context.Canceled) && !errors.Is(c.err, context.DeadlineExceeded):
			return c.value, c.err
		}
		// The caller that asked ran out of time, which says nothing of this caller's time.
	}
}

// fits reports whether there is room for a value, and takes it.
func (s *Shared[V]) fits(v V) bool {
	if s.Size == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.Size(v)
	if n > s.Room {
		return false
	}
	s.Room -= n
	return true
}

func (s *Shared[V]) forget(key string, c *call[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[key] == c {
		delete(s.calls, key)
	}
}
