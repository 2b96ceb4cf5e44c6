package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/agent/child"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

const (
	policyFile = "/etc/containers/policy.json"
	labFile    = "/etc/containers/registries.d/lab.yaml"
	keyFile    = "/etc/pki/containers/lab.gpg"

	acceptImage = "lab.example.com/a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	refuseImage = "lab.example.com/b@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// nodetrust stands in for the CLI, as the agent's child: it answers what the test has put into its directory, and
// writes down how it was called. The real one is tried end to end elsewhere.
const nodetrust = `#!/bin/sh
d=%s
echo "$*" >>$d/calls
case "$1 $*" in
*" --remove "*) exit 0 ;;
lint*) cat $d/lint.json; exit $(cat $d/lint.exit) ;;
probe*)
	cat >$d/stdin
	case "$*" in *--authfile*) cat "$TMPDIR/auth.json" >$d/auth ;; esac
	echo '{"absent":["` + acceptImage + `"]}'
	while [ -e $d/hang ]; do sleep 0.02; done
	cat $d/probe.json; exit $(cat $d/probe.exit) ;;
esac
exit 2
`

// patience is how long anything may take that takes a moment on a machine with nothing else to do.
const patience = time.Minute

type world struct {
	t                        *testing.T
	dir, host, desired, tool string

	mu       sync.Mutex
	statuses []Status
	cancel   context.CancelFunc
	done     chan struct{}
	last     Status
	err      error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.host, w.desired, w.tool = filepath.Join(w.dir, "host"), filepath.Join(w.dir, "desired"), filepath.Join(w.dir, "tool")
	for _, d := range []string{w.host, w.desired, w.tool} {
		w.must(os.Mkdir(d, 0o755))
	}
	// The child has a user of its own: it must get here, and write here.
	for _, d := range []string{filepath.Dir(w.dir), w.dir} {
		w.must(os.Chmod(d, 0o755))
	}
	w.must(os.Chmod(w.tool, 0o777))
	w.must(os.WriteFile(w.script(), fmt.Appendf(nil, nodetrust, w.tool), 0o755))
	w.lints(true)
	w.answers(good("cri"))
	w.write(keyFile, "key")
	w.must(os.Mkdir(w.path("/root"), 0o700))
	t.Cleanup(w.stop)
	return w
}

func (w *world) script() string { return filepath.Join(w.tool, "nodetrust") }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(p string) string { return filepath.Join(w.host, p) }

func (w *world) write(p, data string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(p)), 0o755))
	w.must(os.WriteFile(w.path(p), []byte(data), 0o644))
}

func (w *world) read(p string) string {
	b, err := os.ReadFile(w.path(p))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func (w *world) absent(p string) {
	w.t.Helper()
	if _, err := os.Lstat(w.path(p)); !errors.Is(err, os.ErrNotExist) {
		w.t.Errorf("%s is there (%v)", p, err)
	}
}

// put puts a file into the tool's directory in one step.
func (w *world) put(name string, data []byte) {
	w.t.Helper()
	p := filepath.Join(w.tool, name)
	w.must(os.WriteFile(p+".new", data, 0o644))
	w.must(os.Rename(p+".new", p))
}

func (w *world) lints(loads bool) {
	w.t.Helper()
	why := ""
	if !loads {
		why = `Unknown policy requirement type "bogus"`
	}
	b, err := json.Marshal(map[string]any{
		"findings": []any{},
		"readers":  []any{map[string]any{"reader": "current", "loads": loads, "error": why}},
	})
	w.must(err)
	w.put("lint.json", b)
	w.put("lint.exit", []byte("0"))
}

func canary(expect, got verdict.Answer, reason verdict.Reason, runtime string) judge.Canary {
	image := acceptImage
	if expect == verdict.Refuse {
		image = refuseImage
	}
	c := judge.Canary{
		Verdict: verdict.Verdict{Image: image, Outcome: verdict.Outcome{Answer: got, Reason: reason}}, Expect: expect,
		Runtime: runtime,
	}
	c.OK = judge.Right(c)
	return c
}

func good(runtime string) []judge.Canary {
	return []judge.Canary{canary("accept", "accept", "", runtime), canary("refuse", "refuse", verdict.WrongKey, runtime)}
}

func bad(answer verdict.Answer, reason verdict.Reason) []judge.Canary {
	return []judge.Canary{canary("accept", answer, reason, "cri"), good("cri")[1]}
}

func (w *world) answers(cs []judge.Canary) {
	w.t.Helper()
	state, reason, message := judge.Judge(judge.Input{Canaries: cs})
	b, err := json.Marshal(judge.Probe{
		State: state, Reason: reason, Message: message, Canaries: cs,
		Keys: []judge.Key{{Fingerprint: "AB", Expires: 1900000000}},
	})
	w.must(err)
	w.put("probe.json", append(b, '\n'))
	w.put("probe.exit", []byte("0"))
}

func policy(extra string) string {
	return `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"lab.example.com":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"` + keyFile + `"}]` + extra + `}}}`
}

const lab = "docker:\n  lab.example.com:\n    lookaside: https://lab.example.com/sigstore\n"

func files(extra ...string) map[string]string {
	out := map[string]string{policyFile: policy(""), labFile: lab}
	for i := 0; i+1 < len(extra); i += 2 {
		out[extra[i]] = extra[i+1]
	}
	return out
}

var canaries = []trust.Canary{{Image: acceptImage, Expect: "accept"}, {Image: refuseImage, Expect: "refuse"}}

// desire writes a desired state, canaries first, and returns its digest.
func (w *world) desire(files map[string]string, canaries []trust.Canary) string {
	w.t.Helper()
	var list []any
	var set trust.FileSet
	for p, data := range files {
		list = append(list, map[string]any{
			"path": p, "mode": 0o644, "overwrite": true,
			"contents": map[string]string{"source": "data:;base64," + base64.StdEncoding.EncodeToString([]byte(data))},
		})
		set = append(set, trust.File{Path: p, Mode: 0o644, Data: []byte(data)})
	}
	b, err := json.Marshal(map[string]any{
		"ignition": map[string]string{"version": "3.4.0"},
		"storage":  map[string]any{"files": list},
	})
	w.must(err)
	c, err := json.Marshal(canaries)
	w.must(err)
	if canaries == nil {
		c = []byte("[]")
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"canaries.json", c}, {"desired.ign", b}} {
		tmp := filepath.Join(w.dir, f.name)
		w.must(os.WriteFile(tmp, f.data, 0o644))
		w.must(os.Rename(tmp, filepath.Join(w.desired, f.name)))
	}
	return set.Digest()
}

