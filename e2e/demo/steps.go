package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

type demo struct {
	out              io.Writer
	dir, root        string
	nodetrust, agent string

	gpg   *fixture.GPG
	key   *fixture.Key
	store *lab.Store

	signed, unsigned               string // by tag
	acceptCanary, canary, elsewise string // by digest; elsewise is the canary's image by tag

	running *exec.Cmd
	exited  chan error
	log     bytes.Buffer // of the agent, read after its end
}

func newDemo(bin string, out io.Writer) (*demo, error) {
	// Short, because a socket's path may have 107 bytes; open to all, because as root the agent's child is nobody special.
	dir, err := os.MkdirTemp("", "nodetrust-demo-")
	if err != nil {
		return nil, err
	}
	d := &demo{out: out, dir: dir, root: filepath.Join(dir, "host")}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, errors.Join(err, d.close())
	}
	for _, p := range []struct {
		name string
		path *string
	}{{"nodetrust", &d.nodetrust}, {"nodetrust-agent", &d.agent}} {
		*p.path = filepath.Join(dir, "bin", p.name)
		b, err := os.ReadFile(filepath.Join(bin, p.name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(*p.path), 0o755)
		}
		if err == nil {
			err = os.WriteFile(*p.path, b, 0o755)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("installing %s (make build): %w", p.name, err), d.close())
		}
	}
	return d, nil
}

// close ends what runs and removes everything, however far the demo came.
func (d *demo) close() error {
	if d.running != nil {
		_ = d.stop(context.Background())
	}
	d.store.Close()
	if d.gpg != nil {
		d.gpg.Close()
	}
	d.endPodman()
	return os.RemoveAll(d.dir)
}

func (d *demo) env() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(d.dir, "home"), "TMPDIR=" + d.dir, "LANG=C.UTF-8"}
}

func (d *demo) serve(context.Context) (err error) {
	if d.gpg, err = fixture.NewGPG(); err != nil {
		return err
	}
	if d.key, err = d.gpg.NewKey("corp", fixture.KeyOptions{}); err != nil {
		return err
	}
	if d.store, err = lab.NewStore(filepath.Join(d.dir, "lookaside")); err != nil {
		return err
	}
	d.say("key        %s (RSA-3072, made by gpg)", d.key.Fingerprint)
	d.say("registry   %s", d.store.Registry.Host)
	d.say("lookaside  %s", d.store.Lookaside.URL())
	return nil
}

func (d *demo) push(context.Context) error {
	for _, i := range []struct {
		name, by    string
		key         *fixture.Key
		tag, digest *string
	}{
		{"app", "signed by corp", d.key, &d.signed, &d.acceptCanary},
		{"unsigned", "not signed", nil, &d.unsigned, new(string)},
		{"canary", "signed by corp", d.key, &d.elsewise, &d.canary},
	} {
		p, err := d.store.Push("team/"+i.name, "v1", i.name, i.key)
		if err != nil {
			return err
		}
		*i.tag, *i.digest = p.ByTag, p.ByDigest
		d.say("%-36s %s…  %s", p.ByTag, p.Digest[:19], i.by)
	}
	return nil
}

func (d *demo) writeConfig(ctx context.Context) error {
	config := fmt.Sprintf(`apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: demo}
spec:
  pools: [worker]
  default: reject
  keys:
  - name: corp
    file: corp.asc
    fingerprints: [%s]
  registries:
  - scope: %s/team
    require:
    - signedBy: [corp]
      identity: matchRepoDigestOrExact
    lookaside: %s
  canaries:
  - image: %s
    expect: accept
  - image: %s
    expect: refuse
`, d.key.Fingerprint, d.store.Registry.Host, d.store.Lookaside.URL(), d.acceptCanary, d.canary)
	d.quote(config)
	if err := errors.Join(
		os.WriteFile(filepath.Join(d.dir, "trust.yaml"), []byte(config), 0o644),
		os.WriteFile(filepath.Join(d.dir, "corp.asc"), d.key.Armored, 0o644),
	); err != nil {
		return err
	}
	_, err := d.cli(ctx, 0, "lint", filepath.Join(d.dir, "trust.yaml"))
	return err
}

func (d *demo) render(ctx context.Context) error {
	config := filepath.Join(d.dir, "trust.yaml")
	first, err := d.cli(ctx, 0, "render", "--to", "machineconfig", config)
	if err != nil {
		return err
	}
	again, err := d.cli(ctx, 0, "render", "--to", "machineconfig", config)
	if err != nil {
		return err
	}
	if first != again {
		return errors.New("the same input gave other bytes")
	}
	if !strings.Contains(first, "51-worker-demo") {
		return errors.New("no MachineConfig 51-worker-demo")
	}
	d.say("MachineConfig 51-worker-demo, %d bytes, both times the same", len(first))
	if err := os.Mkdir(filepath.Dir(d.desiredFile()), 0o755); err != nil {
		return err
	}
	return os.WriteFile(d.desiredFile(), []byte(first), 0o644)
}

