package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fsnotify/fsnotify"
	"sigs.k8s.io/yaml"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

const keyPath = "etc/pki/rpm-gpg/RPM-GPG-KEY-corp"

// world is a registry with images of every kind, a lookaside, and a node.
type world struct {
	t     *testing.T
	store *lab.Store
	node  *lab.Node
	dir   string

	// References by tag. acceptCanary and refuseCanary are by digest; the latter is of a properly signed image, carved
	// out.
	signed, unsigned, wrongKey, wrongIdentity, canaryTag string
	acceptCanary, refuseCanary                           string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	needNode(t)
	dir, err := os.MkdirTemp(theLab.Dir, "world-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	w := &world{t: t, dir: dir}
	w.store, err = lab.NewStore(filepath.Join(dir, "lookaside"))
	must(t, err)
	t.Cleanup(w.store.Close)

	w.signed, w.acceptCanary = w.push("signed", corp, "team/signed:v1")
	w.unsigned, _ = w.push("unsigned", nil, "")
	w.wrongKey, _ = w.push("wrongkey", stranger, "team/wrongkey:v1")
	w.wrongIdentity, _ = w.push("wrongidentity", corp, "team/signed:v1")
	w.canaryTag, w.refuseCanary = w.push("canary", corp, "team/canary:v1")

	w.node, err = theLab.NewNode(w.store.Registry.Host)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("CRI-O said:\n%s", tail(w.node.CRIOLog()))
		}
		if err := w.node.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// as is the same world for a subtest.
func (w *world) as(t *testing.T) *world {
	sub := *w
	sub.t = t
	return &sub
}

// push stores an image team/NAME:v1, signed by key for the given reference unless key is nil, and returns its
// references by tag and by digest.
func (w *world) push(name string, key *fixture.Key, as string) (tag, digest string) {
	w.t.Helper()
	repo := "team/" + name
	p, err := w.store.Push(repo, "v1", name, nil)
	must(w.t, err)
	if key != nil {
		must(w.t, w.store.Sign(key, repo, p.Digest, as))
	}
	return p.ByTag, p.ByDigest
}

// installKey puts corp's public key where the trust config says that the node has it.
func (w *world) installKey() { w.write(keyPath, corp.Armored) }

// write replaces a file of the host.
func (w *world) write(path string, data []byte) {
	w.t.Helper()
	must(w.t, os.MkdirAll(filepath.Dir(w.node.Path(path)), 0o755))
	must(w.t, os.WriteFile(w.node.Path(path), data, 0o644))
}

// trustYAML is the trust config of the world: corp's key at a path of the host, both canaries. extra lines are
// further registries.
func (w *world) trustYAML(extra ...string) string {
	return fmt.Sprintf(`apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: lab}
spec:
  pools: [worker]
  default: reject
  keys:
  - name: corp
    path: /%s
    fingerprints: [%s]
  registries:
  - scope: %s/team
    require:
    - signedBy: [corp]
      identity: matchRepoDigestOrExact
    lookaside: %s
%s  canaries:
  - image: %s
    expect: accept
  - image: %s
    expect: refuse
`, keyPath, corp.Fingerprint, w.store.Registry.Host, w.store.Lookaside.URL(), strings.Join(extra, ""), w.acceptCanary, w.refuseCanary)
}

// render runs `nodetrust render --to FORMAT` on a trust config and returns what it writes.
func (w *world) render(format, trust string) []byte {
	w.t.Helper()
	file := filepath.Join(w.dir, "trust.yaml")
	must(w.t, os.WriteFile(file, []byte(trust), 0o644))
	r := program(w.t, w.dir, theLab.Programs.Nodetrust, "render", "--to", format, file)
	if r.code != 0 {
		w.t.Fatalf("render --to %s: %v", format, r)
	}
	return []byte(r.stdout)
}

// desiredFile is where the agents of this world find a MachineConfig.
func (w *world) desiredFile() string { return filepath.Join(w.dir, "desired.yaml") }

// desire makes a MachineConfig the desired state, atomically.
func (w *world) desire(machineConfig []byte) {
	w.t.Helper()
	tmp := w.desiredFile() + ".tmp"
	must(w.t, os.WriteFile(tmp, machineConfig, 0o644))
	must(w.t, os.Rename(tmp, w.desiredFile()))
}

// mountConfigMap writes a rendered ConfigMap's data to dir as a kubelet does: behind the symbolic link ..data, which
// it swaps.
func (w *world) mountConfigMap(dir string, rendered []byte) {
	w.t.Helper()
	var cm struct {
		Kind string            `json:"kind"`
		Data map[string]string `json:"data"`
	}
	must(w.t, yaml.Unmarshal(rendered, &cm))
	if cm.Kind != "ConfigMap" || len(cm.Data) == 0 {
		w.t.Fatalf("render --to configmap: not a ConfigMap with data:\n%s", rendered)
	}
	must(w.t, os.MkdirAll(dir, 0o755))
	version, err := os.MkdirTemp(dir, "..")
	must(w.t, err)
	for name, data := range cm.Data {
		must(w.t, os.WriteFile(filepath.Join(version, name), []byte(data), 0o644))
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			w.t.Fatal(err)
		}
	}
	must(w.t, os.Symlink(filepath.Base(version), filepath.Join(dir, "..tmp")))
	must(w.t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
}

// status is the agent's status file, by the names that docs promise.
type status struct {
	Node        string       `json:"node"`
	State       string       `json:"state"`
	Reason      string       `json:"reason"`
	Message     string       `json:"message"`
	Desired     string       `json:"desired"`
	Observed    string       `json:"observed"`
	CheckedAt   string       `json:"checkedAt"`
	Differences []difference `json:"differences"`
	Canaries    []canary     `json:"canaries"`
	Runtimes    []crRuntime  `json:"runtimes"`
}

type difference struct {
	Path string `json:"path"`
	Kind string `json:"kind"`
	Want string `json:"want"`
	Got  string `json:"got"`
}

type canary struct {
	Image   string `json:"image"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Expect  string `json:"expect"`
	Runtime string `json:"runtime"`
	OK      bool   `json:"ok"`
}

type crRuntime struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Advisories []string `json:"advisories"`
}

func (s status) String() string {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s status) differs(path, kind string) bool {
	for _, d := range s.Differences {
		if d.Path == path && d.Kind == kind {
			return true
		}
	}
	return false
}

// agent is a running nodetrust-agent, and all that its status file has said.
type agent struct {
	*lab.Process
	*recorder
	t *testing.T
}

// as is the same agent for a subtest.
func (a *agent) as(t *testing.T) *agent { return &agent{a.Process, a.recorder, t} }

// recorder keeps what a status file has said.
type recorder struct {
	file    string
	mu      sync.Mutex
	history []status
}

// startAgent starts the agent of the node. Extra arguments override those that it is given here.
func (w *world) startAgent(extra ...string) *agent {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.dir, "status-")
	must(w.t, err)
	a := &agent{t: w.t, recorder: &recorder{file: filepath.Join(dir, "status.json")}}
	watcher, err := fsnotify.NewWatcher()
	must(w.t, err)
	must(w.t, watcher.Add(dir))
	go func() {
		for range watcher.Events {
			a.look()
		}
	}()
	a.Process, err = w.node.Start(theLab.Programs.Agent, append([]string{
		"--host-root", w.node.Root, "--desired", w.desiredFile(), "--node-name", "node1", "--status-file", a.file,
		"--cri-socket", w.node.Socket, "--resync", "2s", "--probe-interval", "2s",
	}, extra...)...)
	must(w.t, err)
	w.t.Cleanup(func() {
		if !a.Exited() {
			a.Stop()
		}
		watcher.Close()
		if w.t.Failed() {
			a.look()
			w.t.Logf("the agent said:\n%s", tail(a.Log.String()))
			var said string
			for _, s := range a.since(0) {
				if line := fmt.Sprint(s.State, " ", s.Reason, " ", s.Message, " ", s.Differences); line != said {
					said = line
					w.t.Log("state ", line)
				}
			}
			if s, ok := a.last(); ok {
				w.t.Logf("last status: %v", s)
			}
		}
	})
	return a
}

// look adds what the status file says now to the history, if that is news.
func (r *recorder) look() {
	r.mu.Lock() // from the beginning: of two at the same time the one that has read first adds first
	defer r.mu.Unlock()
	b, err := os.ReadFile(r.file)
	if err != nil {
		return
	}
	var s status
	if json.Unmarshal(b, &s) != nil {
		// Written by rename, so never half: a test of its own would be late here.
		s = status{State: "unreadable", Message: string(b)}
	}
	if n := len(r.history); n == 0 || r.history[n-1].String() != s.String() {
		r.history = append(r.history, s)
	}
}

// mark is a point in the history, for since.
func (r *recorder) mark() int {
	r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.history)
}

// since returns what the status file has said after mark.
func (r *recorder) since(mark int) []status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]status(nil), r.history[mark:]...)
}

func (r *recorder) last() (status, bool) {
	r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.history) == 0 {
		return status{}, false
	}
	return r.history[len(r.history)-1], true
}

// await waits for a status after mark that ok likes, and returns the first such.
func (a *agent) await(what string, mark int, ok func(status) bool) status {
	a.t.Helper()
	var found status
	err := lab.Poll(lab.Patience, func() error {
		a.look()
		for _, s := range a.since(mark) {
			if ok(s) {
				found = s
				return nil
			}
		}
		if a.Exited() {
			return fmt.Errorf("the agent has ended")
		}
		return fmt.Errorf("no such status")
	})
	if err != nil {
		a.t.Fatalf("waiting for %s: %v", what, err)
	}
	return found
}

// settle waits until the newest status is state.
func (a *agent) settle(state string) status {
	a.t.Helper()
	var s status
	err := lab.Poll(lab.Patience, func() error {
		s, _ = a.last()
		if s.State != state {
			return fmt.Errorf("state is %q, want %q", s.State, state)
		}
		if a.Exited() {
			return fmt.Errorf("the agent has ended")
		}
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func state(want string) func(status) bool {
	return func(s status) bool { return s.State == want }
}

// never fails the test if any of the states was reported after mark.
func (a *agent) never(mark int, states ...string) {
	a.t.Helper()
	for _, s := range a.since(mark) {
		for _, bad := range states {
			if s.State == bad {
				a.t.Errorf("state was %s, which it must not be here: %v", bad, s)
				return
			}
		}
	}
}

// judges asks CRI-O and podman to pull image: both must accept it, or both refuse it for its signature.
func (w *world) judges(image string, accept bool) {
	w.t.Helper()
	err := w.node.Pull(image, "")
	switch {
	case accept && err != nil:
		w.t.Errorf("CRI-O refuses %s: %v", image, err)
	case !accept && err == nil:
		w.t.Errorf("CRI-O accepts %s", image)
	case !accept && !strings.Contains(err.Error(), "SignatureValidationFailed"):
		w.t.Errorf("CRI-O refuses %s, but not for its signature: %v", image, err)
	}
	out, err := w.node.Podman("pull", "-q", image)
	switch {
	case accept && err != nil:
		w.t.Errorf("podman refuses %s: %v\n%s", image, err, out)
	case !accept && err == nil:
		w.t.Errorf("podman accepts %s", image)
	case !accept && !strings.Contains(out, "Source image rejected"):
		w.t.Errorf("podman refuses %s, but not for its signature: %s", image, out)
	}
}

func tail(s string) string {
	if len(s) > 6000 {
		return "…" + s[len(s)-6000:]
	}
	return s
}
