package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func try(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"nothing", nil, "--host-root is missing"},
		{"no desired", []string{"--host-root", dir}, "--desired is missing"},
		{"host root is a file", []string{"--host-root", file, "--desired", dir}, "is no directory"},
		{"host root is not there", []string{"--host-root", dir + "/x", "--desired", dir}, "is no directory"},
		{"unknown flag", []string{"--nonsense"}, "nonsense"},
		{"argument", []string{"--host-root", dir, "--desired", dir, "more"}, `unexpected argument "more"`},
		{"runtime", []string{"--host-root", dir, "--desired", dir, "--runtime", "docker"}, "--runtime must be"},
		{"resync", []string{"--host-root", dir, "--desired", dir, "--resync", "0s"}, "must be above zero"},
		{"contested", []string{"--host-root", dir, "--desired", dir, "--contested-after", "0"}, "at least 1"},
		{"log level", []string{"--host-root", dir, "--desired", dir, "--log-level", "loud"}, "--log-level must be"},
		{
			"desired is not there, once",
			[]string{"--host-root", dir, "--desired", dir + "/x", "--once", "--observe"},
			"desired state is not usable",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := try(t, tt.args...)
			if code != exitUsage || !strings.Contains(stderr, "nodetrust-agent: error: ") || !strings.Contains(stderr, tt.says) {
				t.Errorf("exit %d, %s", code, stderr)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("something was written: %v %v", entries, err)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	code, stdout, stderr := try(t, "--help")
	if code != exitOK || stderr != "" || !strings.Contains(stdout, "EXIT STATUS") ||
		!strings.Contains(stdout, "\n  --contested-after N\n        same foreign bytes") ||
		!strings.Contains(stdout, "\n  --once\n") {
		t.Errorf("exit %d, %q, %s", code, stderr, stdout)
	}
	for line := range strings.SplitSeq(stdout, "\n") {
		if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

// rejecting is a desired state.
const rejecting = `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/containers/policy.json","mode":420,"overwrite":true,` +
	`"contents":{"source":"data:,%7B%22default%22%3A%5B%7B%22type%22%3A%22reject%22%7D%5D%7D"}}]}}`

// TestOnceStatusFile: who asks for one status file and gets none is not told that all is well.
func TestOnceStatusFile(t *testing.T) {
	dir, host := t.TempDir(), t.TempDir()
	ign := filepath.Join(dir, "desired.ign")
	if err := os.WriteFile(ign, []byte(rejecting), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--host-root", host, "--desired", ign, "--once", "--observe", "--node-name", "", "--status-file",
		filepath.Join(dir, "gone", "status.json"),
	}
	code, _, stderr := try(t, args...)
	if code != exitFailed || !strings.Contains(stderr,
		"nodetrust-agent: error: writing the status file "+args[len(args)-1]+": ") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// TestStatusFileAsMetrics: the script of deploy/systemd reads what --once has written, whatever the messages hold.
func TestStatusFileAsMetrics(t *testing.T) {
	dir, host := t.TempDir(), t.TempDir()
	ign, status, metrics := filepath.Join(dir, "desired.ign"), filepath.Join(dir, "status.json"),
		filepath.Join(dir, "nodetrust.prom")
	if err := os.WriteFile(ign, []byte(rejecting), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, policy, state string }{
		{"Drifted", `{"default":[{"type":"insecureAcceptAnything"}]}`, "Drifted"},
		{"Unknown", `{"default":[{"type":"reject"}]}`, "Unknown"}, // NoCanary
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.MkdirAll(filepath.Join(host, "etc/containers"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(host, "etc/containers/policy.json"), []byte(tt.policy), 0o644); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := try(t, "--host-root", host, "--desired", ign, "--once", "--observe", "--node-name", "",
				"--status-file", status)
			if !strings.HasPrefix(stdout, tt.state+" ") {
				t.Fatalf("exit %d, %s%s", code, stdout, stderr)
			}
			if out, err := exec.Command("../../deploy/systemd/textfile", status, metrics).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			b, err := os.ReadFile(metrics)
			if err != nil {
				t.Fatal(err)
			}
			var written struct{ CheckedAt time.Time }
			if s, err := os.ReadFile(status); err != nil || json.Unmarshal(s, &written) != nil {
				t.Fatalf("%v: %s", err, s)
			}
			for _, line := range []string{
				fmt.Sprintf("nodetrust_state{state=%q} 1\n", tt.state), "nodetrust_state{state=\"Enforced\"} 0\n",
				fmt.Sprintf("nodetrust_last_check_timestamp_seconds %d\n", written.CheckedAt.Unix()),
			} {
				if !strings.Contains(string(b), line) {
					t.Errorf("want %q in\n%s", line, b)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := try(t, "--version")
	if code != exitOK || stderr != "" || stdout != "nodetrust-agent "+version+"\n" {
		t.Errorf("exit %d, %q, %q", code, stderr, stdout)
	}
}

// TestOnceObserve: a host without anything, a desired state without canaries.
func TestOnceObserve(t *testing.T) {
	dir, host := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "desired.ign"), []byte(rejecting), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"--host-root", host, "--desired", dir, "--once", "--observe", "--node-name", ""}
	code, stdout, stderr := try(t, args...)
	if code != exitBad || !strings.HasPrefix(stdout, "Drifted (Missing): /etc/containers/policy.json is missing") {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
	if err := os.MkdirAll(filepath.Join(host, "etc/containers"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "etc/containers/policy.json"), []byte(`{"default":[{"type":"reject"}]}`),
		0o644); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr = try(t, args...); code != exitUnknown || !strings.HasPrefix(stdout, "Unknown (NoCanary)") {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
}
