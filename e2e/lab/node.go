package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Lab is what the nodes of one test program share.
type Lab struct {
	// Dir holds all that the lab writes. Everybody may enter it.
	Dir      string
	Programs *Programs

	mu    sync.Mutex // held while a kept program is put into Dir, and for nodes
	start starter
	nodes int
}

// Unfit says in a few words why no node can run here, or returns "".
func Unfit() string {
	if os.Geteuid() != 0 {
		return "nodes need root"
	}
	for _, tool := range []string{"podman", "conmon", "gpg", "unshare", "nsenter", "make", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is not installed (make deps)"
		}
	}
	if ociRuntime() == "" {
		return "neither runc nor crun is installed (make deps)"
	}
	if out, err := exec.Command("unshare", append(namespaces(), "true")...).CombinedOutput(); err != nil {
		return "namespaces are not permitted here: " + strings.TrimSpace(string(out))
	}
	return ""
}

func ociRuntime() string {
	for _, name := range []string{"runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// New makes a lab with built programs. CRI-O is built when the first node wants it.
func New(ctx context.Context) (*Lab, error) {
	l, err := Empty()
	if err != nil {
		return nil, err
	}
	if err := l.Build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Empty makes a lab that has a directory and no programs yet.
func Empty() (*Lab, error) {
	dir, err := os.MkdirTemp("", "nt-lab-")
	if err != nil {
		return nil, err
	}
	l := &Lab{Dir: dir, start: newStarter()}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Build builds the lab's programs.
func (l *Lab) Build(ctx context.Context) (err error) {
	bin := filepath.Join(l.Dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	l.Programs, err = BuildPrograms(ctx, bin)
	return err
}

// Close removes the lab's directory; the nodes must have been closed.
func (l *Lab) Close() error {
	close(l.start)
	return os.RemoveAll(l.Dir)
}

// Node is a host: a scratch root, and the namespaces in which programs see it as theirs.
type Node struct {
	lab *Lab
	dir string
	// Root is the scratch host root: etc/containers, etc/crio, etc/pki, root and var/lib/containers below it lie over
	// the machine's own for every program of the node.
	Root string
	// Socket is CRI-O's.
	Socket string

	options NodeOptions

	holder *exec.Cmd
	stdin  io.Closer
	init   int // pid of the node's first process
	own    int // pid of the one that the first process waits for
	crio   *Process
}

// NodeOptions say what a node is besides a host whose runtimes pull images.
type NodeOptions struct {
	// InsecureRegistries are spoken to in plain HTTP.
	InsecureRegistries []string
	// Network gives the node a network of its own (nothing in it is up yet), with host name and System V IPC.
	Network bool
	// Inside is the node whose processes and network this one's are part of: it ends with it.
	Inside *Node
	// Pods makes CRI-O run pods, so that a kubelet can.
	Pods *Pods
}

// namespaces are a node's: killing its first process ends every other one, and its mounts go with the last.
func namespaces() []string {
	return []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"}
}

// The node's / has the machine's directories and nothing else, so that a mark like /.dockerenv doesn't make a
// container of the host that it plays. The machine's /etc becomes read-only and gets mount points that it may lack.
// cat ends with the lab, whatever happens to it; the shell waits for it and reaps those processes meanwhile that lost
// their parents.
const initScript = `set -e
dir=$1 pods=$2
shift 2
new="$dir/new"
mkdir -p "$new" "$dir/points/containers" "$dir/points/crio" "$dir/points/pki" /var/lib/containers
mount -t tmpfs -o mode=0755 nodetrust-lab "$new"
for d in /*; do
	if [ -L "$d" ]; then
		cp -P "$d" "$new$d"
	elif [ -d "$d" ]; then
		mkdir "$new$d"
		mount --rbind "$d" "$new$d"
	fi
done
mount -t overlay -o "lowerdir=$dir/points:/etc" nodetrust-lab "$new/etc"
for d; do mount --bind "$dir/root/$d" "$new/$d"; done
mkdir "$new/.old"
cd "$new"
pivot_root . .old
umount -l /.old
rmdir /.old
# The new root as it was when its directory was bound into it.
umount -l -R "$dir/new"
[ -z "$pods" ] || . "$pods"
exec 3<&0
cat <&3 &
echo ready
wait $!
`

// binds are the directories of the scratch root that lie over the machine's.
func (n *Node) binds() []string {
	own := []string{"etc/containers", "etc/crio", "etc/pki", "root"}
	if n.options.Pods == nil {
		return append(own, "var/lib/containers")
	}
	return append(own, "run", "var/lib", "var/log")
}

// NewNode makes a node whose runtimes may talk plain HTTP to the given registries. No runtime runs in it yet.
func (l *Lab) NewNode(insecureRegistries ...string) (*Node, error) {
	return l.NewNodeWith(NodeOptions{InsecureRegistries: insecureRegistries})
}

// NewNodeWith makes a node. No runtime runs in it yet.
func (l *Lab) NewNodeWith(o NodeOptions) (*Node, error) {
	l.mu.Lock()
	l.nodes++
	dir := filepath.Join(l.Dir, "node"+strconv.Itoa(l.nodes))
	l.mu.Unlock()
	n := &Node{lab: l, dir: dir, Root: filepath.Join(dir, "root"), options: o}
	n.Socket = filepath.Join(n.Root, "run/crio/crio.sock")
	for _, d := range []string{
		"root/etc/containers/registries.d", "root/etc/crio/policies", "root/etc/pki/rpm-gpg", "root/root", "root/run/crio",
		"root/var/lib/containers",
		"root/var/log", "root/usr/share/containers", "crio/conf.d", "crio/cni", "podman", "tmp",
	} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	registries := "unqualified-search-registries = []\n"
	for _, r := range o.InsecureRegistries {
		registries += fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", r)
	}
	if err := errors.Join(
		os.Chmod(filepath.Join(n.Root, "root"), 0o700),
		os.WriteFile(filepath.Join(n.Root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644),
		os.WriteFile(filepath.Join(n.Root, "etc/containers/registries.conf"), []byte(registries), 0o644),
	); err != nil {
		return nil, err
	}
	if o.Pods != nil {
		if err := o.Pods.prepare(dir); err != nil {
			return nil, err
		}
	}
	return n, n.enter()
}

func (n *Node) enter() error {
	args := append([]string{"unshare"}, namespaces()...)
	if n.options.Network {
		args = append(args, "--net", "--uts", "--ipc")
	}
	pods := ""
	if n.options.Pods != nil {
		pods = filepath.Join(n.dir, "pods.sh")
	}
	args = append(append(args, "sh", "-c", initScript, "sh", n.dir, pods), n.binds()...)
	if in := n.options.Inside; in != nil {
		args = append([]string{
			"nsenter", "--target", strconv.Itoa(in.init), "--pid", "--net", "--uts", "--ipc",
			"--",
		}, args...)
	}
	n.holder = exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	n.holder.Stderr = &stderr
	stdin, err := n.holder.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := n.holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.lab.start.start(n.holder); err != nil {
		return fmt.Errorf("starting the node: %w", err)
	}
	n.stdin = stdin
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		return errors.Join(fmt.Errorf("starting the node: %w: %s", err, stderr.String()), n.Close())
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if n.init, err = childOf(ctx, n.holder.Process.Pid); err == nil && n.options.Inside != nil {
		n.init, err = childOf(ctx, n.init) // nsenter forks as well
	}
	if err != nil {
		return errors.Join(err, n.Close())
	}
	if n.own, err = childOf(ctx, n.init); err != nil {
		return errors.Join(err, n.Close())
	}
	return nil
}

// Command is a program in the node's namespaces, with root's home on the node and a temporary directory of the node's
// own. Its user is root.
func (n *Node) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(n.init), "--mount", "--pid"}
	if n.options.Network || n.options.Inside != nil {
		enter = append(enter, "--net", "--uts", "--ipc")
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(append(enter, "--", name), args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "TMPDIR=" + filepath.Join(n.dir, "tmp"), "LANG=C"}
	return cmd
}

// Start starts a long-lived program in the node.
func (n *Node) Start(name string, args ...string) (*Process, error) {
	p := &Process{Log: &Log{}, done: make(chan struct{})}
	p.cmd = n.Command(context.Background(), name, args...)
	p.cmd.Stdout, p.cmd.Stderr = p.Log, p.Log
	if err := n.lab.start.start(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	var err error
	if p.pid, err = childOf(ctx, p.cmd.Process.Pid); err != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		return nil, fmt.Errorf("starting %s: %w: %s", name, err, p.Log)
	}
	return p, nil
}

// Podman runs podman with a store of the node's own and returns what it says.
func (n *Node) Podman(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	dir := filepath.Join(n.dir, "podman")
	cmd := n.Command(ctx, "podman", append([]string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--runtime", ociRuntime(), "--events-backend", "none", "--cgroup-manager", "cgroupfs",
	}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Path is a path of the host as this machine sees it.
func (n *Node) Path(host string) string { return filepath.Join(n.Root, host) }

// Rebind lays the scratch root's /etc/containers over the node's again: a mount keeps the directory that was there
// first.
func (n *Node) Rebind() error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := n.Command(ctx, "mount", "--bind", n.Path("etc/containers"), "/etc/containers").CombinedOutput()
	if err != nil {
		return fmt.Errorf("binding /etc/containers again: %w: %s", err, out)
	}
	return nil
}

// Processes are all processes of the node but those that keep it open, including zombies that nobody reaped.
func (n *Node) Processes() ([]Info, error) {
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", n.init))
	if err != nil {
		return nil, err
	}
	pids, err := allPIDs()
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, pid := range pids {
		i, err := readInfo(pid)
		if err != nil || pid == n.init || pid == n.own {
			continue
		}
		// A zombie has no namespaces any more; only those that fell to the node's first process are told apart.
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if ns == want || (err != nil && i.PPID == n.init) {
			out = append(out, i)
		}
	}
	return out, nil
}

// Inotify counts the inotify instances that the node's processes hold, but for CRI-O's: it makes some after it has
// begun to answer.
func (n *Node) Inotify() (int, error) {
	procs, err := n.Processes()
	if err != nil {
		return 0, err
	}
	count := 0
	for _, p := range procs {
		if n.crio != nil && p.PID == n.crio.pid {
			continue
		}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID))
		if err != nil {
			return 0, err
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "inotify") {
				count++
			}
		}
	}
	return count, nil
}

// TempFiles lists what lies in the node's temporary directories.
func (n *Node) TempFiles() ([]string, error) {
	return filepath.Glob(filepath.Join(n.dir, "tmp", "*"))
}

// Close ends the node: CRI-O in order, everything else by the kernel.
func (n *Node) Close() error {
	n.StopCRIO()
	_ = n.stdin.Close()
	done := make(chan struct{})
	go func() { _ = n.holder.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = n.holder.Process.Kill()
		<-done
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	if bytes.Contains(mounts, []byte(n.dir)) {
		return fmt.Errorf("the node left mounts below %s", n.dir)
	}
	return os.RemoveAll(n.dir)
}