func (w *world) options(change ...func(*Options)) Options {
	o := Options{
		HostRoot: w.host, Desired: w.desired, NodeName: "node1",
		Child: child.New(w.script()), CRISocket: "/run/crio/crio.sock", Runtime: "auto",
		// Long: the tests are about events, not about waiting.
		Resync: time.Hour, ProbeInterval: time.Hour, ContestedAfter: 10,
		Log: slog.New(slog.NewTextHandler(&logWriter{t: w.t}, nil)), Metrics: NewMetrics(),
		Report: func(s Status) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.statuses = append(w.statuses, s)
		},
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

type logWriter struct{ t *testing.T }

func (l *logWriter) Write(b []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

func (w *world) start(change ...func(*Options)) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.done = cancel, make(chan struct{})
	o := w.options(change...)
	go func() {
		defer close(w.done)
		w.last, w.err = Run(ctx, o)
	}()
}

func (w *world) stop() {
	if w.cancel == nil {
		return
	}
	w.cancel()
	<-w.done
	w.cancel = nil
}

func (w *world) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.statuses)
}

func (w *world) since(mark int) []Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.statuses[mark:])
}

// await waits until the agent has reported state and reason after mark.
func (w *world) await(mark int, state judge.State, reason string) Status {
	w.t.Helper()
	return w.awaitOne(mark, fmt.Sprintf("%s/%s", state, reason), func(s Status) bool {
		return s.State == state && (reason == "" || s.Reason == reason)
	})
}

// awaitOne waits until the agent has reported a status after mark that is the one, and returns the first.
func (w *world) awaitOne(mark int, what string, is func(Status) bool) Status {
	w.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		for _, s := range w.since(mark) {
			if is(s) {
				return s
			}
		}
		select {
		case <-w.done:
			w.t.Fatalf("the agent ended: %v", w.err)
		default:
		}
	}
	for _, s := range w.since(mark) {
		w.t.Logf("%s %s: %s", s.State, s.Reason, s.Message)
	}
	w.t.Fatalf("no %s", what)
	return Status{}
}

