package agent

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

func get(t *testing.T, m *Metrics, path string) string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
	if rec.Code != 200 {
		t.Errorf("%s: status %d", path, rec.Code)
	}
	return rec.Body.String()
}

func TestMetrics(t *testing.T) {
	m := NewMetrics()
	m.state(judge.Blocked)
	m.checked(time.UnixMilli(1700000000500))
	m.drifted()
	m.healed()
	m.healed()
	m.probed([]judge.Canary{
		canary("accept", "accept", "", "cri"), canary("accept", "unknown", verdict.Timeout, "cri"),
		canary("refuse", "accept", "", "po\"dman\n"),
	}, []judge.Key{{Fingerprint: "ABCD", Expires: 1900000000}, {Fingerprint: "EF"}}, []judge.Runtime{
		{Name: "cri-o", Version: "1.34.0", Advisories: []string{"forged-schema1", "other"}},
		{Name: "podman", Version: "6.0.0", Advisories: []string{}},
	})
	want := `# HELP nodetrust_state 1 for the state that the node is in, 0 for the others.
# TYPE nodetrust_state gauge
nodetrust_state{state="Contested"} 0
nodetrust_state{state="Shadowed"} 0
nodetrust_state{state="NotEnforced"} 0
nodetrust_state{state="Blocked"} 1
nodetrust_state{state="RolledBack"} 0
nodetrust_state{state="Held"} 0
nodetrust_state{state="Drifted"} 0
nodetrust_state{state="Unknown"} 0
nodetrust_state{state="Enforced"} 0
# HELP nodetrust_probe_result Canaries of the last round: 1 answered as expected, 0 not, -1 could not be told.
# TYPE nodetrust_probe_result gauge
nodetrust_probe_result{expect="accept",runtime="cri"} -1
nodetrust_probe_result{expect="refuse",runtime="podman"} 0
# HELP nodetrust_drift_total Looks that found files other than desired, and put them right.
# TYPE nodetrust_drift_total counter
nodetrust_drift_total 1
# HELP nodetrust_heals_total Files put in place.
# TYPE nodetrust_heals_total counter
nodetrust_heals_total 2
# HELP nodetrust_key_expiry_timestamp_seconds When a key that the policy trusts expires. Keys that don't expire are left out.
# TYPE nodetrust_key_expiry_timestamp_seconds gauge
nodetrust_key_expiry_timestamp_seconds{fingerprint="ABCD"} 1900000000
# HELP nodetrust_runtime_advisory 1 for each known hole that a runtime's verifier has by the version number that the runtime gives.
# TYPE nodetrust_runtime_advisory gauge
nodetrust_runtime_advisory{runtime="cri-o",version="1.34.0",advisory="forged-schema1"} 1
nodetrust_runtime_advisory{runtime="cri-o",version="1.34.0",advisory="other"} 1
# HELP nodetrust_last_check_timestamp_seconds When all files were compared last.
# TYPE nodetrust_last_check_timestamp_seconds gauge
nodetrust_last_check_timestamp_seconds 1700000000.500
`
	if got := get(t, m, "/metrics"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := get(t, m, "/healthz"); got != "ok\n" {
		t.Errorf("healthz says %q", got)
	}
}

// TestRuntimesAreKept: a round without a result says nothing of what the runtimes are.
func TestRuntimesAreKept(t *testing.T) {
	m := NewMetrics()
	const series = `nodetrust_runtime_advisory{runtime="cri-o",version="1.34.0",advisory="x"} 1`
	for _, tt := range []struct {
		name     string
		canaries []judge.Canary
		runtimes []judge.Runtime
		want     bool
	}{
		{"a hole", good("cri"), []judge.Runtime{{Name: "cri-o", Version: "1.34.0", Advisories: []string{"x"}}}, true},
		{"no result", nil, nil, true},
		{"another version", good("cri"), []judge.Runtime{{Name: "cri-o", Version: "1.99.0"}}, false},
	} {
		m.probed(tt.canaries, nil, tt.runtimes)
		if got := get(t, m, "/metrics"); strings.Contains(got, series) != tt.want {
			t.Errorf("%s:\n%s", tt.name, got)
		}
	}
}

// TestHealthz: an agent that hangs in a look is not healthy, one that has not looked yet is.
func TestHealthz(t *testing.T) {
	m := NewMetrics()
	m.expect(30 * time.Second)
	for _, tt := range []struct {
		ago  time.Duration
		want int
	}{{0, 200}, {time.Minute, 200}, {time.Hour, 503}} {
		if tt.ago > 0 {
			m.checked(time.Now().Add(-tt.ago))
		}
		rec := httptest.NewRecorder()
		m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/healthz", nil))
		if rec.Code != tt.want {
			t.Errorf("%v after the last look: %d %s", tt.ago, rec.Code, rec.Body)
		}
	}
}
