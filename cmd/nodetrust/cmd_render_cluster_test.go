package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const rejectTrust = "{apiVersion: nodetrust.io/v1alpha1, kind: TrustConfig, metadata: {name: x}, spec: {pools: [worker], default: accept, registries: [{scope: registry.example.com, require: reject}]}}"

// TestRenderCluster_size: a pool whose rendered MachineConfig comes near the limit of etcd, and one beyond it.
func TestRenderCluster_size(t *testing.T) {
	dir := t.TempDir()
	trust := filepath.Join(dir, "trust.yaml")
	if err := os.WriteFile(trust, []byte(rejectTrust), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		bytes, code int
		says        string
	}{
		{1 << 20, 0, ""},
		{1_300_000, 0, `^nodetrust: note: pool worker: the rendered MachineConfig of the pool will have up to 13\d{5} bytes, \d+ of them ours; the API server takes at most 1572864\n`},
		{1_570_000, 3, `^nodetrust: error: pool worker: the rendered MachineConfig of the pool would have up to 157\d{4} bytes, \d+ of them ours; the API server takes at most 1572864\n`},
	} {
		dump := filepath.Join(dir, "dump.json")
		other := machineConfig("50-worker-large", "worker",
			map[string]any{"ignition": map[string]any{"version": "3.4.0"}, "storage": map[string]any{"files": []any{
				map[string]any{"path": "/etc/large", "contents": map[string]any{"source": "data:," + strings.Repeat("x", c.bytes)}},
			}}}, nil)
		b, err := json.Marshal(other)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dump, b, 0o644); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"render", "--to", "machineconfig", "--cluster", dump, trust}, strings.NewReader(""),
			&out, &errs)
		first := regexp.MustCompile(`(?m)^nodetrust: (note|error): pool worker: the rendered.*\n`).FindString(errs.String())
		if code != c.code || !regexp.MustCompile(c.says).MatchString(first) || c.says == "" && first != "" ||
			(out.Len() > 0) != (code == 0) {
			t.Errorf("%d: exit status %d, %s; want %d, %s", c.bytes, code, errs.String(), c.code, c.says)
		}
	}
}

// TestRenderCluster_live: what keeps a live cluster from being read, and how that is told.
func TestRenderCluster_live(t *testing.T) {
	dir := t.TempDir()
	trust := filepath.Join(dir, "trust.yaml")
	if err := os.WriteFile(trust, []byte(rejectTrust), 0o644); err != nil {
		t.Fatal(err)
	}
	template := machineConfig("01-worker-container-runtime", "worker", policyOnly("x"), nil)
	template["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{"kind": "ControllerConfig"}}
	pool := map[string]any{
		"metadata": map[string]any{"name": "worker"},
		"spec": map[string]any{"machineConfigSelector": map[string]any{
			"matchLabels": map[string]any{"machineconfiguration.openshift.io/role": "worker"},
		}},
	}
	for _, c := range []struct {
		name   string
		status map[string]int // by the last element of the path; 404 for what is not served
		code   int
		says   string
	}{
		{"all", nil, 0, "policy.json is written by 51-worker-x, in place of 01-worker-container-runtime"},
		{
			"no right to image policies",
			map[string]int{"clusterimagepolicies": 403},
			0,
			"note: ClusterImagePolicy objects may not be read by this user",
		},
		{"no right", map[string]int{"machineconfigs": 403}, 1, "hint: this needs the right to list MachineConfigs"},
		{"no MCO", map[string]int{"machineconfigs": 404}, 1, "hint: without the Machine Config Operator"},
		{"no pools", map[string]int{"machineconfigpools": 404}, 1, "no MachineConfigPools"},
		{"broken", map[string]int{"machineconfigs": 500}, 1, "hint: the API server is 127.0.0.1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				kind := filepath.Base(r.URL.Path)
				items, ok := map[string][]any{
					"machineconfigs": {template}, "machineconfigpools": {pool},
					"clusterimagepolicies": {},
				}[kind]
				code := c.status[kind]
				if !ok && code == 0 {
					code = 404
				}
				if code != 0 {
					w.WriteHeader(code)
					reason := map[int]string{403: "Forbidden", 404: "NotFound"}[code]
					fmt.Fprintf(w, `{"kind":"Status","code":%d,"reason":%q,"message":"no"}`, code, reason)
					return
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"kind": "List", "items": items})
			}))
			defer server.Close()
			kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
			text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}", server.URL)
			if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{
				"render", "--to", "machineconfig", "--cluster", "live", "--kubeconfig", kubeconfig,
				trust,
			}, strings.NewReader(""), &out, &errs)
			if code != c.code || !strings.Contains(errs.String(), c.says) || (out.Len() > 0) != (code == 0) {
				t.Errorf("exit status %d, %s%s; want %d, %s", code, out.String(), errs.String(), c.code, c.says)
			}
		})
	}
}
