package agent

import (
	"maps"
	"slices"
	"time"
)

// failures are writes that did not work, by path: a full or read-only file system, a file that is immutable. Each is
// tried again after a pause that grows: our own temporary file is an event, and would make us try for ever.
type failures map[string]*failure

type failure struct {
	why     string
	inPlace bool // the file is right, but a loss of power may take it back
	pause   time.Duration
	until   time.Time
}

// fail records a failed change of a file. It is logged once, not at each try.
func (a *Agent) fail(p string, err error, inPlace bool) {
	x := a.failed[p]
	if x == nil {
		x = &failure{}
		a.failed[p] = x
	}
	if x.why != err.Error() {
		a.Log.Error("changing a file", "path", p, "err", err)
	}
	x.why, x.inPlace = err.Error(), inPlace
	x.pause = min(max(2*x.pause, minBackoff), retry)
	x.until = time.Now().Add(x.pause)
}

// wait is how long path is not to be tried yet.
func (f failures) wait(path string, now time.Time) time.Duration {
	if x := f[path]; x != nil {
		return max(0, x.until.Sub(now))
	}
	return 0
}

// first is the failure to tell of.
func (f failures) first() string { return f[slices.Min(slices.Collect(maps.Keys(f)))].why }
