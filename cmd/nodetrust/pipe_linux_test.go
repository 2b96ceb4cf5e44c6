package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPipes: what a user names may be a pipe, and is read once.
func TestPipes(t *testing.T) {
	dir := t.TempDir()
	const reject = `{"default":[{"type":"reject"}]}`
	const config = "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: corp}\n" +
		"spec: {pools: [worker], default: reject}\n"
	policy, trust := filepath.Join(dir, "policy.json"), filepath.Join(dir, "trust.yaml")
	for path, data := range map[string]string{policy: reject, trust: config} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	render := func(to string) string {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"render", "--to", to, trust}, nil, &out, &errs); code != 0 {
			t.Fatal(errs.String())
		}
		return out.String()
	}
	configMap, machineConfig, ignition := render("configmap"), render("machineconfig"), render("ignition")
	canaries := `[{"image":"127.0.0.1:1/a@sha256:` + strings.Repeat("a", 64) + `","expect":"refuse"}]`
	for _, tt := range []struct {
		name, data, args string
		want             int
	}{
		{"lint, policy.json", reject, "lint PIPE", 0},
		{"lint, trust.yaml", config, "lint PIPE", 0},
		{"lint, ConfigMap", configMap, "lint PIPE", 0},
		{"diff, policy.json", reject, "diff PIPE " + policy, 0},
		{"diff, trust.yaml", config, "diff PIPE " + policy, 0},
		{"diff, ConfigMap", configMap, "diff PIPE " + policy, 0},
		{"diff, MachineConfig", machineConfig, "diff PIPE " + policy, 0},
		{"diff, Ignition", ignition, "diff PIPE " + policy, 0},
		{"render", config, "render --to butane PIPE", 0},
		{"explain --policy", reject, "explain --offline --policy PIPE quay.io/corp/app:v1", 3},
		{"explain --config", config, "explain --offline --config PIPE quay.io/corp/app:v1", 3},
		{"--registries-conf", "", "explain --offline --policy " + policy + " --registries-conf PIPE quay.io/corp/app:v1", 3},
		{"probe --canaries", canaries, "probe --runtime verify --canaries PIPE --policy " + policy, 4},
		{"probe --desired", machineConfig, "probe --desired PIPE", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pipe := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			go func() {
				if w, err := os.OpenFile(pipe, os.O_WRONLY, 0); err == nil {
					_, _ = w.WriteString(tt.data)
					w.Close()
				}
			}()
			var out, errs bytes.Buffer
			done := make(chan int, 1)
			go func() {
				done <- run(t.Context(), strings.Fields(strings.ReplaceAll(tt.args, "PIPE", pipe)), nil, &out, &errs)
			}()
			select {
			case code := <-done:
				if code != tt.want {
					t.Errorf("exit status %d, want %d\n%s%s", code, tt.want, &out, &errs)
				}
			case <-time.After(time.Minute):
				t.Fatal("waits: the pipe was read twice")
			}
		})
	}
}
