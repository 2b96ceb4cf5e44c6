package agent

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nodetrust/nodetrust/judge"
	"github.com/nodetrust/nodetrust/verdict"
)

// Metrics are what the agent tells Prometheus. A nil *Metrics counts nothing.
type Metrics struct {
	registry  *prometheus.Registry
	states    *prometheus.GaugeVec
	probes    *prometheus.GaugeVec
	expiry    *prometheus.GaugeVec
	drifts    prometheus.Counter
	heals     prometheus.Counter
	lastCheck prometheus.Gauge
}

var states = []judge.State{
	judge.Contested, judge.Shadowed, judge.NotEnforced, judge.Blocked, judge.RolledBack, judge.Drifted, judge.Unknown, judge.Enforced,
}

// NewMetrics makes the metrics in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		states: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nodetrust_state", Help: "1 for the state that the node is in, 0 for the others.",
		}, []string{"state"}),
		probes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nodetrust_probe_result", Help: "Canaries of the last round: 1 answered as expected, 0 not, -1 could not be told.",
		}, []string{"expect", "runtime"}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nodetrust_key_expiry_timestamp_seconds", Help: "When a key that the policy trusts expires. Keys that don't expire are left out.",
		}, []string{"fingerprint"}),
		drifts:    prometheus.NewCounter(prometheus.CounterOpts{Name: "nodetrust_drift_total", Help: "Looks that found files other than desired."}),
		heals:     prometheus.NewCounter(prometheus.CounterOpts{Name: "nodetrust_heals_total", Help: "Files put in place."}),
		lastCheck: prometheus.NewGauge(prometheus.GaugeOpts{Name: "nodetrust_last_check_timestamp_seconds", Help: "When all files were compared last."}),
	}
	m.registry.MustRegister(m.states, m.probes, m.expiry, m.drifts, m.heals, m.lastCheck)
	return m
}

// Handler serves /metrics and /healthz. Healthy means that the process answers.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	return mux
}

func (m *Metrics) state(now judge.State) {
	if m == nil {
		return
	}
	for _, s := range states {
		v := 0.0
		if s == now {
			v = 1
		}
		m.states.WithLabelValues(string(s)).Set(v)
	}
}

func (m *Metrics) checked(now time.Time) {
	if m != nil {
		m.lastCheck.Set(float64(now.UnixMilli()) / 1000)
	}
}

func (m *Metrics) drifted() {
	if m != nil {
		m.drifts.Inc()
	}
}

func (m *Metrics) healed() {
	if m != nil {
		m.heals.Inc()
	}
}

// probed sets the results of a round: of several canaries alike the worst counts.
func (m *Metrics) probed(cs []judge.Canary, keys []judge.Key) {
	if m == nil {
		return
	}
	type label struct{ expect, runtime string }
	worst := map[label]float64{}
	for _, c := range cs {
		v := 0.0
		switch {
		case judge.Right(c):
			v = 1
		case c.Verdict.Verdict == verdict.Unknown:
			v = -1
		}
		l := label{string(c.Expect), c.Runtime}
		if old, ok := worst[l]; !ok || rank(v) < rank(old) {
			worst[l] = v
		}
	}
	m.probes.Reset()
	for l, v := range worst {
		m.probes.WithLabelValues(l.expect, l.runtime).Set(v)
	}
	if len(cs) == 0 {
		return // a round without a result says nothing of keys either
	}
	m.expiry.Reset()
	for _, k := range keys {
		if k.Expires != 0 {
			m.expiry.WithLabelValues(k.Fingerprint).Set(float64(k.Expires))
		}
	}
}

// rank orders results: wrong, then unknown, then right.
func rank(v float64) int {
	switch v {
	case 0:
		return 0
	case -1:
		return 1
	}
	return 2
}
