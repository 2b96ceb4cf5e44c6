package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// footprint is what a cluster could leave on this machine without its name being on it.
type footprint map[string]bool

// machine looks at all of it.
func machine() (footprint, error) {
	f := footprint{}
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	times := map[string]int{}
	for _, at := range mounts {
		// Others of this machine may use the temporary directory at the same time.
		if times[at]++; !strings.HasPrefix(at, os.TempDir()) {
			f[fmt.Sprintf("mount %d at %s", times[at], at)] = true
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		f["interface "+i.Name] = true
	}
	settings := []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
		"kernel/keys/root_maxbytes",
		"net/ipv4/ip_forward",
	}
	for _, s := range settings {
		b, err := os.ReadFile(filepath.Join("/proc/sys", s))
		if err != nil {
			return nil, err
		}
		f["sysctl "+s+" "+strings.TrimSpace(string(b))] = true
	}
	for _, pattern := range []string{
		"/sys/fs/cgroup/*/crio*", "/sys/fs/cgroup/crio*", "/sys/fs/cgroup/*/kubepods*",
		"/run/*", "/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/etc/cni",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			f["path "+p] = true
		}
	}
	return f, nil
}

func mountPoints() (all []string, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		all = append(all, strings.Fields(line)[1])
	}
	return all, err
}

// named is what there is of the lab of the name: a directory's, which no other lab of this machine has.
func named(name string) ([]string, error) {
	var found []string
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	for _, at := range mounts {
		if strings.Contains(at, name) {
			found = append(found, "mount "+at)
		}
	}
	for _, pattern := range []string{
		"/sys/fs/cgroup/*/" + name, "/sys/fs/cgroup/" + name,
		filepath.Join(os.TempDir(), name),
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		found = append(found, paths...)
	}
	procs, err := processes(name)
	return append(found, procs...), err
}

