package agent

import (
	"maps"
	"slices"
	"time"
)

// failures are failed writes by path: a full or read-only file system, an immutable file. The pause before the next
// try grows: our own temporary file is an event and would cause a new try at once, for ever.
type failures map[string]*failure

type failure struct {
	why     string
	inPlace bool // the file is right, but may be lost with the power
	pause   time.Duration
	until   time.Time
}

// fail records a failed change of a file. It logs the first of equal failures only.
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

// wait returns how long path must not be tried.
func (f failures) wait(path string, now time.Time) time.Duration {
	if x := f[path]; x != nil {
		return max(0, x.until.Sub(now))
	}
	return 0
}

func (f failures) first() string { return f[slices.Min(slices.Collect(maps.Keys(f)))].why }
