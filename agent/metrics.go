package agent

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Metrics are the agent's Prometheus metrics in the text format, written by hand: the client library would add 2 MB to
// the binary and 1.6 MiB to the resident memory, for seven families. A nil *Metrics counts nothing.
type Metrics struct {
	mu        sync.Mutex
	now       judge.State
	probes    map[probeLabels]int
	expiry    []judge.Key
	runtimes  []judge.Runtime
	drifts    int
	heals     int
	lastCheck time.Time
	patience  time.Duration // the highest age of lastCheck; 0: no limit
}

type probeLabels struct {
	expect  verdict.Answer
	runtime string
}

var states = []judge.State{
	judge.Contested, judge.Shadowed, judge.NotEnforced, judge.Blocked, judge.RolledBack, judge.Held, judge.Drifted,
	judge.Unknown, judge.Enforced,
}

// NewMetrics returns the metrics of an agent before its first look.
func NewMetrics() *Metrics { return &Metrics{now: judge.Unknown} }

// Handler serves /metrics and /healthz. /healthz fails if a look at the files is stuck, for example in a hanging file
// system: the last report is outdated then.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(m.text())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if late := m.late(time.Now()); late > 0 {
			http.Error(w, "the files were compared last "+late.Round(time.Second).String()+" ago", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}

func (m *Metrics) late(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ago := now.Sub(m.lastCheck); m.patience > 0 && !m.lastCheck.IsZero() && ago > m.patience {
		return ago
	}
	return 0
}

func (m *Metrics) text() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP nodetrust_%s %s\n# TYPE nodetrust_%s %s\n", name, help, name, kind)
	}
	family("state", "gauge", "1 for the state that the node is in, 0 for the others.")
	for _, s := range states {
		v := 0
		if s == m.now {
			v = 1
		}
		fmt.Fprintf(&b, "nodetrust_state{state=%q} %d\n", s, v)
	}
	family("probe_result", "gauge", "Canaries of the last round: 1 answered as expected, 0 not, -1 could not be told.")
	var labels []probeLabels
	for l := range m.probes {
		labels = append(labels, l)
	}
	slices.SortFunc(labels, func(x, y probeLabels) int {
		return cmp.Or(cmp.Compare(x.expect, y.expect), cmp.Compare(x.runtime, y.runtime))
	})
	for _, l := range labels {
		fmt.Fprintf(&b, "nodetrust_probe_result{expect=%q,runtime=%q} %d\n", l.expect, l.runtime, m.probes[l])
	}
	family("drift_total", "counter", "Looks that found files other than desired, and put them right.")
	fmt.Fprintf(&b, "nodetrust_drift_total %d\n", m.drifts)
	family("heals_total", "counter", "Files put in place.")
	fmt.Fprintf(&b, "nodetrust_heals_total %d\n", m.heals)
	family("key_expiry_timestamp_seconds", "gauge",
		"When a key that the policy trusts expires. Keys that don't expire are left out.")
	for _, k := range m.expiry {
		fmt.Fprintf(&b, "nodetrust_key_expiry_timestamp_seconds{fingerprint=%q} %d\n", k.Fingerprint, k.Expires)
	}
	family("runtime_advisory", "gauge", "1 for each known hole that a runtime's verifier has by the version number that the runtime gives.")
	for _, r := range m.runtimes {
		for _, id := range r.Advisories {
			fmt.Fprintf(&b, "nodetrust_runtime_advisory{runtime=%q,version=%q,advisory=%q} 1\n", r.Name, r.Version, id)
		}
	}
	family("last_check_timestamp_seconds", "gauge", "When all files were compared last.")
	if !m.lastCheck.IsZero() {
		fmt.Fprintf(&b, "nodetrust_last_check_timestamp_seconds %s\n",
			strconv.FormatFloat(float64(m.lastCheck.UnixMilli())/1000, 'f', 3, 64))
	}
	return b.Bytes()
}

func (m *Metrics) change(f func()) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *Metrics) expect(every time.Duration) {
	m.change(func() { m.patience = 3*every + time.Minute })
}
func (m *Metrics) state(now judge.State) { m.change(func() { m.now = now }) }
func (m *Metrics) checked(now time.Time) { m.change(func() { m.lastCheck = now }) }
func (m *Metrics) drifted()              { m.change(func() { m.drifts++ }) }
func (m *Metrics) healed()               { m.change(func() { m.heals++ }) }

// probed sets the results of a round. The worst of several canaries with the same labels counts. A round without a
// result leaves keys and runtimes as they are.
func (m *Metrics) probed(cs []judge.Canary, keys []judge.Key, runtimes []judge.Runtime) {
	m.change(func() {
		m.probes = map[probeLabels]int{}
		for _, c := range cs {
			v := 0
			switch {
			case judge.Right(c):
				v = 1
			case c.Answer == verdict.Unknown:
				v = -1
			}
			l := probeLabels{c.Expect, label(c.Runtime)}
			if old, ok := m.probes[l]; !ok || rank(v) < rank(old) {
				m.probes[l] = v
			}
		}
		if len(cs) == 0 {
			return
		}
		m.runtimes = runtimes
		m.expiry = nil
		for _, k := range keys {
			if k.Expires != 0 && len(m.expiry) < maxKeys &&
				!slices.ContainsFunc(m.expiry, func(o judge.Key) bool { return o.Fingerprint == k.Fingerprint }) {
				m.expiry = append(m.expiry, judge.Key{Fingerprint: label(k.Fingerprint), Expires: k.Expires})
			}
		}
	})
}

const maxKeys = 64

// label bounds a value from the child to the form of a label value.
func label(s string) string {
	s = string(bytes.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, []byte(s)))
	return s[:min(len(s), 64)]
}

// rank orders results: wrong, then unknown, then right.
func rank(v int) int {
	switch v {
	case 0:
		return 0
	case -1:
		return 1
	}
	return 2
}
