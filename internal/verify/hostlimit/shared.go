package hostlimit

import (
	"context"
	"errors"
	"sync"
)

// Shared is what was asked for once for many, by key; the zero value is empty. Errors are shared with those who wait
// meanwhile, but not remembered.
type Shared[V any] struct {
	// Valid is false for a value that is to be asked for again; nil: all stay.
	Valid func(V) bool
	// Size is how many bytes a value takes; nil: it doesn't matter. Values beyond Room bytes are not remembered.
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

// Do returns the value for key, which ask gets if nobody did.
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
		// Whoever asked ran out of time; that is not to be ours.
	}
}

// fits takes room for a value.
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
