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
	// maxContents bounds how many different contents of a path are remembered.
	maxContents = 64
)

// contest tells who else keeps writing our files: a path is contested when the same wrong content came back often
// within ten minutes, until it has not come back for ten.
type contest struct {
	after int
	paths map[string]*rival
}

type rival struct {
	times   map[string][]time.Time // by what was found: a file is sometimes seen half written
	last    time.Time
	backoff time.Duration // zero: not contested
	until   time.Time     // no healing before
}

// note records that path was found wrong and is about to be healed.
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
		// Somebody who writes ever new bytes: what came once is not worth remembering.
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

// wait is how long path is not to be healed yet.
func (c *contest) wait(path string, now time.Time) time.Duration {
	if r := c.paths[path]; r != nil && r.backoff > 0 {
		return max(0, r.until.Sub(now))
	}
	return 0
}

// contested returns the contested paths, and forgets those that have been left alone.
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
