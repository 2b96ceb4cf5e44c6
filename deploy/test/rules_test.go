package test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"sigs.k8s.io/yaml"
)

// rule is what is used of a rule of the Prometheus Operator's PrometheusRule, whose spec is a rule file of Prometheus.
type rule struct {
	Alert       string            `json:"alert"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// ruleFile is the rule file in monitoring/, written where Prometheus' loader can read it.
func ruleFile(t *testing.T) (path string, all []rule) {
	t.Helper()
	for _, r := range build(t, "monitoring") {
		if r.GetKind() != "PrometheusRule" {
			continue
		}
		b, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		var object struct {
			Spec json.RawMessage `json:"spec"`
		}
		if err := yaml.Unmarshal(b, &object); err != nil {
			t.Fatal(err)
		}
		var spec struct {
			Groups []struct {
				Rules []rule `json:"rules"`
			} `json:"groups"`
		}
		if err := json.Unmarshal(object.Spec, &spec); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(path, object.Spec, 0o600); err != nil {
			t.Fatal(err)
		}
		return path, spec.Groups[0].Rules
	}
	t.Fatal("monitoring has no PrometheusRule")
	return "", nil
}

// Series of a node that is well, one sample a minute; a case replaces lines of it by their names.
var well = map[string]string{
	"state": `nodetrust_state{state="Enforced", instance="n1", node="n1", pool="p"} 1x200`,
	"drift": `nodetrust_drift_total{instance="n1", node="n1", pool="p"} 0x200`,
	"check": `nodetrust_last_check_timestamp_seconds{instance="n1", node="n1", pool="p"} 0+60x200`,
	// after 100 days
	"expiry": `nodetrust_key_expiry_timestamp_seconds{instance="n1", node="n1", pool="p", fingerprint="F"} 8640000x200`,
	// a node that has none tells none
	"advisory": `nodetrust_runtime_advisory{instance="n2", node="n2", pool="p", runtime="cri-o", version="1.34.0", advisory="forged-schema1"} _x200`,
	"up":       `up{job="nodetrust/nodetrust-agent", instance="n1", node="n1", pool="p"} 1x200`,
}

func in(state string) string {
	return `nodetrust_state{state="` + state + `", instance="n1", node="n1", pool="p"} 1x200`
}

// TestAlerts runs the rules in Prometheus' own engine. at is when, in minutes, the alerts in want fire, and no other.
func TestAlerts(t *testing.T) {
	path, all := ruleFile(t)
	fired := map[string]bool{}
	for _, c := range []struct {
		name, series, by string
		at               int
		want             []string
	}{
		{"well", "", "", 120, nil},
		{"not enforced, at first", "state", in("NotEnforced"), 1, nil},
		{"not enforced", "state", in("NotEnforced"), 3, []string{"NodetrustNotEnforced"}},
		{"blocked", "state", in("Blocked"), 6, []string{"NodetrustBlocked"}},
		{"shadowed", "state", in("Shadowed"), 16, []string{"NodetrustShadowed"}},
		{"contested", "state", in("Contested"), 6, []string{"NodetrustContested"}},
		{"held, for the time of a full disk", "state", in("Held"), 14, nil},
		{"held", "state", in("Held"), 16, []string{"NodetrustHeld"}},
		{"rolled back", "state", in("RolledBack"), 6, []string{"NodetrustRolledBack"}},
		{
			"drifted, for the time of a heal", "state",
			`nodetrust_state{state="Drifted", instance="n1", node="n1", pool="p"} 0x5 1x2 0x190`, 60, nil,
		},
		{"drifted", "state", in("Drifted"), 16, []string{"NodetrustDrifted"}},
		{"unknown, for the time of an outage", "state", in("Unknown"), 29, nil},
		{"unknown", "state", in("Unknown"), 31, []string{"NodetrustUnknown"}},
		{"healed once", "drift", `nodetrust_drift_total{instance="n1", node="n1", pool="p"} 0x10 1x190`, 30, nil},
		{
			"healed again and again", "drift", `nodetrust_drift_total{instance="n1", node="n1", pool="p"} 0+1x200`, 30,
			[]string{"NodetrustHealing"},
		},
		{"a key expires in 29 days", "expiry", `nodetrust_key_expiry_timestamp_seconds{instance="n1", node="n1", fingerprint="F"} 2505600x200`, 62, []string{"NodetrustKeyExpires"}},
		{"a key expires in 31 days", "expiry", `nodetrust_key_expiry_timestamp_seconds{instance="n1", node="n1", fingerprint="F"} 2685000x200`, 62, nil},
		{
			"a known hole, for the time of an update", "advisory",
			`nodetrust_runtime_advisory{instance="n1", node="n1", pool="p", runtime="cri-o", version="1.34.0", advisory="forged-schema1"} 1x50 _x150`, 90, nil,
		},
		{"a known hole", "advisory", `nodetrust_runtime_advisory{instance="n1", node="n1", pool="p", runtime="cri-o", version="1.34.0", advisory="forged-schema1"} 1x200`, 62, []string{"NodetrustRuntimeAdvisory"}},
		{
			"a known hole of one of two hosts", "advisory",
			`nodetrust_runtime_advisory{instance="a:9100", runtime="podman", version="4.3.1", advisory="forged-schema1"} 1x200`,
			62,
			[]string{"NodetrustRuntimeAdvisory"},
		},
		{
			"agent hangs", "check", `nodetrust_last_check_timestamp_seconds{instance="n1", node="n1", pool="p"} 0+60x10 600x190`,
			30,
			[]string{"NodetrustAgentSilent"},
		},
		{
			"agent down", "up", `up{job="nodetrust/nodetrust-agent", instance="n1", node="n1", pool="p"} 0x200`, 16,
			[]string{"NodetrustAgentDown"},
		},
		{
			"agent restarts", "up", `up{job="nodetrust/nodetrust-agent", instance="n1", node="n1", pool="p"} 1x10 0x3 1x180`, 30,
			nil,
		},
		// Hosts without a cluster, told by node_exporter: no node, no pool.
		{"one of two hosts is not enforced", "state", `nodetrust_state{state="NotEnforced", instance="a:9100"} 0x200
  nodetrust_state{state="NotEnforced", instance="b:9100"} 1x200`, 3, []string{"NodetrustNotEnforced"}},
		{"one of two hosts is silent", "check", `nodetrust_last_check_timestamp_seconds{instance="a:9100"} 0+60x200
  nodetrust_last_check_timestamp_seconds{instance="b:9100"} 0+60x10 600x190`, 30, []string{"NodetrustAgentSilent"}},
		{"no agent at all", "up", `up{job="other"} 1x200`, 16, []string{"NodetrustAgentsAbsent"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			series := "load 1m\n"
			for name, s := range well {
				if name == c.series {
					s = c.by
				}
				series += "  " + s + "\n"
			}
			got := alerts(t, path, series, time.Duration(c.at)*time.Minute)
			if !slices.Equal(got, c.want) {
				t.Errorf("firing: %v, want %v", got, c.want)
			}
			for _, name := range got {
				fired[name] = true
			}
		})
	}
	for _, r := range all {
		if !fired[r.Alert] {
			t.Errorf("%s never fired in a test", r.Alert)
		}
	}
}

// ofNoNode are the alerts that are not about one node.
var ofNoNode = []string{"NodetrustAgentsAbsent", "NodetrustKeyExpires", "NodetrustRuntimeAdvisory"}

// alerts returns the names of the alerts that fire at a time.
func alerts(t *testing.T, file, series string, at time.Duration) []string {
	t.Helper()
	suite, err := promqltest.NewLazyLoader(series, promqltest.LazyLoaderOpts{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = suite.Close() })
	m := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage()), Appendable: suite.Storage(),
		Context:    t.Context(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, Logger: slog.New(slog.DiscardHandler),
		Parser: parser.NewParser(parser.Options{}),
	})
	groups, errs := m.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, file)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	firing := map[string]bool{}
	start := time.Unix(0, 0).UTC()
	for ts := start; !ts.After(start.Add(at)); ts = ts.Add(time.Minute) {
		clear(firing)
		suite.WithSamplesTill(ts, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range groups {
				g.Eval(suite.Context(), ts)
				for _, r := range g.Rules() {
					if err := r.LastError(); err != nil {
						t.Fatal(r.Name(), err)
					}
					r.(*rules.AlertingRule).ForEachActiveAlert(func(a *rules.Alert) {
						if a.State == rules.StateFiring {
							firing[r.Name()] = true
							s := a.Annotations.Get("summary")
							if strings.Contains(s, "<no value>") || strings.Contains(s, "error") || s == "" {
								t.Errorf("%s: summary %q", r.Name(), s)
							}
							if i := a.Labels.Get("instance"); !slices.Contains(ofNoNode, r.Name()) && (i == "" || !strings.Contains(s, i)) {
								t.Errorf("%s: instance %q, summary %q: which node?", r.Name(), i, s)
							}
						}
					})
				}
			}
		})
	}
	var names []string
	for name := range firing {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestRunbooks finds a page for each alert, and an alert for each page.
func TestRunbooks(t *testing.T) {
	const base = "https://github.com/nodetrust/nodetrust/blob/main/"
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, p := range pages {
		left[filepath.Base(p)] = true
	}
	_, all := ruleFile(t)
	for _, r := range all {
		page, ok := strings.CutPrefix(r.Annotations["runbook_url"], base)
		if !ok || page != "docs/runbooks/"+r.Alert+".md" {
			t.Errorf("%s: runbook_url is %q", r.Alert, r.Annotations["runbook_url"])
			continue
		}
		b, err := os.ReadFile(filepath.Join("../..", page))
		if err != nil || !strings.HasPrefix(string(b), "# "+r.Alert+"\n") {
			t.Errorf("%s: no such runbook, or it has another title (%v)", r.Alert, err)
		}
		delete(left, filepath.Base(page))
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
	}
	delete(left, "README.md")
	for p := range left {
		t.Errorf("docs/runbooks/%s: no alert of that name", p)
	}
}

// TestDashboard parses every query, and holds them to metrics that the agent has.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile("../kustomize/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../../agent/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title  string `json:"title"`
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			queries++
			expr, err := parser.NewParser(parser.Options{}).ParseExpr(strings.ReplaceAll(target.Expr, "$pool", ".*"))
			if err != nil {
				t.Errorf("%s: %v", p.Title, err)
				continue
			}
			for _, selectors := range parser.ExtractSelectors(expr) {
				for _, m := range selectors {
					if m.Name == "__name__" && m.Value != "up" && !strings.Contains(string(source), m.Value) {
						t.Errorf("%s: the agent has no metric %s", p.Title, m.Value)
					}
				}
			}
		}
	}
	if queries == 0 {
		t.Error("no panel has a query")
	}
}
