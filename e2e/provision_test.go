package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// forgedSchema1 is a hole of every CRI-O and podman that the lab may have.
const forgedSchema1 = "forged-schema1"

// TestProvision: the agent takes a host from nothing to enforcing, and says Enforced only then.
func TestProvision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.node.StartCRIO(""))
	desired := filepath.Join(w.dir, "configmap")
	w.mountConfigMap(desired, w.render("configmap", w.trustYAML()))
	a := w.startAgent("--desired", desired)

	// A policy whose key the node lacks would refuse everything: it is not activated.
	s := a.await("Unknown for the missing key", 0,
		func(s status) bool { return s.State == "Unknown" && s.Reason == "KeyMissing" })
	if !s.differs("/"+keyPath, "key-missing") {
		t.Errorf("the missing key is not named: %v", s)
	}
	if _, err := os.Lstat(w.node.Path("etc/containers/policy.json")); !os.IsNotExist(err) {
		t.Errorf("policy.json was written although its key is missing (%v)", err)
	}
	a.never(0, "Enforced")

	w.installKey()
	s = a.await("Enforced", 0, state("Enforced"))
	if s.Node != "node1" || s.CheckedAt == "" || len(s.Differences) != 0 {
		t.Errorf("status: %v", s)
	}
	if s.Desired != s.Observed || !strings.HasPrefix(s.Desired, "sha256:") {
		t.Errorf("desired %q and observed %q: want the same digest", s.Desired, s.Observed)
	}
	// The lab's CRI-O 1.34.0 takes the digest of a schema-1 manifest from the wrong bytes: enforced, and not without a
	// hole.
	if s.Reason != "RuntimeAdvisory" || !strings.Contains(s.Message, "by its version number cri-o 1.34.0 has ") ||
		!strings.Contains(s.Message, forgedSchema1) {
		t.Errorf("%s: %s", s.Reason, s.Message)
	}
	for _, want := range []string{"cri-o", "podman"} {
		if !slices.ContainsFunc(s.Runtimes, func(r crRuntime) bool {
			return r.Name == want &&
				slices.Contains(r.Advisories, forgedSchema1)
		}) {
			t.Errorf("the status file doesn't tell of %s's hole: %v", want, s)
		}
	}
	proven := map[string]bool{}
	for _, c := range s.Canaries {
		if !c.OK {
			t.Errorf("Enforced with a canary that came out wrong: %+v", c)
		}
		proven[c.Runtime+" "+c.Expect] = true
	}
	for _, want := range []string{
		"cri accept", "cri refuse", "podman accept", "podman refuse", "verify accept",
		"verify refuse",
	} {
		if !proven[want] {
			t.Errorf("no canary %q in the status: %v", want, s)
		}
	}

	for _, tt := range []struct {
		name, image string
		accept      bool
	}{
		{"signed", w.signed, true},
		{"signed by digest", w.acceptCanary, true},
		{"unsigned", w.unsigned, false},
		{"wrong key", w.wrongKey, false},
		{"wrong identity", w.wrongIdentity, false},
		{"carved-out signed canary", w.refuseCanary, false},
		{"the same image by tag", w.canaryTag, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.as(t).judges(tt.image, tt.accept)
		})
	}

	// What the CLI judges on this root is what the runtimes did.
	for _, tt := range []struct {
		image  string
		code   int
		reason string
	}{
		{w.signed, 0, `"reason": ""`},
		{w.unsigned, 3, "NoSignature"},
		{w.wrongKey, 3, "WrongKey"},
		{w.wrongIdentity, 3, "WrongIdentity"},
		{w.refuseCanary, 3, "WrongKey"},
	} {
		r := program(t, w.dir, theLab.Programs.Nodetrust, "verify", "--root", w.node.Root, "-o", "json", tt.image)
		if r.code != tt.code || !strings.Contains(r.stdout, tt.reason) {
			t.Errorf("verify %s: want exit status %d and %s: %v", tt.image, tt.code, tt.reason, r)
		}
	}

	// A new desired state is picked up without a restart.
	mark := a.mark()
	w.mountConfigMap(desired, w.render("configmap",
		w.trustYAML("  - scope: "+w.store.Registry.Host+"/closed\n    require: reject\n")))
	next := a.await("Enforced with the new digest", mark,
		func(n status) bool { return n.State == "Enforced" && n.Desired != s.Desired })
	if next.Observed != next.Desired {
		t.Errorf("observed %s, want %s", next.Observed, next.Desired)
	}
	a.never(0, "NotEnforced", "Blocked", "RolledBack", "Contested")

	must(t, a.Signal(syscall.SIGTERM))
	if code := a.Stop(); code != 0 {
		t.Errorf("after SIGTERM the agent ends with %d, want 0", code)
	}
}
