package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// node is a scratch host root whose policy demands a signature for one repository, with a signed and an unsigned image.
type node struct {
	root, home       string
	signed, unsigned string
	registry         *fixture.Registry
	lookaside        *fixture.Lookaside
}

func newNode(t *testing.T) *node {
	t.Helper()
	if testing.Short() {
		t.Skip("makes gpg keys")
	}
	p := fixture.Parts{TB: t}
	k := p.Key(p.GPG(), "signer", fixture.KeyOptions{Expire: "20d"})
	n := &node{root: t.TempDir(), home: t.TempDir(), registry: p.Registry(), lookaside: p.Lookaside(t.TempDir())}
	d := p.Push(n.registry, "team/signed", "v1", "signed")
	p.Sign(n.lookaside, k, "team/signed", d, n.registry.Host+"/team/signed:v1", 1)
	n.signed = n.registry.Host + "/team/signed@" + d
	n.unsigned = n.registry.Host + "/team/unsigned@" + p.Push(n.registry, "team/unsigned", "v1", "unsigned")

	key := base64.StdEncoding.EncodeToString(k.Binary)
	files := map[string]string{
		"policy.json": `{"default":[{"type":"reject"}],"transports":{"docker":{"` + n.registry.Host +
			`/team":[{"type":"signedBy","keyType":"GPGKeys","keyData":"` + key + `"}]}}}`,
		"registries.d/lab.yaml": "docker:\n  " + n.registry.Host + ":\n    lookaside: " + n.lookaside.URL() + "\n",
		"registries.conf":       "unqualified-search-registries = []\n" + fixture.Insecure(n.registry.Host),
	}
	for name, content := range files {
		for _, dir := range []string{filepath.Join(n.root, "etc/containers"), filepath.Join(n.home, ".config/containers")} {
			p.Write(filepath.Join(dir, name), []byte(content))
		}
	}
	return n
}

// canaries is the JSON list of an accept-canary and a refuse-canary.
func (n *node) canaries(accept, refuse string) string {
	b, _ := json.Marshal([]map[string]string{{"image": accept, "expect": "accept"}, {"image": refuse, "expect": "refuse"}})
	return string(b)
}

// isolated clears the environment that decides where configuration is read, so that a command run in this process
// can change it without other tests noticing.
func (n *node) isolated(t *testing.T) {
	for _, name := range []string{
		"CONTAINERS_REGISTRIES_CONF", "CONTAINERS_POLICY_JSON", "XDG_CONFIG_HOME",
		"XDG_RUNTIME_DIR", "XDG_DATA_HOME", "REGISTRY_AUTH_FILE",
	} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	t.Setenv("HOME", n.home)
	t.Setenv("CONTAINERS_REGISTRIES_CONF", filepath.Join(n.home, ".config/containers/registries.conf"))
}

type probed struct {
	Absent   []string
	State    string
	Reason   string
	Message  string
	Canaries []struct {
		Image, Verdict, Reason, Expect, Runtime string
		OK                                      bool
	}
	Keys []struct {
		Fingerprint string
		Expires     int64
	}
	Runtimes []struct {
		Name, Version string
		Advisories    []string
	}
}

// advised is the reason of Enforced: that of a runtime with a known hole.
func (p probed) advised() string {
	for _, r := range p.Runtimes {
		if len(r.Advisories) > 0 {
			return "RuntimeAdvisory"
		}
	}
	return ""
}

func runProbe(t *testing.T, stdin string, args ...string) (probed, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), append([]string{"probe", "-o", "json", "--canaries", "-"}, args...),
		strings.NewReader(stdin), &stdout, &stderr)
	var p probed
	dec := json.NewDecoder(&stdout)
	for dec.More() {
		if err := dec.Decode(&p); err != nil {
			t.Fatalf("%v\nstderr: %s", err, stderr.String())
		}
	}
	if stderr.Len() > 0 {
		t.Logf("stderr: %s", stderr.String())
	}
	return p, code
}