func (w *world) never(mark int, states ...judge.State) {
	w.t.Helper()
	for _, s := range w.since(mark) {
		if slices.Contains(states, s.State) {
			w.t.Errorf("state was %s/%s: %s", s.State, s.Reason, s.Message)
		}
	}
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (w *world) calls() []string {
	b, _ := os.ReadFile(filepath.Join(w.tool, "calls"))
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// enforced starts an agent and waits until its desired state is confirmed.
func (w *world) enforced(change ...func(*Options)) string {
	w.t.Helper()
	d := w.desire(files(), canaries)
	w.start(change...)
	s := w.await(0, judge.Enforced, "")
	if s.Desired != d || s.Observed != d || len(s.Differences) != 0 || len(s.Canaries) != 2 || s.Node != "node1" {
		w.t.Fatalf("status %+v", s)
	}
	return d
}

func TestApply(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	if w.read(policyFile) != policy("") || w.read(labFile) != lab {
		t.Error("the files are not as desired")
	}
	calls := w.calls()
	if len(calls) != 2 || !strings.HasPrefix(calls[0], "lint --root ") ||
		!strings.HasPrefix(calls[1], "probe --canaries - --announce --keep-accepted --root "+w.host+
			" --cri-socket /run/crio/crio.sock --runtime auto -o json") {
		t.Errorf("calls %q", calls)
	}
	var got []trust.Canary
	b, err := os.ReadFile(filepath.Join(w.tool, "stdin"))
	w.must(err)
	if w.must(json.Unmarshal(b, &got)); !slices.Equal(got, canaries) {
		t.Errorf("the child was given %s", b)
	}
	w.stop()
	if calls = w.calls(); calls[len(calls)-1] != "probe --remove --cri-socket /run/crio/crio.sock --runtime auto --owned "+
		acceptImage {
		t.Errorf("at the end: %q", calls)
	}
	for p, mode := range map[string]os.FileMode{
		"/var/lib/nodetrust": 0o700, "/var/lib/nodetrust/state.json": 0o600,
		"/var/lib/nodetrust/lock": 0o600,
	} {
		if info, err := os.Stat(w.path(p)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", p, info, err)
		}
	}
}

func TestHealAndBack(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	for _, tt := range []struct {
		name, path, kind string
		do               func() error
	}{
		{"overwritten", policyFile, "content", func() error { return os.WriteFile(w.path(policyFile), []byte("{}"), 0o644) }},
		{"deleted", policyFile, "missing", func() error { return os.Remove(w.path(policyFile)) }},
		{"mode", policyFile, "mode", func() error { return os.Chmod(w.path(policyFile), 0o666) }},
		{"symlink", policyFile, "type", func() error {
			return errors.Join(os.Symlink("/etc/passwd", w.path(policyFile)+".new"),
				os.Rename(w.path(policyFile)+".new", w.path(policyFile)))
		}},
		// The agent may be faster than the second step.
		{"directory", policyFile, "", func() error {
			if err := os.Remove(w.path(policyFile)); err != nil {
				return err
			}
			if err := os.Mkdir(w.path(policyFile), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
			return nil
		}},
		{"emptied", labFile, "content", func() error { return os.Truncate(w.path(labFile), 0) }},
		{"directory replaced", labFile, "", func() error {
			return errors.Join(os.Mkdir(w.path("/etc/new"), 0o755), os.Rename(w.path("/etc/containers"), w.path("/etc/old")),
				swap(w.path("/etc/new"), w.path("/etc/containers")))
		}},
		{"and again", policyFile, "content", func() error { return os.WriteFile(w.path(policyFile), []byte("{ }"), 0o644) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mark := w.mark()
			w.must(tt.do())
			// Not just the first drift: that of the last case may be told late.
			w.awaitOne(mark, "drift of kind "+tt.kind, func(s Status) bool {
				return s.State == judge.Drifted && slices.ContainsFunc(s.Differences, func(d judge.Difference) bool {
					return tt.kind == "" || d.Path == tt.path && string(d.Kind) == tt.kind
				})
			})
			w.await(mark, judge.Enforced, "")
			w.until("files as they were", func() bool {
				info, err := os.Lstat(w.path(policyFile))
				return err == nil && info.Mode() == 0o644 && w.read(policyFile) == policy("") && w.read(labFile) == lab
			})
			w.never(mark, judge.Contested, judge.Blocked, judge.RolledBack)
		})
	}
}

// swap renames a to b. The agent may have made b meanwhile: then they change places.
func swap(a, b string) error {
	err := os.Rename(a, b)
	if errors.Is(err, os.ErrExist) {
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	}
	return err
}

func TestConfirmedSetIsHealedWithoutTheChild(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	w.stop()
	w.must(os.Remove(w.script()))
	w.must(os.Remove(w.path(policyFile)))
	mark := w.mark()
	w.start()
	w.await(mark, judge.Unknown, judge.ReasonProbeFailed)
	if w.read(policyFile) != policy("") {
		t.Error("not healed")
	}
}

func TestLastGoodIsKeptWithoutDesired(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	w.stop()
	w.must(os.WriteFile(filepath.Join(w.desired, "desired.ign"), []byte("{"), 0o644))
	w.must(os.Remove(w.path(policyFile)))
	mark := w.mark()
	w.start()
	w.await(mark, judge.Unknown, judge.ReasonDesiredInvalid)
	w.until("healed", func() bool { return w.read(policyFile) == policy("") })
	// The other way round, too: what was good goes on being healed.
	mark = w.mark()
	w.desire(files(), canaries)
	w.await(mark, judge.Enforced, "")
	mark = w.mark()
	w.must(os.Remove(filepath.Join(w.desired, "desired.ign")))
	w.await(mark, judge.Unknown, judge.ReasonDesiredInvalid)
	w.must(os.WriteFile(w.path(policyFile), []byte("{}"), 0o644))
	w.until("healed", func() bool { return w.read(policyFile) == policy("") })
}

func TestKeyMissing(t *testing.T) {
	w := newWorld(t)
	w.must(os.Remove(w.path(keyFile)))
	w.desire(files(), canaries)
	w.start()
	s := w.await(0, judge.Unknown, "KeyMissing")
	if !strings.Contains(s.Message, keyFile) {
		t.Errorf("message %q", s.Message)
	}
	w.absent("/etc/containers")
	w.write(keyFile, "key")
	w.await(0, judge.Enforced, "")

	mark := w.mark()
	w.must(os.Remove(w.path(keyFile)))
	s = w.await(mark, judge.Unknown, "KeyMissing")
	if len(s.Differences) != 1 || s.Differences[0].Kind != judge.KeyMissing {
		t.Errorf("differences %v", s.Differences)
	}
	mark = w.mark()
	w.write(keyFile, "key")
	w.await(mark, judge.Enforced, "")
}

func TestSetThatDoesNotLoad(t *testing.T) {
	w := newWorld(t)
	w.lints(false)
	w.desire(files(), canaries)
	w.start()
	w.await(0, judge.Unknown, judge.ReasonDoesNotLoad)
	w.absent("/etc/containers")

	w.lints(true)
	first := w.desire(files(policyFile, policy(`,"one":[{"type":"reject"}]`)), canaries)
	w.await(0, judge.Enforced, "")
	before := w.read(policyFile)
	w.lints(false)
	mark := w.mark()
	second := w.desire(files(policyFile, policy(`,"two":[{"type":"reject"}]`)), canaries)
	s := w.await(mark, judge.RolledBack, judge.ReasonDoesNotLoad)
	if s.Desired != second || s.Observed != first || !strings.Contains(s.Message, "bogus") {
		t.Errorf("status %+v", s)
	}
	if w.read(policyFile) != before {
		t.Error("the set was written")
	}
	// A new agent does not try it again, and heals the last good one.
	w.stop()
	w.lints(true)
	w.must(os.Remove(w.path(policyFile)))
	mark = w.mark()
	w.start()
	w.await(mark, judge.RolledBack, judge.ReasonDoesNotLoad)
	w.until("healed", func() bool { return w.read(policyFile) == before })
	w.never(mark, judge.Enforced)
	mark = w.mark()
	w.desire(files(policyFile, policy(`,"one":[{"type":"reject"}]`)), canaries)
	w.await(mark, judge.Enforced, "")
}

func TestLoadUnknown(t *testing.T) {
	w := newWorld(t)
	w.put("lint.exit", []byte("1"))
	w.desire(files(), canaries)
	w.start(func(o *Options) { o.Resync = 300 * time.Millisecond })
	w.await(0, judge.Unknown, judge.ReasonLoadUnknown)
	w.absent("/etc/containers")
	w.lints(true)
	w.await(0, judge.Enforced, "")
	w.never(0, judge.RolledBack)
}

func TestRollBack(t *testing.T) {
	w := newWorld(t)
	first := w.enforced()
	w.answers(bad("refuse", verdict.NoSignature))
	mark := w.mark()
	const extra = "/etc/containers/registries.d/extra.yaml"
	second := w.desire(files(extra, "docker: {extra.example.com: {}}"), canaries)
	s := w.await(mark, judge.RolledBack, judge.ReasonAcceptCanaryRefused)
	if s.Desired != second || s.Observed != first || !strings.Contains(s.Message, acceptImage) {
		t.Errorf("status %+v", s)
	}
	w.absent(extra)
	w.never(mark, judge.Enforced)
}

func TestNotOnTrial(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []judge.Canary
		state   judge.State
	}{
		{"unknown", bad("unknown", verdict.RegistryUnreachable), judge.Unknown},
		{"forged", bad("refuse", verdict.ManifestForged), judge.Blocked},
		{"not enforced", []judge.Canary{good("cri")[0], canary("refuse", "accept", "", "cri")}, judge.NotEnforced},
		{"no runtime", good("verify"), judge.Unknown},
		{
			"only verify refuses", append(good("cri"), canary("accept", "refuse", verdict.NoSignature, "verify")),
			judge.Enforced,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.enforced()
			w.answers(tt.answers)
			mark := w.mark()
			second := w.desire(files("/etc/containers/registries.d/extra.yaml", "docker: {extra.example.com: {}}"), canaries)
			w.until("the state under the new set", func() bool {
				return slices.ContainsFunc(w.since(mark), func(s Status) bool {
					return s.State == tt.state && s.Observed == second && len(s.Canaries) > 0
				})
			})
			w.never(mark, judge.RolledBack)
			// Only later it turns out to refuse: it is still on trial, unless it was confirmed.
			if tt.state != judge.Enforced {
				w.answers(bad("refuse", verdict.WrongKey))
				w.must(os.Chmod(w.path(policyFile), 0o600)) // a heal asks for canaries
				w.await(mark, judge.RolledBack, "")
			}
		})
	}
}

func TestTrialGoesOnAfterARestart(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	w.answers(bad("unknown", verdict.RegistryUnreachable))
	mark := w.mark()
	const extra = "/etc/containers/registries.d/extra.yaml"
	second := w.desire(files(extra, "docker: {extra.example.com: {}}"), canaries)
	w.await(mark, judge.Unknown, "RegistryUnreachable")
	w.stop()
	before := w.tree()
	mark = w.mark()
	w.start()
	if s := w.await(mark, judge.Unknown, "RegistryUnreachable"); s.Observed != second {
		t.Errorf("status %+v", s)
	}
	if w.tree() != before {
		t.Error("the new set was taken back and written again")
	}
	w.never(mark, judge.Drifted)
	w.answers(bad("refuse", verdict.NoSignature))
	w.must(os.Chmod(w.path(policyFile), 0o600))
	w.await(mark, judge.RolledBack, "")
	w.absent(extra)
}

func TestFirstSetIsNotRolledBack(t *testing.T) {
	w := newWorld(t)
	w.answers(bad("refuse", verdict.NoSignature))
	w.desire(files(), canaries)
	w.start()
	w.await(0, judge.Blocked, "NoSignature")
	if w.read(policyFile) != policy("") {
		t.Error("taken back without anything to go back to")
	}
	mark := w.mark()
	w.answers(good("cri"))
	w.must(os.Chmod(w.path(policyFile), 0o600))
	w.await(mark, judge.Enforced, "")
}

func TestNoCanary(t *testing.T) {
	w := newWorld(t)
	w.desire(files(), nil)
	w.start()
	w.await(0, judge.Unknown, judge.ReasonNoCanary)
	if w.read(policyFile) != policy("") {
		t.Error("not written")
	}
	mark := w.mark()
	w.must(os.Remove(w.path(policyFile)))
	w.await(mark, judge.Drifted, "Missing")
	w.await(mark, judge.Unknown, judge.ReasonNoCanary)
	mark = w.mark()
	w.desire(files(), canaries)
	w.await(mark, judge.Enforced, "")
}

// tree is every path of the host with its content.
func (w *world) tree() string {
	var b strings.Builder
	w.must(filepath.WalkDir(w.host, func(p string, d os.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(p, w.path("/var")) {
			return err
		}
		info, err := d.Info()
		fmt.Fprintf(&b, "%s %s %s\n", p, info.Mode(), info.ModTime())
		return err
	}))
	return b.String()
}

func TestMCONodeIsNeverWritten(t *testing.T) {
	w := newWorld(t)
	w.write(policyFile, `{"default":[{"type":"insecureAcceptAnything"}]}`)
	w.write("/etc/machine-config-daemon/currentconfig", `{"spec":{"config":{"storage":{"files":[
		{"path":"/etc/containers/policy.json","contents":{"source":"data:,%7B%22default%22%3A%5B%7B%22type%22%3A%22insecureAcceptAnything%22%7D%5D%7D"}}]}}}}`)
	mc := map[string]any{
		"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig",
		"metadata": map[string]any{
			"name":   "51-worker-corp",
			"labels": map[string]string{"machineconfiguration.openshift.io/role": "worker"},
		},
	}
	w.desire(files(), canaries)
	ign, err := os.ReadFile(filepath.Join(w.desired, "desired.ign"))
	w.must(err)
	mc["spec"] = map[string]any{"config": json.RawMessage(ign)}
	b, err := json.Marshal(mc)
	w.must(err)
	file := filepath.Join(w.desired, "mc.json")
	w.must(os.WriteFile(file, b, 0o644))

	w.start(func(o *Options) { o.Desired = file })
	s := w.await(0, judge.Shadowed, judge.ReasonOtherMachineConfig)
	if !strings.Contains(s.Message, "51-worker-corp") || !strings.Contains(s.Message, policyFile) {
		t.Errorf("message %q", s.Message)
	}
	mark := w.mark()
	w.write(policyFile, `{"default":[{"type":"reject"}]}`)
	s = w.await(mark, judge.Drifted, "")
	if !strings.Contains(s.Message, "apply MachineConfig 51-worker-corp") {
		t.Errorf("message %q", s.Message)
	}
	w.write(policyFile, policy(""))
	w.write(labFile, lab)
	before := w.tree()
	w.await(mark, judge.Unknown, judge.ReasonNoCanary)
	w.stop()
	if w.tree() != before {
		t.Errorf("the host has other files: before\n%safter\n%s", before, w.tree())
	}
}

func TestMCONodeKnownFromTheAPI(t *testing.T) {
	w := newWorld(t)
	w.desire(files(), canaries)
	mco := make(chan bool, 1)
	mco <- true
	close(mco)
	w.start(func(o *Options) { o.MCO = mco })
	w.await(0, judge.Drifted, "Missing")
	w.absent("/etc/containers")
}

func TestObserveWritesNothing(t *testing.T) {
	w := newWorld(t)
	w.desire(files(), canaries)
	before := w.tree()
	w.start(func(o *Options) { o.Observe = true })
	w.await(0, judge.Drifted, "Missing")
	w.until("a probe", func() bool {
		return slices.ContainsFunc(w.since(0), func(s Status) bool { return len(s.Canaries) == 2 })
	})
	w.stop()
	if after := w.tree(); after != before {
		t.Errorf("before\n%safter\n%s", before, after)
	}
	w.absent("/var")
	if calls := w.calls(); !strings.Contains(calls[len(calls)-1], "--remove") {
		t.Errorf("calls %q", calls)
	}
}

func TestDuplicateHoldsTheSetBack(t *testing.T) {
	w := newWorld(t)
	const other = "/etc/containers/registries.d/other.yaml"
	w.write(other, lab)
	w.desire(files(), canaries)
	w.start()
	s := w.await(0, judge.Drifted, "Duplicate")
	if !strings.Contains(s.Message, other) {
		t.Errorf("message %q", s.Message)
	}
	w.absent(labFile)
	w.absent(policyFile)
	w.must(os.Remove(w.path(other)))
	w.await(0, judge.Enforced, "")

	mark := w.mark()
	w.write(other, lab)
	s = w.await(mark, judge.Drifted, "Duplicate")
	if len(s.Differences) != 1 || s.Differences[0].Path != other {
		t.Errorf("differences %v", s.Differences)
	}
	// Ours is gone: to write it beside the other would fail every pull.
	w.must(os.Remove(w.path(labFile)))
	w.until("ours named as missing", func() bool {
		return slices.ContainsFunc(w.since(mark), func(s Status) bool {
			return s.State == judge.Drifted && len(s.Differences) == 2 && s.Differences[1].Kind == judge.Missing
		})
	})
	w.absent(labFile)
	mark = w.mark()
	w.must(os.Remove(w.path(other)))
	w.await(mark, judge.Enforced, "")
	if w.read(labFile) != lab {
		t.Error("not healed")
	}
}

func TestMaskIsReported(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	mark := w.mark()
	w.answers([]judge.Canary{good("cri")[0], canary("refuse", "accept", "", "cri")})
	w.write("/root/.config/containers/policy.json", "{}")
	w.await(mark, judge.Drifted, "Masks")
	w.until("a round under the mask", func() bool {
		return slices.ContainsFunc(w.since(mark), func(s Status) bool {
			return s.State == judge.Drifted &&
				len(s.Canaries) == 2 && !s.Canaries[1].OK
		})
	})
	mark = w.mark()
	w.answers(good("cri"))
	w.must(os.RemoveAll(w.path("/root/.config")))
	w.await(mark, judge.Enforced, "")
	// What was pulled under the mask says nothing of the files without it.
	w.never(mark, judge.NotEnforced)
}

func TestScopeMovesToAnotherFile(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	mark := w.mark()
	const moved = "/etc/containers/registries.d/moved.yaml"
	d := w.desire(map[string]string{policyFile: policy(""), moved: lab}, canaries)
	if s := w.await(mark, judge.Enforced, ""); s.Observed != d {
		t.Errorf("status %+v", s)
	}
	w.absent(labFile)
	w.never(mark, judge.Drifted)
}

func TestContested(t *testing.T) {
	w := newWorld(t)
	w.enforced(func(o *Options) { o.ContestedAfter = 3 })
	mark := w.mark()
	var third time.Time
	for range 3 {
		third = time.Now()
		// In one step, so that it is never seen half written.
		w.must(os.WriteFile(w.path(policyFile)+".new", []byte("{}"), 0o644))
		w.must(os.Rename(w.path(policyFile)+".new", w.path(policyFile)))
		w.until("healed", func() bool { return w.read(policyFile) == policy("") })
	}
	s := w.await(mark, judge.Contested, "")
	if !strings.Contains(s.Message, policyFile) {
		t.Errorf("message %q", s.Message)
	}
	w.must(os.WriteFile(w.path(policyFile), []byte("{}"), 0o644))
	w.until("healed", func() bool { return w.read(policyFile) == policy("") })
	// The pause began when the agent saw the third.
	if d := time.Since(third); d < minBackoff/2 {
		t.Errorf("healed once more within %v", d)
	}
}

func TestOneAgentAtATime(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	if _, err := Run(t.Context(), w.options()); !errors.Is(err, errLocked) {
		t.Errorf("the second: %v", err)
	}
}

func TestDamagedMemory(t *testing.T) {
	for name, damage := range map[string]func(string) string{
		"cut":     func(s string) string { return s[:len(s)/2] },
		"changed": func(s string) string { return strings.Replace(s, `"mode":420`, `"mode":438`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.enforced()
			w.stop()
			w.must(os.WriteFile(w.path(stateFile), []byte(damage(w.read(stateFile))), 0o600))
			mark, calls := w.mark(), len(w.calls())
			w.start()
			w.await(mark, judge.Enforced, "")
			if got := w.calls()[calls:]; !strings.HasPrefix(got[0], "lint") {
				t.Errorf("a set without proof was taken for confirmed: %q", got)
			}
		})
	}
}

func TestKilledRoundIsCleanedUp(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	w.put("hang", nil)
	w.must(os.Chmod(w.path(policyFile), 0o600))
	w.until("a hanging round", func() bool { return len(w.calls()) == 3 })
	start := time.Now()
	w.stop()
	if d := time.Since(start); d > probeTime/2 {
		t.Errorf("took %v to stop", d)
	}
	calls := w.calls()
	if !slices.ContainsFunc(calls[3:], func(c string) bool {
		return strings.HasPrefix(c, "probe --remove ") && strings.HasSuffix(c, "--owned "+acceptImage)
	}) {
		t.Errorf("calls %q", calls)
	}
	if w.last.State == judge.Enforced {
		t.Error("the last word is Enforced while nobody knows")
	}
}

func TestHealingDoesNotWaitForTheProbe(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	w.put("hang", nil)
	w.must(os.Chmod(w.path(policyFile), 0o600))
	w.until("a hanging round", func() bool { return len(w.calls()) == 3 })
	w.must(os.WriteFile(w.path(policyFile), []byte("{}"), 0o644))
	w.until("healed", func() bool { return w.read(policyFile) == policy("") })
	// The round began before: its answer counts for nothing, another one follows.
	mark := w.mark()
	w.must(os.Remove(filepath.Join(w.tool, "hang")))
	w.await(mark, judge.Enforced, "")
	if n := len(w.calls()); n != 4 {
		t.Errorf("%d calls: %q", n, w.calls())
	}
}

func TestProbeFails(t *testing.T) {
	w := newWorld(t)
	w.enforced(func(o *Options) { o.ProbeInterval = 200 * time.Millisecond })
	for name, break_ := range map[string]func(){
		"exit status": func() { w.put("probe.exit", []byte("1")) },
		"no JSON":     func() { w.put("probe.json", []byte("oops")) },
		"nothing":     func() { w.put("probe.json", nil) },
	} {
		mark := w.mark()
		break_()
		w.await(mark, judge.Unknown, judge.ReasonProbeFailed)
		w.never(mark, judge.Blocked, judge.NotEnforced)
		mark = w.mark()
		w.answers(good("cri"))
		w.await(mark, judge.Enforced, "")
		_ = name
	}
}

// TestForgedAnswers: a child that was taken over, or one of another version, says what it likes. What was not asked
// for is neither believed nor kept.
func TestForgedAnswers(t *testing.T) {
	other := "evil.example.com/x@sha256:" + strings.Repeat("c", 64)
	swapped := canary("accept", "accept", "", "cri")
	swapped.Image = refuseImage
	foreign := canary("refuse", "refuse", verdict.WrongKey, "cri")
	foreign.Image = other
	for _, tt := range []struct {
		name    string
		answers []judge.Canary
	}{
		{"another image", []judge.Canary{good("cri")[0], foreign}},
		{"another expectation", []judge.Canary{good("cri")[0], swapped, good("cri")[1]}},
		{"another runtime", append(good("cri"), canary("accept", "accept", "", "docker\nx 1"))},
		{"a fourth answer", append(good("cri"), canary("accept", "perhaps", "", "cri"))},
		{"one of two through podman", append(good("cri"), good("podman")[0])},
		{"one left out", good("cri")[:1]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.answers(tt.answers)
			w.desire(files(), canaries)
			w.start()
			s := w.await(0, judge.Unknown, judge.ReasonProbeFailed)
			if len(s.Canaries) != 0 {
				t.Errorf("kept %v", s.Canaries)
			}
			w.never(0, judge.Enforced, judge.NotEnforced, judge.Blocked)
		})
	}
	t.Run("images to be removed", func(t *testing.T) {
		w := newWorld(t)
		w.must(os.WriteFile(w.script(), []byte(strings.Replace(fmt.Sprintf(nodetrust, w.tool), `{"absent":["`,
			`{"absent":["`+other+`","`, 1)), 0o755))
		w.enforced()
		w.stop()
		calls := w.calls()
		if last := calls[len(calls)-1]; !strings.HasSuffix(last, "--owned "+acceptImage) || strings.Contains(last, "evil") {
			t.Errorf("at the end: %q", last)
		}
	})
	t.Run("a long reason", func(t *testing.T) {
		w := newWorld(t)
		w.put("lint.json", fmt.Appendf(nil, `{"readers":[{"reader":"current","loads":false,"error":%q}]}`,
			strings.Repeat("x", 500<<10)))
		w.desire(files(), canaries)
		w.start()
		w.await(0, judge.Unknown, judge.ReasonDoesNotLoad)
		if n := len(w.read(stateFile)); n > 4<<10 {
			t.Errorf("%d bytes were remembered", n)
		}
	})
}

