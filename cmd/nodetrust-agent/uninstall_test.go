package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	shell     = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	applied   = regexp.MustCompile(`-k (deploy/\S+)`)
	ownFile   = regexp.MustCompile(`/\S*nodetrust\S*`)
	installed = regexp.MustCompile(`(?m)^(?:install|mkdir) .*$`)
)

// TestUninstallPage runs the restore of docs/uninstall.md, and compares what it removes with what docs/install.md
// installs.
func TestUninstallPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/uninstall.md")
	if err != nil {
		t.Fatal(err)
	}
	install, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	var removed []string
	restores, overlays := 0, 0
	for _, block := range shell.FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			if args, is := strings.CutPrefix(line, "nodetrust-agent "); is {
				restores++
				runRestore(t, strings.Fields(args))
			}
			if names, is := strings.CutPrefix(line, "rm "); is {
				removed = append(removed, strings.Fields(names)...)
			}
			for _, m := range applied.FindAllStringSubmatch(line, -1) {
				overlays++
				if _, err := os.Stat(filepath.Join("../..", m[1], "kustomization.yaml")); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if restores != 1 || overlays != 3 {
		t.Errorf("the page restores %d times and names %d overlays", restores, overlays)
	}
	units, err := filepath.Glob("../../deploy/systemd/nodetrust-agent*")
	if err != nil || len(units) == 0 {
		t.Fatalf("units %v, %v", units, err)
	}
	want := []string{"/usr/bin/nodetrust", "/usr/bin/nodetrust-agent"}
	for _, u := range units {
		want = append(want, "/etc/systemd/system/"+filepath.Base(u))
	}
	for _, line := range installed.FindAllString(string(install), -1) {
		for _, p := range ownFile.FindAllString(line, -1) {
			if strings.HasPrefix(p, "/etc/nodetrust") || strings.HasPrefix(p, "/usr/libexec/") {
				want = append(want, p)
			}
		}
	}
	for _, p := range want {
		if !slices.ContainsFunc(removed, func(r string) bool { return p == r || strings.HasPrefix(p, r+"/") }) {
			t.Errorf("docs/install.md installs %s, docs/uninstall.md does not remove it", p)
		}
	}
}

// runRestore runs the command of the page for a host that an agent has worked on.
func runRestore(t *testing.T, args []string) {
	t.Helper()
	dir, host := t.TempDir(), t.TempDir()
	const found = `{"default":[{"type":"insecureAcceptAnything"}]}`
	policy, ign := filepath.Join(host, "etc/containers/policy.json"), filepath.Join(dir, "desired.ign")
	for p, data := range map[string]string{policy: found, ign: rejecting} {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(host, "var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	cli := filepath.Join(dir, "nodetrust")
	const loads = "#!/bin/sh\necho '{\"readers\":[{\"reader\":\"current\",\"loads\":true}]}'\n"
	if err := os.WriteFile(cli, []byte(loads), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil { // the child has a user of its own
			t.Fatal(err)
		}
	}
	code, stdout, stderr := try(t, "--host-root", host, "--desired", ign, "--once", "--node-name", "", "--nodetrust", cli)
	if b, err := os.ReadFile(policy); err != nil || string(b) == found {
		t.Fatalf("nothing was written: exit %d, %s%s", code, stdout, stderr)
	}
	i := slices.Index(args, "/")
	if i < 1 || args[i-1] != "--host-root" {
		t.Fatalf("args %q name no host root", args)
	}
	args[i] = host
	for range 2 {
		code, stdout, stderr = try(t, append(args, "--node-name", "")...)
		if code != exitOK || !strings.Contains(stdout, "nothing of nodetrust is left") {
			t.Errorf("exit %d, %s%s", code, stdout, stderr)
		}
	}
	info, err := os.Stat(policy)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	if b, err := os.ReadFile(policy); err != nil || string(b) != found {
		t.Errorf("policy.json is %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(host, "var/lib/nodetrust")); !os.IsNotExist(err) {
		t.Errorf("/var/lib/nodetrust: %v", err)
	}
	// Somebody's change is left: exit 3, with the path.
	code, _, _ = try(t, "--host-root", host, "--desired", ign, "--once", "--node-name", "", "--nodetrust", cli)
	if code == exitFailed {
		t.Fatalf("exit %d", code)
	}
	if err := os.WriteFile(policy, []byte(`{"default":[]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = try(t, append(args, "--node-name", "")...)
	if code != exitBad || !strings.Contains(stdout, "left: /etc/containers/policy.json was changed by somebody else") {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
}
