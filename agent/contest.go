package agent

import (
	"maps"
	"slices"
	"time"
)

const (
	contestWindow = 10 * time.Minute
	minBackoff    = time.Second
	maxBackoff    = 5 * time.Minute
	maxContents   = 64
)

// contest detects somebody who keeps rewriting our files. A path is contested once the same wrong content came back
// often within ten minutes, until it stays away for ten minutes.
type contest struct {
	after int
	paths map[string]*rival
}

type rival struct {
	times   map[string][]time.Time // by wrong content: a file is sometimes seen half written
	last    time.Time
	backoff time.Duration // 0 if the path is not contested
	until   time.Time     // no healing before this time
}

func (c *contest) note(path, wrong string, now time.Time) {
	r := c.paths[path]
	if r == nil {
		r = &rival{times: map[string][]time.Time{}}
		if c.paths == nil {
			c.paths = map[string]*rival{}
		}
		c.paths[path] = r
	}
	r.last = now
	r.times[wrong] = append(r.times[wrong], now)
	for what, times := range r.times {
		times = slices.DeleteFunc(times, func(t time.Time) bool { return now.Sub(t) > contestWindow })
		if r.times[what] = times; len(times) == 0 {
			delete(r.times, what)
		}
	}
	back := len(r.times[wrong])
	if len(r.times) > maxContents {
		// Somebody writes ever new bytes: drop contents that came only once.
		maps.DeleteFunc(r.times, func(_ string, t []time.Time) bool { return len(t) == 1 })
	}
	switch {
	case r.backoff > 0:
		r.backoff = min(2*r.backoff, maxBackoff)
	case back >= c.after:
		r.backoff = minBackoff
	default:
		return
	}
	r.until = now.Add(r.backoff)
}

// wait returns how long path must not be healed.
func (c *contest) wait(path string, now time.Time) time.Duration {
	if r := c.paths[path]; r != nil && r.backoff > 0 {
		return max(0, r.until.Sub(now))
	}
	return 0
}

// contested returns the contested paths, and forgets those that were left alone.
func (c *contest) contested(now time.Time) []string {
	var out []string
	for p, r := range c.paths {
		switch {
		case now.Sub(r.last) > contestWindow && now.Sub(r.until) > contestWindow:
			delete(c.paths, p)
		case r.backoff > 0:
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}
