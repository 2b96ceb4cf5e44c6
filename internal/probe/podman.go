package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// podmanUsable reports whether podman uses this machine's configuration: in a container it uses the container's.
func podmanUsable(root string) bool {
	if _, err := exec.LookPath("podman"); err != nil {
		return false
	}
	return !inContainer(root, os.Getenv)
}

func inContainer(root string, getenv func(string) string) bool {
	for _, p := range []string{"run/.containerenv", ".dockerenv"} {
		if _, err := os.Lstat(filepath.Join(root, p)); err == nil {
			return true
		}
	}
	return getenv("container") != "" || getenv("KUBERNETES_SERVICE_HOST") != ""
}

// podman runs pulls with all state in a directory of its own: the node's store is neither read nor written.
type podman struct {
	dir   string
	flags []string
	env   []string
}

func newPodman(o Options) (*podman, error) {
	flags, err := pullFlags(o)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nodetrust-podman-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for podman: %w", err)
	}
	env := o.Environ
	if env == nil {
		env = os.Environ()
	}
	return &podman{dir: dir, flags: flags, env: env}, nil
}

// pullFlags returns the flags of podman pull, with absolute paths: podman runs in another directory.
func pullFlags(o Options) (flags []string, err error) {
	for _, f := range []struct{ name, path string }{{"--authfile", o.Authfile}, {"--cert-dir", o.CertDir}} {
		if f.path == "" {
			continue
		}
		path, err := filepath.Abs(f.path)
		if err != nil {
			return nil, err
		}
		flags = append(flags, f.name, path)
	}
	if o.TLSVerify != nil {
		flags = append(flags, "--tls-verify="+strconv.FormatBool(*o.TLSVerify))
	}
	if o.Platform != "" {
		flags = append(flags, "--platform", o.Platform)
	}
	return flags, nil
}

const maxRunroot = 50

// runroot returns a name of the directory "r" below p.dir, podman's working directory, that is never too long.
func (p *podman) runroot() string {
	if path := filepath.Join(p.dir, "r"); len(path) <= maxRunroot {
		return path
	}
	return "/proc/self/cwd/r"
}

func runPodman(ctx context.Context, canaries []trust.Canary, o Options) ([]judge.Canary, error) {
	p, err := newPodman(o)
	if err != nil {
		return nil, err
	}
	adoptOrphans()
	defer p.close()
	var out []judge.Canary
	for _, canary := range canaries {
		out = append(out, result(canary, Podman, "", p.pull(ctx, canary.Image)))
	}
	return out, nil
}

func (p *podman) pull(ctx context.Context, ref string) verdict.Verdict {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	d := func(name string) string { return filepath.Join(p.dir, name) }
	args := []string{
		"--root", d("s"), "--runroot", p.runroot(), "--tmpdir", d("t"),
		"--network-config-dir", d("n"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
		"pull", "--quiet",
	}
	cmd := exec.CommandContext(ctx, "podman", append(append(args, p.flags...), "docker://"+ref)...)
	cmd.Dir = p.dir
	cmd.Env = p.environ()
	stderr := &tail{max: 64 << 10}
	cmd.Stderr = stderr
	// Without user namespaces for more than one uid, podman leaves children that hold the pipe open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second

	err := cmd.Run()
	switch {
	case err == nil:
		return answer(verdict.Accept, "", "pulled")
	case ctx.Err() != nil:
		return answer(verdict.Unknown, verdict.Timeout, "podman did not finish in time")
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 125 {
		return answer(verdict.Unknown, verdict.RuntimeFailed, "running podman: "+err.Error()+": "+stderr.String())
	}
	return classifyPodman(stderr.String())
}

// environ keeps what selects podman's configuration, and redirects everything that podman writes below p.dir.
func (p *podman) environ() []string {
	env := []string{
		"TMPDIR=" + p.dir, "XDG_RUNTIME_DIR=" + p.dir, "XDG_CACHE_HOME=" + p.dir, "XDG_DATA_HOME=" + p.dir,
		"HOME=" + p.home(), "LC_ALL=C",
	}
	for _, kv := range p.env {
		name, _, _ := strings.Cut(kv, "=")
		switch strings.ToUpper(name) {
		case "PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
			"CONTAINERS_REGISTRIES_CONF", "CONTAINERS_POLICY_JSON", "XDG_CONFIG_HOME":
			env = append(env, kv)
		}
	}
	return env
}

// home returns the caller's home, whose .config/containers masks /etc/containers, or an empty one instead of another
// user's, which a process has after a change of its uid.
func (p *podman) home() string {
	home := ""
	for _, kv := range p.env {
		if v, ok := strings.CutPrefix(kv, "HOME="); ok {
			home = v
		}
	}
	if home == "" && os.Geteuid() == 0 {
		return "/root"
	}
	if fi, err := os.Stat(home); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Geteuid() {
			return home
		}
	}
	return p.dir
}

// close ends what podman left running (rootless, a process that holds its user namespace) and removes all state.
func (p *podman) close() {
	_ = filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case d.IsDir():
			// An image may hold directories that even their owner can't list or empty.
			_ = os.Chmod(path, 0o700)
		case d.Name() == "pause.pid":
			endPause(path)
		}
		return nil
	})
	_ = os.RemoveAll(p.dir)
}

// endPause kills the pause process that the file names, if it is one of ours.
func endPause(path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 2 {
		return
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if name := strings.TrimSpace(string(comm)); err != nil || !strings.HasPrefix(name, "podman") &&
		!strings.HasPrefix(name, "catatonit") {
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return
	}
	// An orphan of podman's: ours since adoptOrphans, unless another subreaper came first.
	var ws syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &ws, 0, nil)
}

type tail struct {
	max int
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - t.max; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.buf.String() }