// processes are those whose command line or cgroup has the word, be it a directory's name or a part of its path.
func processes(word string) ([]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || len(line) == 0 {
			continue // ended
		}
		cgroup, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if bytes.Contains(line, []byte(word)) || bytes.Contains(cgroup, []byte(word)) {
			found = append(found, fmt.Sprintf("process %s %s", filepath.Base(filepath.Dir(file)),
				bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found, nil
}

// left waits until there is nothing of the lab of the name, and the machine has nothing that it hadn't before.
func left(before footprint, name string) error {
	return lab.Poll(time.Minute, func() error {
		found, err := named(name)
		if err != nil {
			return err
		}
		after, err := machine()
		if err != nil {
			return err
		}
		for what := range after {
			if !before[what] {
				found = append(found, what)
			}
		}
		if len(found) > 0 {
			return fmt.Errorf("left behind: %s", strings.Join(found, "\n"))
		}
		return nil
	})
}

// TestKilled: a lab that is killed takes its cluster along, and `lab down` sweeps what the kernel doesn't: empty
// cgroups and files. One that is interrupted leaves nothing by itself.
func TestKilled(t *testing.T) {
	t.Parallel()
	need(t)
	program := filepath.Join(t.TempDir(), "lab")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/lab").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			tmp := t.TempDir()
			before, err := machine()
			must(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			up := exec.CommandContext(ctx, program, "up")
			up.Env = append(os.Environ(), "TMPDIR="+tmp)
			var stderr bytes.Buffer
			up.Stderr = &stderr
			stdout, err := up.StdoutPipe()
			must(t, err)
			must(t, up.Start())
			said := readUntil(stdout, "make lab-down")
			if !strings.Contains(said, "export KUBECONFIG=") {
				_ = up.Wait()
				t.Fatalf("lab up says\n%s\n%s", said, &stderr)
			}
			_, kubeconfig, _ := strings.Cut(said, "export KUBECONFIG=")
			kubeconfig, _, _ = strings.Cut(kubeconfig, " ")
			name := filepath.Base(filepath.Dir(kubeconfig))
			if found, err := named(name); err != nil || len(found) == 0 {
				t.Errorf("there is nothing of %s while it runs: this test looks at the wrong things (%v)", name, err)
			}
			if sig == syscall.SIGINT {
				documented(t, said)
			}
			must(t, up.Process.Signal(sig))
			_, _ = io.Copy(io.Discard, stdout)
			err = up.Wait()
			if sig == syscall.SIGINT && err != nil {
				t.Errorf("interrupted, lab up ends with %v\n%s", err, &stderr)
			}
			if sig == syscall.SIGKILL {
				down := exec.Command(program, "down")
				down.Env = up.Env
				if out, err := down.CombinedOutput(); err != nil {
					t.Errorf("lab down: %v\n%s", err, out)
				}
			}
			if files, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || len(files) > 0 {
				t.Errorf("left in the temporary directory: %v %v", files, err)
			}
			if err := left(before, name); err != nil {
				t.Error(err)
			}
			ended(t, tmp)
		})
	}
}

// ended waits until no process has a directory in its environment or command line: those that were killed may take a
// moment.
func ended(t *testing.T, dir string) {
	t.Helper()
	err := lab.Poll(time.Minute, func() error {
		found, err := processes(dir)
		if err != nil {
			return err
		}
		files, err := filepath.Glob("/proc/[0-9]*/environ")
		for _, file := range files {
			if env, _ := os.ReadFile(file); bytes.Contains(env, []byte(dir)) {
				found = append(found, filepath.Dir(file))
			}
		}
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("still running: %s", strings.Join(found, "\n"))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestKilledBuilding: what is killed while it builds is swept too.
func TestKilledBuilding(t *testing.T) {
	t.Parallel()
	need(t)
	tmp := t.TempDir()
	program := filepath.Join(tmp, "lab")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/lab").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	up, down := exec.Command(program, "up"), exec.Command(program, "down")
	up.Env = append(os.Environ(), "TMPDIR="+tmp)
	down.Env = up.Env
	up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with the compiler that it runs
	must(t, up.Start())
	defer func() { _ = up.Wait(); ended(t, tmp) }() // before their files are removed
	labs := filepath.Join(tmp, "nt-lab-*")
	err := lab.Poll(patience, func() error {
		if found, err := filepath.Glob(filepath.Join(labs, markFile)); err != nil || len(found) != 1 {
			return fmt.Errorf("marks: %v %v", found, err)
		}
		return nil
	})
	must(t, errors.Join(syscall.Kill(-up.Process.Pid, syscall.SIGKILL), err))
	out, err := down.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "nothing is left") {
		t.Errorf("lab down: %v\n%s", err, out)
	}
	if files, err := filepath.Glob(labs); err != nil || len(files) > 0 {
		t.Errorf("left in the temporary directory: %v %v", files, err)
	}
}

// documented runs the commands of docs/lab.md with what `make lab` has printed.
func documented(t *testing.T, said string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/lab.md")
	must(t, err)
	_, commands, _ := strings.Cut(string(page), "```sh\n")
	commands, _, _ = strings.Cut(commands, "```\n")
	var variables []string
	for word := range strings.FieldsSeq(said) {
		if strings.HasPrefix(word, "KUBECONFIG=") || strings.HasPrefix(word, "REGISTRY=") {
			variables = append(variables, word)
		}
	}
	if len(variables) != 2 || !strings.Contains(commands, "kubectl run") {
		t.Fatalf("lab up says %q, docs/lab.md %q", said, commands)
	}
	kubeconfig := strings.TrimPrefix(variables[0], "KUBECONFIG=")
	dir := t.TempDir()
	img, err := fixture.ImageOf(runtime.GOARCH, []string{"/pause"}, fixture.File{Name: "pause", Data: shared.program})
	must(t, err)
	must(t, tarball.WriteToFile(filepath.Join(dir, "app.tar"), name.MustParseReference("app:v1"), img))
	cmd := exec.CommandContext(t.Context(), "sh", "-exc", commands)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append(variables, "PATH="+filepath.Dir(kubeconfig)+":"+os.Getenv("PATH"), "HOME="+dir,
		"TMPDIR="+dir)...)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), " Ready ") != nodeCount {
		t.Errorf("docs/lab.md: %v\n%s", err, out)
	}
	refused := exec.CommandContext(t.Context(), "timeout", "180", "sh", "-c",
		"until kubectl get pods | grep -E '^unsigned .*(SignatureValidationFailed|ImagePullBackOff)'; do sleep 1; done")
	refused.Env = cmd.Env
	if out, err := refused.CombinedOutput(); err != nil {
		t.Errorf("waiting for the unsigned image to be refused: %v\n%s", err, out)
	}
}

// readUntil reads lines up to one that holds end, and returns all of them.
func readUntil(r io.Reader, end string) string {
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil || bytes.Contains(all, []byte(end)) {
			return string(all)
		}
	}
}