// desiredFile and statusFile lie in directories of their own: the agent watches that of the first.
func (d *demo) desiredFile() string { return filepath.Join(d.dir, "desired", "machineconfig.yaml") }
func (d *demo) statusFile() string  { return filepath.Join(d.dir, "run", "status.json") }

func (d *demo) apply(ctx context.Context) error {
	if err := errors.Join(
		os.MkdirAll(filepath.Join(d.root, "etc/containers/registries.d"), 0o755),
		os.MkdirAll(filepath.Join(d.root, "var/lib/containers"), 0o755),
		os.MkdirAll(filepath.Join(d.root, "root"), 0o700),
		os.Mkdir(filepath.Dir(d.statusFile()), 0o755),
		os.WriteFile(filepath.Join(d.root, "etc/containers/registries.conf"),
			fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", d.store.Registry.Host), 0o644),
	); err != nil {
		return err
	}
	d.running = exec.Command(d.agent, "--host-root", d.root, "--desired", d.desiredFile(), "--node-name", "demo",
		"--status-file", d.statusFile(), "--runtime", "verify", "--resync", "2s", "--probe-interval", "2s")
	d.running.Env = d.env()
	d.running.Stdout, d.running.Stderr = &d.log, &d.log
	// Out of the way of a terminal's ^C, which this program answers for both.
	d.running.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	t0 := time.Now()
	if err := d.running.Start(); err != nil {
		return err
	}
	d.exited = make(chan error, 1)
	go func() { d.exited <- d.running.Wait() }()
	if err := poll(ctx, time.Millisecond, func() error {
		select {
		case err := <-d.exited:
			d.exited <- err
			return fmt.Errorf("the agent has ended: %v\n%s", err, &d.log)
		default:
		}
		_, err := os.Stat(filepath.Join(d.root, "etc/containers/policy.json"))
		return err
	}); err != nil {
		return err
	}
	d.say("policy.json is there %d ms after the agent's start", time.Since(t0).Milliseconds())
	return filepath.WalkDir(filepath.Join(d.root, "etc"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		d.say("%s %5d  %s", info.Mode(), info.Size(), strings.TrimPrefix(path, d.root))
		return nil
	})
}

func (d *demo) verify(ctx context.Context) error {
	for _, i := range []struct {
		image   string
		code    int
		verdict string
		reason  string
	}{
		{d.signed, 0, "accept", ""},
		{d.unsigned, 3, "refuse", "NoSignature"},
		{d.canary, 3, "refuse", "WrongKey"},
		{d.elsewise, 0, "accept", ""},
		{d.store.Registry.Host + "/team/absent:v1", 4, "unknown", "ImageNotFound"},
		{d.store.Registry.Host + "/other/thing:v1", 3, "refuse", "RejectedByPolicy"}, // whatever it is
	} {
		text, err := d.cli(ctx, i.code, "verify", "--root", d.root, "-o", "json", i.image)
		if err != nil {
			return err
		}
		var v struct{ Verdict, Reason, Message string }
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return err
		}
		if v.Verdict != i.verdict || v.Reason != i.reason {
			return fmt.Errorf("%s %s, want %s %s", v.Verdict, v.Reason, i.verdict, i.reason)
		}
		d.say("  %s %s (exit status %d)", v.Verdict, v.Reason, i.code)
	}
	d.say("The canary is properly signed: its digest is carved out of the policy, so that refusing it proves enforcement.")
	return nil
}

// podman judges with the files of the host root, in a home and a store of its own.
func (d *demo) podman(ctx context.Context) error {
	if _, err := exec.LookPath("podman"); err != nil {
		d.say("podman is not installed: skipped")
		return nil
	}
	home := filepath.Join(d.dir, "home")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(home, ".config/containers"), 0o700),
		os.MkdirAll(filepath.Join(d.dir, "podman/xdg"), 0o700),
	); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(d.root, "etc/containers/registries.d"),
		filepath.Join(home, ".config/containers/registries.d")); err != nil {
		return err
	}
	if out, err := d.podmanCommand(ctx, "info").CombinedOutput(); err != nil {
		d.say("podman doesn't run for this user: skipped (%s)", lastLine(out))
		return nil
	}
	for _, i := range []struct {
		image  string
		accept bool
	}{{d.signed, true}, {d.unsigned, false}, {d.canary, false}, {d.elsewise, true}} {
		out, err := d.podmanCommand(ctx, "pull", "-q", "--signature-policy",
			filepath.Join(d.root, "etc/containers/policy.json"), i.image).CombinedOutput()
		rejected := bytes.Contains(out, []byte("Source image rejected"))
		switch {
		case i.accept && err == nil:
			d.say("pulls     %s", i.image)
		case !i.accept && err != nil && rejected:
			d.say("refuses   %s", i.image)
		case i.accept && !rejected:
			// The policy was not the obstacle: unpacking without root needs what this user may lack.
			d.say("podman can't store images for this user: skipped (%s)", lastLine(out))
			return nil
		default:
			return fmt.Errorf("podman pull %s: %v: %s", i.image, err, out)
		}
	}
	return nil
}