// TestRuntimeAdvisory: what a runtime says that it is decides the reason of Enforced, and nothing else. The child's
// word on holes counts for nothing, and its words on names and versions as far as they could be such.
func TestRuntimeAdvisory(t *testing.T) {
	hole := []judge.Runtime{{Name: "cri-o", Version: "1.34.0", Advisories: []string{"forged-schema1"}, Fixed: "5.42.1"}}
	for _, tt := range []struct {
		name   string
		told   any
		reason string
		says   string
	}{
		{
			"a known hole",
			[]any{map[string]any{
				"name": "cri-o", "version": "1.34.0",
				"advisories": []string{"forged-schema1"},
			}},
			"RuntimeAdvisory",
			"; by its version number cri-o 1.34.0 has forged-schema1, fixed in image library 5.42.1",
		},
		{
			"a hole that is kept back",
			[]any{map[string]any{"name": "cri-o", "version": "1.34.0"}},
			"RuntimeAdvisory",
			"forged-schema1",
		},
		{"a made-up hole", []any{map[string]any{
			"name": "containerd", "version": "1.7.0",
			"advisories": []string{"moon-dust"},
		}}, "", ""},
		{"a made-up version", []any{map[string]any{
			"name": "cri-o", "version": "1.34.0\n\u001b[31m",
			"advisories": []string{"forged-schema1"},
		}}, "", ""},
		{"a made-up name", []any{map[string]any{"name": "cri-o\"} 1\nx{", "version": "1.34.0"}}, "", ""},
		{
			"the same twice",
			[]any{hole[0], hole[0]},
			"RuntimeAdvisory",
			"1.34.0 has forged-schema1, fixed in image library 5.42.1",
		},
		{"more than there are", []any{
			map[string]any{"name": "a"},
			map[string]any{"name": "b"},
			map[string]any{"name": "c"},
			map[string]any{"name": "d"},
			hole[0],
		}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			b, err := json.Marshal(map[string]any{"canaries": good("cri"), "runtimes": tt.told})
			w.must(err)
			w.put("probe.json", b)
			w.desire(files(), canaries)
			m := NewMetrics()
			file := filepath.Join(w.dir, "status.json")
			w.start(func(o *Options) { o.Metrics, o.StatusFile = m, file })
			s := w.await(0, judge.Enforced, "")
			if s.Reason != tt.reason || !strings.Contains(s.Message, tt.says) || strings.Count(s.Message, "cri-o") > 1 {
				t.Errorf("%s: %s, want %s: …%s…", s.Reason, s.Message, tt.reason, tt.says)
			}
			metric := strings.Contains(get(t, m, "/metrics"),
				`nodetrust_runtime_advisory{runtime="cri-o",version="1.34.0",advisory="forged-schema1"} 1`+"\n")
			if metric != (tt.reason != "") || strings.Count(get(t, m, "/metrics"), "\nnodetrust_runtime_advisory{") > 1 {
				t.Errorf("metrics:\n%s", get(t, m, "/metrics"))
			}
			w.stop()
			var told Status
			b, err = os.ReadFile(file)
			w.must(err)
			w.must(json.Unmarshal(b, &told))
			if known := slices.ContainsFunc(told.Runtimes,
				func(r judge.Runtime) bool { return len(r.Advisories) > 0 }); known != (tt.reason != "") ||
				len(told.Runtimes) > maxRuntimes {
				t.Errorf("status file: %+v", told.Runtimes)
			}
		})
	}
}