func TestProbe(t *testing.T) {
	n := newNode(t)
	n.isolated(t)
	runtimes := []string{"verify"}
	if _, err := exec.LookPath("podman"); err == nil {
		runtimes = append(runtimes, "podman")
	} else {
		t.Log("podman is not installed: only verify is tried")
	}
	for _, runtime := range runtimes {
		for _, tt := range []struct {
			name, accept, refuse string
			state, reason        string
			code                 int
		}{
			{"enforced", n.signed, n.unsigned, "Enforced", "", 0},
			{"no digest", n.signed + "x", n.unsigned, "", "", 2},
		} {
			t.Run(runtime+"/"+tt.name, func(t *testing.T) {
				n.isolated(t)
				p, code := runProbe(t, n.canaries(tt.accept, tt.refuse), "--runtime", runtime, "--root", n.root)
				if code != tt.code || p.State != tt.state || p.Reason != cmp.Or(tt.reason, p.advised()) {
					t.Errorf("got exit %d, %s %s: %s", code, p.State, p.Reason, p.Message)
				}
				if code != 0 {
					return
				}
				if asked := len(p.Runtimes) == 1 && p.Runtimes[0].Name == runtime; asked != (runtime != "verify") {
					t.Errorf("runtimes: %+v", p.Runtimes)
				}
				if len(p.Keys) != 1 || time.Until(time.Unix(p.Keys[0].Expires, 0)) < 18*24*time.Hour {
					t.Errorf("want the key's expiry, got %v", p.Keys)
				}
				if p.Canaries[0].Runtime != runtime || p.Canaries[len(p.Canaries)-1].Runtime != "verify" {
					t.Errorf("got %+v", p.Canaries)
				}
			})
		}
		t.Run(runtime+"/not enforced and blocked", func(t *testing.T) {
			n.isolated(t)
			p, code := runProbe(t, n.canaries(n.unsigned, n.signed), "--runtime", runtime, "--root", n.root)
			if code != 3 || p.State != "NotEnforced" {
				t.Errorf("got exit %d, %s %s: %s", code, p.State, p.Reason, p.Message)
			}
		})
	}
	t.Run("lookaside down", func(t *testing.T) {
		n.lookaside.Stop()
		defer func() { _ = n.lookaside.Start() }()
		n.isolated(t)
		p, code := runProbe(t, n.canaries(n.signed, n.unsigned), "--runtime", "verify", "--root", n.root)
		if code != 4 || p.State != "Unknown" || p.Reason != "LookasideUnreachable" {
			t.Errorf("got exit %d, %s %s: %s", code, p.State, p.Reason, p.Message)
		}
	})
	t.Run("policy broken", func(t *testing.T) {
		n.isolated(t)
		policy := filepath.Join(n.root, "etc/containers/policy.json")
		good, _ := os.ReadFile(policy)
		defer os.WriteFile(policy, good, 0o644)
		os.WriteFile(policy, []byte("{"), 0o644)
		p, code := runProbe(t, n.canaries(n.signed, n.unsigned), "--runtime", "verify", "--root", n.root)
		if code != 4 || p.State != "Unknown" || p.Reason != "PolicyInvalid" {
			t.Errorf("got exit %d, %s %s: %s", code, p.State, p.Reason, p.Message)
		}
	})
	t.Run("one side only", func(t *testing.T) {
		n.isolated(t)
		p, code := runProbe(t, `[{"image":"`+n.signed+`","expect":"accept"}]`, "--runtime", "verify", "--root", n.root)
		if code != 4 || p.State != "Unknown" || p.Reason != "NoCanary" {
			t.Errorf("got exit %d, %s %s: %s", code, p.State, p.Reason, p.Message)
		}
	})
	t.Run("no runtime", func(t *testing.T) {
		n.isolated(t)
		t.Setenv("PATH", t.TempDir())
		p, code := runProbe(t, n.canaries(n.signed, n.unsigned), "--announce", "--cri-socket",
			filepath.Join(n.root, "no.sock"), "--root", n.root)
		if code != 4 || p.State != "Unknown" || p.Reason != "NoRuntime" || p.Absent == nil || len(p.Canaries) != 2 {
			t.Errorf("got exit %d, %+v", code, p)
		}
	})
}
