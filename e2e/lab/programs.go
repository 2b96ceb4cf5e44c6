package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Programs are the built programs, as absolute paths in a directory that every user of the machine can read: the
// agent's child is nobody special.
type Programs struct {
	Dir string
	// Nodetrust is built with gpgme, Pure without cgo.
	Nodetrust, Pure, Agent string
}

// ModuleRoot is the top of the work tree, found from the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil &&
			strings.HasPrefix(string(b), "module github.com/nodetrust/nodetrust\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not below the work tree of nodetrust")
		}
		dir = parent
	}
}

// BuildPrograms runs `make build build-pure` and copies the results to dir. Tests of other packages may do that at
// the same time, and one that was killed may have left half a program: there is one after the other.
func BuildPrograms(ctx context.Context, dir string) (*Programs, error) {
	root, err := ModuleRoot()
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(cache)
	if err != nil {
		return nil, err
	}
	defer unlock()
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", root, "build", "build-pure")
	cmd.Env = without(os.Environ(), "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	p := &Programs{
		Dir:       dir,
		Nodetrust: filepath.Join(dir, "nodetrust"),
		Pure:      filepath.Join(dir, "nodetrust-pure"),
		Agent:     filepath.Join(dir, "nodetrust-agent"),
	}
	for _, to := range []string{p.Nodetrust, p.Pure, p.Agent} {
		if err := copyProgram(filepath.Join(root, "bin", filepath.Base(to)), to); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func without(env []string, names ...string) []string {
	var out []string
next:
	for _, kv := range env {
		for _, n := range names {
			if strings.HasPrefix(kv, n+"=") {
				continue next
			}
		}
		out = append(out, kv)
	}
	return out
}

func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// module is a nested module of e2e that builds one program.
type module struct {
	name  string // of its directory and of the program
	pkg   string
	cgo   string
	flags []string
}

var (
	// With gpgme, as CRI-O's static release bundle is.
	crioModule = module{name: "crio", pkg: "github.com/cri-o/cri-o/cmd/crio", cgo: "1", flags: []string{
		"-mod=readonly", "-trimpath", "-ldflags=-s -w",
		"-tags=seccomp,containers_image_ostree_stub,exclude_graphdriver_btrfs,btrfs_noversion,exclude_graphdriver_devicemapper",
	}}
	// Without its version a component takes itself for one of no version, and the others for too new.
	kubeModule = module{name: "kube", pkg: ".", cgo: "0", flags: []string{
		"-mod=readonly", "-trimpath", "-ldflags=-s -w" +
			" -X k8s.io/component-base/version.gitVersion=v1.36.3" +
			" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
	}}
)

func (m module) build(ctx context.Context) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	src := filepath.Join(root, "e2e", m.name)
	key, err := m.key(ctx, src)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, m.name+"-"+key, m.name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil // built by another process meanwhile
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	args := append(append([]string{"build"}, m.flags...), "-o", filepath.Join(tmp, m.name), m.pkg)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+m.cgo, "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", m.name, err, out)
	}
	return path, os.Rename(filepath.Join(tmp, m.name), path)
}

// lock waits until no other process works in a directory of the cache.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// Prepare builds what takes long and is kept for all labs: CRI-O, Kubernetes and the roots of Debian packages.
func Prepare(ctx context.Context) error {
	for _, m := range []module{crioModule, kubeModule} {
		if _, err := m.build(ctx); err != nil {
			return err
		}
	}
	_, _, err := debianRoots(ctx)
	return err
}

// key is a hash of the module's files, the flags, and the version of Go.
func (m module) key(ctx context.Context, src string) (string, error) {
	h := sha256.New()
	files, err := os.ReadDir(src)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(src, f.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", f.Name(), len(b), b)
	}
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOARCH")
	cmd.Dir = src
	version, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("asking the go command: %w", err)
	}
	fmt.Fprintf(h, "%q %s", m.flags, version)
	return hex.EncodeToString(h.Sum(nil))[:20], nil
}

// CRIO returns the path of CRI-O in the lab, where its nodes can run it. It is built from the module e2e/crio the
// first time (three minutes on two cores) and kept in the user's cache directory under the hash of all that it is
// made from.
func (l *Lab) CRIO(ctx context.Context) (string, error) { return l.kept(ctx, crioModule) }

// Kube returns the path of the program of e2e/kube (etcd, the control plane, kubelet, kubectl) in the lab, where its
// nodes can run it. It is built and kept like CRI-O (seven minutes on two cores).
func (l *Lab) Kube(ctx context.Context) (string, error) { return l.kept(ctx, kubeModule) }

func (l *Lab) kept(ctx context.Context, m module) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := filepath.Join(l.Dir, m.name)
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	path, err := m.build(ctx)
	if err != nil {
		return "", err
	}
	if os.Link(path, to) == nil {
		return to, nil
	}
	return to, copyProgram(path, to)
}

// Tool builds the static program of e2e/cmd/NAME and returns its path in the lab.
func (l *Lab) Tool(ctx context.Context, name string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	to := filepath.Join(l.Dir, "bin", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, "./cmd/"+name)
	cmd.Dir = filepath.Join(root, "e2e")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	return to, nil
}