// TestRuntimeAdvisoryEnds with the hole: the state stays, the reason goes.
func TestRuntimeAdvisoryEnds(t *testing.T) {
	w := newWorld(t)
	tell := func(version string) {
		b, err := json.Marshal(judge.Probe{
			Canaries: good("cri"),
			Runtimes: []judge.Runtime{{Name: "containerd", Version: version}, {Name: "cri-o", Version: version}},
		})
		w.must(err)
		w.put("probe.json", b)
	}
	tell("1.34.0")
	w.enforced(func(o *Options) { o.ProbeInterval = 200 * time.Millisecond })
	mark := w.mark()
	w.answers(append(good("cri"), good("verify")...))
	if s := w.awaitOne(mark, "a round without versions",
		func(s Status) bool { return len(s.Canaries) == 4 }); s.Reason != judge.ReasonRuntimeAdvisory {
		t.Errorf("%s (%s): %s", s.State, s.Reason, s.Message)
	}
	mark = w.mark()
	tell("unknown")
	s := w.awaitOne(mark, "Enforced without a reason",
		func(s Status) bool { return s.State == judge.Enforced && s.Reason == "" })
	if strings.Contains(s.Message, "version number") {
		t.Errorf("message %q", s.Message)
	}
	w.never(mark, judge.Unknown, judge.Drifted)
}

