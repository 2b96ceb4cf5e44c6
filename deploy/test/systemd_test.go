package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestUnits has systemd read the units, with programs that exist in place of ours.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here")
	}
	dir := t.TempDir()
	units, err := filepath.Glob("../systemd/nodetrust-agent*")
	if err != nil || len(units) != 3 {
		t.Fatalf("%v %v", units, err)
	}
	for _, u := range units {
		b, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer("/usr/bin/nodetrust-agent", "/bin/true", "/usr/libexec/nodetrust/textfile",
			"/bin/true").Replace(string(b))
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(u)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, u := range units {
		out, err := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, filepath.Base(u))).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			// What it says of other units of this machine is none of our business.
			if strings.Contains(line, "nodetrust") {
				t.Errorf("%s: %s", filepath.Base(u), line)
			}
		}
		if err != nil && len(out) == 0 {
			t.Errorf("%s: %v", filepath.Base(u), err)
		}
	}
}

// TestTextfile runs the script on status files and has Prometheus' parser read what comes out.
func TestTextfile(t *testing.T) {
	good := `{
  "node": "",
  "state": "Drifted",
  "reason": "",
  "message": "x\n  \"state\": \"Enforced\",",
  "desired": "",
  "observed": "",
  "checkedAt": "2026-01-02T03:04:05.678901234Z",
  "differences": [
    {
      "path": "/etc/containers/policy.json",
  "state": "Enforced",
      "kind": "content"
    }
  ],
  "canaries": []
}
`
	for _, c := range []struct {
		name, status, result, state string
		checked                     float64
	}{
		{"a state", good, "success", "Drifted", 1767323045},
		{"enforced", strings.Replace(good, "Drifted", "Enforced", 1), "success", "Enforced", 1767323045},
		{"by hand", good, "", "Drifted", 1767323045},
		{"the agent failed", good, "exit-code", "Unknown", 0},
		{"no status file", "", "success", "Unknown", 0},
		{"half a status file", good[:20], "success", "Unknown", 0},
		{"a state that nobody knows", strings.Replace(good, "Drifted", "Sparkling", 1), "success", "Unknown", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			status, out := filepath.Join(dir, "status.json"), filepath.Join(dir, "nodetrust.prom")
			if c.status != "" {
				if err := os.WriteFile(status, []byte(c.status), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("../systemd/textfile", status, out)
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			if c.result != "" {
				cmd.Env = append(cmd.Env, "SERVICE_RESULT="+c.result)
			}
			if b, err := cmd.CombinedOutput(); err != nil || len(b) > 0 {
				t.Fatalf("%v: %s", err, b)
			}
			f, err := os.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := expfmt.NewTextParser(model.UTF8Validation)
			families, err := p.TextToMetricFamilies(f)
			if err != nil {
				t.Fatal(err)
			}
			states := 0
			for _, m := range families["nodetrust_state"].GetMetric() {
				states++
				want := 0.0
				if m.GetLabel()[0].GetValue() == c.state {
					want = 1
				}
				if m.GetGauge().GetValue() != want {
					t.Errorf("%v, want state %s", m, c.state)
				}
			}
			if states != 9 {
				t.Errorf("%d states, want 9", states)
			}
			checked := 0.0
			if m := families["nodetrust_last_check_timestamp_seconds"].GetMetric(); len(m) == 1 {
				checked = m[0].GetGauge().GetValue()
			}
			if checked != c.checked {
				t.Errorf("checked at %f, want %f", checked, c.checked)
			}
			if left, _ := filepath.Glob(out + ".*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestTextfile_symlink lets the owner of the collector's directory win every race: wherever the script makes a file
// by a name, that name is a link to a file of root by the time that it is opened.
func TestTextfile_symlink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "shadow")
	status, out := filepath.Join(dir, "status.json"), filepath.Join(dir, "nodetrust.prom")
	for p, text := range map[string]string{status: `{}`, victim: "secret"} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The directory's owner is quicker than the script: after mktemp and after rm.
	bin := t.TempDir()
	for name, text := range map[string]string{
		"mktemp": "p=$(/usr/bin/mktemp \"$@\") && ln -sf " + victim + " \"$p\" && echo \"$p\"\n",
		"rm":     "/bin/rm \"$@\"; ln -sf " + victim + " " + out + ".new\n",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("../systemd/textfile", status, out)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+bin+":"+os.Getenv("PATH"))
	_ = cmd.Run() // that it fails is fine
	info, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "secret" || info.Mode().Perm() != 0o600 {
		t.Errorf("the script wrote through a link: %v %q, %v", info.Mode(), b, err)
	}
}
