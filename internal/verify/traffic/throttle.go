package traffic

import (
	"io"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
)

// throttled counts how often a host answered 429. The library waits and asks again, for up to a minute, and says so in
// its log only: the count tells RateLimited from Timeout when the time is over meanwhile.
type throttled struct {
	mu    sync.Mutex
	count map[string]int
}

func (t *throttled) Levels() []logrus.Level { return []logrus.Level{logrus.DebugLevel} }

func (t *throttled) Fire(e *logrus.Entry) error {
	if rest, ok := strings.CutPrefix(e.Message, "Too many requests to "); ok {
		_, rest, _ = strings.Cut(rest, "://")
		host, _, _ := strings.Cut(rest, "/")
		t.mu.Lock()
		t.count[host]++
		t.mu.Unlock()
	}
	return nil
}

// QuietLog sends the library's log nowhere but to a counter of throttled requests.
func QuietLog() {
	l := logrus.StandardLogger()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.DebugLevel)
	l.ReplaceHooks(logrus.LevelHooks{logrus.DebugLevel: {&throttled{count: map[string]int{}}}})
}

// Throttled returns how often one of the hosts answered 429 since the program's start.
func Throttled(hosts []string) (n int) {
	for _, h := range logrus.StandardLogger().Hooks[logrus.DebugLevel] {
		t, ok := h.(*throttled)
		if !ok {
			continue
		}
		t.mu.Lock()
		for host, c := range t.count {
			for _, connected := range hosts {
				if connected == host || strings.HasPrefix(connected, host+":") {
					n += c
					break
				}
			}
		}
		t.mu.Unlock()
	}
	return n
}