// TestRuntimesAreRemembered: a runtime that doesn't say what it is this time has not become another.
func TestRuntimesAreRemembered(t *testing.T) {
	crio := judge.Runtime{Name: "cri-o", Version: "1.34.0", Advisories: []string{"x"}}
	mended := judge.Runtime{Name: "cri-o", Version: "1.99.0"}
	podman := judge.Runtime{Name: "podman", Version: "4.3.1", Advisories: []string{"x"}}
	silent := judge.Runtime{Name: "podman"}
	both := append(good("cri"), good("podman")...)
	for _, tt := range []struct {
		name               string
		told, before, want []judge.Runtime
		canaries           []judge.Canary
	}{
		{"told", []judge.Runtime{crio}, nil, []judge.Runtime{crio}, good("cri")},
		{"not told", nil, []judge.Runtime{crio}, []judge.Runtime{crio}, good("cri")},
		{
			"one told no version",
			[]judge.Runtime{crio, silent},
			[]judge.Runtime{crio, podman},
			[]judge.Runtime{crio, podman},
			both,
		},
		{"another version", []judge.Runtime{mended}, []judge.Runtime{crio}, []judge.Runtime{mended}, good("cri")},
		{"took no part", nil, []judge.Runtime{crio, podman}, []judge.Runtime{podman}, good("podman")},
		{"never told", []judge.Runtime{silent}, nil, nil, good("podman")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := remembered(tt.told, tt.before, tt.canaries)
			if !slices.EqualFunc(got, tt.want, func(x, y judge.Runtime) bool {
				return x.Name == y.Name &&
					x.Version == y.Version
			}) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestAuthfile(t *testing.T) {
	w := newWorld(t)
	auth := filepath.Join(w.dir, "auth.json")
	w.must(os.WriteFile(auth, []byte(`{"auths":{}}`), 0o600))
	w.enforced(func(o *Options) { o.Authfile = auth })
	if b, err := os.ReadFile(filepath.Join(w.tool, "auth")); err != nil || string(b) != `{"auths":{}}` {
		t.Errorf("the child got %q, %v", b, err)
	}
}

func TestPool(t *testing.T) {
	w := newWorld(t)
	w.desire(files(), canaries)
	w.start(func(o *Options) { o.Pool = "worker" })
	w.await(0, judge.Enforced, "") // a bare Ignition config is for any pool
}

func TestOnce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []judge.Canary
		want    judge.State
	}{
		{"enforced", good("cri"), judge.Enforced},
		{"blocked", bad("refuse", verdict.NoSignature), judge.Blocked},
		{"unknown", bad("unknown", verdict.Timeout), judge.Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.desire(files(), canaries)
			w.answers(tt.answers)
			file := filepath.Join(w.dir, "status.json")
			s, err := Run(t.Context(), w.options(func(o *Options) { o.Once, o.StatusFile = true, file }))
			if err != nil || s.State != tt.want {
				t.Fatalf("%+v, %v", s, err)
			}
			var written Status
			b, err := os.ReadFile(file)
			w.must(err)
			w.must(json.Unmarshal(b, &written))
			if written.State != tt.want || written.Observed != s.Observed {
				t.Errorf("file says %s", b)
			}
		})
	}
	t.Run("no desired state", func(t *testing.T) {
		w := newWorld(t)
		if _, err := Run(t.Context(), w.options(func(o *Options) { o.Once = true })); !errors.Is(err, ErrDesired) {
			t.Errorf("got %v", err)
		}
	})
}

