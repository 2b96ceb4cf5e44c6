package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// forms writes a trust config in every form that diff takes, below dir, and returns them by name, with the flags that
// they need.
func forms(t *testing.T, dir, spec string) map[string][]string {
	t.Helper()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	trust := put("trust.yaml", []byte("apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: x}\nspec:\n  pools: [worker]\n"+spec))
	render := func(args ...string) []byte {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(append([]string{"render"}, args...), trust), strings.NewReader(""), &out,
			&errs); code != 0 {
			t.Fatal(errs.String())
		}
		return out.Bytes()
	}
	render("--to", "files", "-o", filepath.Join(dir, "host"))
	policy, err := os.ReadFile(filepath.Join(dir, "host/etc/containers/policy.json"))
	if err != nil {
		t.Fatal(err)
	}
	source := "data:," + url.PathEscape(string(policy))
	list := func() map[string]any {
		template := machineConfig("01-worker-container-runtime", "worker",
			policyOnly("%7B%22default%22%3A%5B%7B%22type%22%3A%22reject%22%7D%5D%7D"), nil)
		ours := machineConfig("51-worker-x", "worker",
			map[string]any{"ignition": map[string]any{"version": "3.4.0"}, "storage": map[string]any{"files": []any{
				map[string]any{"path": "/etc/containers/policy.json", "mode": 420, "contents": map[string]any{"source": source}},
			}}}, nil)
		return map[string]any{"apiVersion": "v1", "kind": "List", "items": []any{template, ours}}
	}
	dump, err := json.Marshal(list())
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(dump); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	ign := render("--to", "ignition")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path + "/" {
		case machineConfigs:
			_ = json.NewEncoder(w).Encode(list())
		case machinePools + "/":
			fmt.Fprint(w, `{"items":[{"metadata":{"name":"worker"},"spec":{"machineConfigSelector":{"matchLabels":{"machineconfiguration.openshift.io/role":"worker"}}}}]}`)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	kubeconfig := put("kubeconfig", fmt.Appendf(nil,
		"{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}", server.URL))
	return map[string][]string{
		"trust.yaml":      {trust},
		"policy.json":     {put("policy.json", policy)},
		"MachineConfig":   {put("mc.yaml", render("--to", "machineconfig"))},
		"Ignition":        {put("x.ign", ign)},
		"desired":         {filepath.Dir(put("desired/desired.ign", ign))},
		"dump":            {put("dump.json", dump), "--pool", "worker"},
		"compressed dump": {put("dump.gz", zipped.Bytes()), "--pool", "worker"},
		"host":            {filepath.Join(dir, "host")},
		"live":            {"live", "--pool", "worker", "--kubeconfig", kubeconfig},
	}
}

// TestDiff_forms compares a policy with a weaker one, in every two forms.
func TestDiff_forms(t *testing.T) {
	const entry = "  default: accept\n  registries:\n  - {scope: registry.example.com, require: reject}\n"
	dir := t.TempDir()
	strict := forms(t, filepath.Join(dir, "strict"), entry)
	weak := forms(t, filepath.Join(dir, "weak"), entry+"  - {scope: registry.example.com/hole, require: accept}\n")
	for a := range strict {
		for b := range strict {
			for _, c := range []struct {
				what string
				a, b []string
				code int
				says string
			}{
				{"weaker", strict[a], weak[b], 3, "docker: registry.example.com/hole: weaker: b accepts every image, a refuses every image\n"},
				{"stronger", weak[a], strict[b], 0, "b is stronger than a\n"},
				{"equal", strict[a], strict[b], 0, "b is equal to a\n"},
			} {
				if a == "live" && b == "live" && c.what != "equal" {
					continue // one cluster
				}
				var out, errs bytes.Buffer
				args := append([]string{"diff", c.a[0], c.b[0]}, append(append([]string(nil), c.a[1:]...), c.b[1:]...)...)
				code := run(t.Context(), args, strings.NewReader(""), &out, &errs)
				if code != c.code || !strings.Contains(out.String(), c.says) {
					t.Errorf("%s, %s: %s: exit status %d, %s%s", a, b, c.what, code, out.String(), errs.String())
				}
			}
		}
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"live", strict["trust.yaml"][0]}, 2, "live needs --pool"},
		{
			append([]string{strict["trust.yaml"][0]}, strict["live"][0], "--pool", "gone", "--kubeconfig", strict["live"][4]), 2,
			"no MachineConfigPool gone",
		},
		{[]string{strict["trust.yaml"][0], strict["host"][0], "--context", "x"}, 2, "go with live"},
		{
			[]string{"live", strict["trust.yaml"][0], "--pool", "worker", "--kubeconfig", filepath.Join(dir, "missing")},
			2,
			"reading the kubeconfig",
		},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"diff"}, c.args...), strings.NewReader(""), &out,
			&errs); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%v: exit status %d, %s", c.args, code, errs.String())
		}
	}
}

// TestDiff_refused: what lint doesn't take for a MachineConfig that loads, diff compares with nothing, and says why
// in the same words.
func TestDiff_refused(t *testing.T) {
	dir := t.TempDir()
	good := forms(t, dir, "  default: reject\n")
	rendered, err := os.ReadFile(good["MachineConfig"][0])
	if err != nil {
		t.Fatal(err)
	}
	object := func(files map[string]string) []byte {
		var list []any
		for path, data := range files {
			list = append(list, map[string]any{
				"path": path, "mode": 420,
				"contents": map[string]any{"source": "data:," + url.PathEscape(data)},
			})
		}
		b, err := json.Marshal(machineConfig("51-x", "worker",
			map[string]any{"ignition": map[string]any{"version": "3.4.0"}, "storage": map[string]any{"files": list}}, nil))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const policy, registries = "/etc/containers/policy.json", "/etc/containers/registries.d/x.yaml"
	const reject = `{"default":[{"type":"reject"}]`
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"edited", bytes.Replace(rendered, []byte("sha256:"), []byte("sha256:0"), 1), "one of them was edited"},
		{"no policy", object(map[string]string{policy: "{"}), "unexpected end of JSON input"},
		{"unknown key", object(map[string]string{policy: reject + `,"x":1}`}), `Unknown key "x"`},
		{"a scope that only runtimes refuse", object(map[string]string{policy: reject +
			`,"transports":{"containers-storage":{"x":[{"type":"reject"}]}}}`}), "must begin with [driver@/root] or [/root]"},
		{
			"registries.d", object(map[string]string{policy: reject + "}", registries: "docker: ["}),
			"did not find expected node content",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mc := filepath.Join(t.TempDir(), "mc.yaml")
			if err := os.WriteFile(mc, tt.data, 0o644); err != nil {
				t.Fatal(err)
			}
			for want, args := range map[int][]string{3: {"lint", mc}, 2: {"diff", good["policy.json"][0], mc}} {
				var out, errs bytes.Buffer
				code := run(t.Context(), args, strings.NewReader(""), &out, &errs)
				if text := out.String() + errs.String(); code != want || !strings.Contains(text, tt.want) {
					t.Errorf("%s: exit status %d, want %d\n%s", args[0], code, want, text)
				}
			}
		})
	}
}