func (d *demo) podmanCommand(ctx context.Context, args ...string) *exec.Cmd {
	dir := filepath.Join(d.dir, "podman")
	cmd := exec.CommandContext(ctx, "podman", append([]string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--events-backend", "none", "--cgroup-manager", "cgroupfs",
	}, args...)...)
	cmd.Env = append(d.env(), "XDG_RUNTIME_DIR="+filepath.Join(dir, "xdg"),
		"CONTAINERS_REGISTRIES_CONF="+filepath.Join(d.root, "etc/containers/registries.conf"))
	cmd.Dir = d.dir
	return cmd
}

// endPodman ends the process that podman keeps for a user's namespace, and removes what belongs to subordinate users.
func (d *demo) endPodman() {
	dir := filepath.Join(d.dir, "podman")
	if _, err := os.Stat(filepath.Join(dir, "root")); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if os.Geteuid() != 0 {
		_ = d.podmanCommand(ctx, "unshare", "rm", "-rf", filepath.Join(dir, "root")).Run()
	}
	for _, f := range []string{"tmp/pause.pid", "xdg/libpod/tmp/pause.pid"} {
		if b, err := os.ReadFile(filepath.Join(dir, f)); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

func (d *demo) tamper(ctx context.Context) error {
	// Healing is not on trial before the state is known.
	if _, err := d.await(ctx, "Enforced"); err != nil {
		return err
	}
	policy := filepath.Join(d.root, "etc/containers/policy.json")
	want, err := os.ReadFile(policy)
	if err != nil {
		return err
	}
	loose := []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`)
	for _, i := range []struct {
		what string
		do   func() error
	}{
		{"policy.json overwritten: accept anything", func() error { return os.WriteFile(policy, loose, 0o644) }},
		{"policy.json replaced by rename", func() error {
			return errors.Join(os.WriteFile(policy+".new", loose, 0o644), os.Rename(policy+".new", policy))
		}},
		{"policy.json deleted", func() error { return os.Remove(policy) }},
		{"policy.json made writable for all", func() error { return os.Chmod(policy, 0o666) }},
	} {
		if err := i.do(); err != nil {
			return err
		}
		t0 := time.Now()
		if err := poll(ctx, 100*time.Microsecond, func() error {
			info, err := os.Lstat(policy)
			if err != nil {
				return err
			}
			if info.Mode() != 0o644 {
				return fmt.Errorf("mode is %s", info.Mode())
			}
			got, err := os.ReadFile(policy)
			if err != nil {
				return err
			}
			if !bytes.Equal(got, want) {
				return errors.New("content differs")
			}
			return nil
		}); err != nil {
			return fmt.Errorf("%s: not healed: %w", i.what, err)
		}
		d.say("%-42s healed after %.1f ms", i.what, time.Since(t0).Seconds()*1000)
	}
	_, err = d.cli(ctx, 3, "verify", "--root", d.root, d.unsigned)
	return err
}

// await waits until the agent reports state.
func (d *demo) await(ctx context.Context, state string) (s status, err error) {
	err = poll(ctx, 5*time.Millisecond, func() error {
		if s, err = d.readStatus(); err != nil {
			return err
		}
		if s.State != state {
			return fmt.Errorf("state is %s (%s: %s), want %s", s.State, s.Reason, s.Message, state)
		}
		return nil
	})
	return s, err
}

func (d *demo) state(ctx context.Context) error {
	s, err := d.await(ctx, "Enforced")
	if err != nil {
		return err
	}
	if s.Desired != s.Observed {
		return fmt.Errorf("observed %s, desired %s", s.Observed, s.Desired)
	}
	d.showState(s)
	return nil
}

func (d *demo) showState(s status) {
	d.say("state     %s  %s", s.State, s.Reason)
	if s.Message != "" {
		d.say("message   %s", s.Message)
	}
	d.say("desired   %s", s.Desired)
	d.say("observed  %s", s.Observed)
	for _, c := range s.Canaries {
		mark := "WRONG"
		switch {
		case c.OK:
			mark = "right"
		case c.Verdict == "unknown":
			mark = "could not tell"
		}
		d.say("canary    expected %-6s  got %-7s %-20s %s  (%s)", c.Expect, c.Verdict, c.Reason, mark, c.Runtime)
	}
}

func (d *demo) outage(ctx context.Context) error {
	d.store.Lookaside.Stop()
	s, err := d.await(ctx, "Unknown")
	if err != nil {
		return err
	}
	d.showState(s)
	if err := d.store.Lookaside.Start(); err != nil {
		return err
	}
	s, err = d.await(ctx, "Enforced")
	if err != nil {
		return err
	}
	d.say("lookaside back: %s", s.State)
	return nil
}

func (d *demo) stop(context.Context) error {
	if d.running == nil || d.running.Process == nil || d.exited == nil {
		return nil
	}
	cmd := d.running
	d.running = nil
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.exited:
		if err != nil {
			return fmt.Errorf("the agent ended with %w\n%s", err, &d.log)
		}
		return nil
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-d.exited
		return errors.New("the agent had to be killed")
	}
}