func TestContestTimes(t *testing.T) {
	c := contest{after: 3}
	now := time.Unix(0, 0)
	for i := range 3 {
		if got := c.contested(now); len(got) != 0 {
			t.Fatalf("contested after %d", i)
		}
		c.note("/p", "sha256:a", now)
		now = now.Add(time.Minute)
	}
	if got := c.contested(now); !slices.Equal(got, []string{"/p"}) {
		t.Fatalf("contested: %q", got)
	}
	var waits []time.Duration
	for range 12 {
		c.note("/p", "sha256:a", now)
		d := c.wait("/p", now)
		waits = append(waits, d)
		now = now.Add(d)
		if c.wait("/p", now) != 0 {
			t.Error("healing stopped")
		}
	}
	if waits[0] != 2*time.Second || waits[len(waits)-1] != 5*time.Minute {
		t.Errorf("waits %v", waits)
	}
	if c.wait("/q", now) != 0 {
		t.Error("another file waits too")
	}
	if got := c.contested(now.Add(time.Hour)); len(got) != 0 {
		t.Errorf("still contested after an hour of peace: %q", got)
	}

	c = contest{after: 3}
	for i := range 30 {
		c.note("/p", fmt.Sprint(i), now)
	}
	if got := c.contested(now); len(got) != 0 {
		t.Error("other bytes each time are no contest")
	}
	for range 30 {
		c.note("/q", "same", now)
		now = now.Add(6 * time.Minute)
	}
	if got := c.contested(now); len(got) != 0 {
		t.Error("twice in ten minutes is no contest")
	}
}
