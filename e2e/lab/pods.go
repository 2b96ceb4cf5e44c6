package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Pods is what a node needs to run pods.
type Pods struct {
	// Pinns is the path of the program that pins the namespaces of a pod.
	Pinns string
	// PauseImage is held by CRI-O for sandboxes; the policy of the node must accept it.
	PauseImage string
	// Subnet is the pods', for example 10.251.1.0/24, on a bridge of the name.
	Bridge, Subnet string
	// Cgroups are directories below mounts of cgroups: the node sees each as the whole of that mount.
	Cgroups []Cgroup
}

// settings of the machine that a kubelet changes; it gets copies of them.
var settings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
	"kernel/keys/root_maxbytes",
}

// prepare writes what the node's first process reads on its way. Mounts are shared between CRI-O and kubelet; huge
// pages are hidden, for runc would limit them also where the kernel can't.
func (p *Pods) prepare(dir string) error {
	script := ""
	bind := func(from, to string) { script += fmt.Sprintf("mount --bind '%s' '%s'\n", from, to) }
	copies := filepath.Join(dir, "settings")
	for _, s := range settings {
		value, err := os.ReadFile(filepath.Join("/proc/sys", s))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		to := filepath.Join(copies, s)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, value, 0o644)); err != nil {
			return err
		}
		bind(to, filepath.Join("/proc/sys", s))
	}
	if _, err := os.Stat("/sys/kernel/mm/hugepages"); err == nil {
		empty := filepath.Join(dir, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return err
		}
		bind(empty, "/sys/kernel/mm/hugepages")
	}
	// Instead of the mount, not on top of it: of two, runc takes the first.
	point := filepath.Join(dir, "cgroup")
	if err := os.Mkdir(point, 0o755); err != nil {
		return err
	}
	for _, c := range p.Cgroups {
		bind(c.Dir, point)
		script += fmt.Sprintf("umount '%[1]s'\nmount --move '%[2]s' '%[1]s'\n", c.Mount, point)
	}
	script += "mount --make-rshared /\n"
	network := fmt.Sprintf(`{"cniVersion":"0.4.0","name":"lab","plugins":[{"type":"bridge","bridge":%q,"isGateway":true,"ipMasq":false,
"ipam":{"type":"host-local","ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
`, p.Bridge, p.Subnet)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "crio/cni/10-lab.conflist"), []byte(network), 0o644),
		os.WriteFile(filepath.Join(dir, "pods.sh"), []byte(script), 0o644),
	)
}

// InNet calls f in the node's network: what it listens on and dials is there. f must not leave that to other
// goroutines.
func (n *Node) InNet(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else meets it in the wrong network.
		runtime.LockOSThread()
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", n.init), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- fmt.Errorf("opening the node's network: %w", err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering the node's network: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Cgroup is a directory Dir below a mount of cgroups.
type Cgroup struct{ Mount, Dir string }

// NewCgroups makes a directory of the name in every hierarchy of the machine, for all pods of a lab.
func NewCgroups(name string) ([]Cgroup, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var all []Cgroup
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup" && f[2] != "cgroup2" {
			continue
		}
		c := Cgroup{Mount: f[1], Dir: filepath.Join(f[1], name)}
		if err := os.Mkdir(c.Dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return all, fmt.Errorf("making a cgroup: %w", err)
		}
		all = append(all, c)
		if err := c.enable(); err != nil {
			return all, fmt.Errorf("making a cgroup: %w", err)
		}
	}
	return all, nil
}

// MissingControllers returns the controllers that pods need and that this machine's cgroups can't give them: in
// version 1 each has a hierarchy, in version 2 the root hands them down by name.
func MissingControllers() ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	return missingControllers(string(mounts), os.ReadFile)
}

func missingControllers(mounts string, read func(string) ([]byte, error)) ([]string, error) {
	there := map[string]bool{}
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		var names []string
		switch f[2] {
		case "cgroup":
			names = strings.Split(f[3], ",")
		case "cgroup2":
			b, err := read(filepath.Join(f[1], "cgroup.subtree_control"))
			if err != nil {
				return nil, fmt.Errorf("looking for controllers: %w", err)
			}
			names = strings.Fields(string(b))
		}
		for _, name := range names {
			there[name] = true
		}
	}
	var missing []string
	for _, name := range []string{"cpu", "memory", "pids"} {
		if !there[name] {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// enable makes the controllers of the hierarchy usable below the directory: without cpus and memory nodes a cpuset
// takes no process, and in version 2 controllers are handed down by name.
func (c Cgroup) enable() error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(c.Mount, file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := errors.Join(err, os.WriteFile(filepath.Join(c.Dir, file), value, 0)); err != nil {
			return err
		}
	}
	controllers, err := os.ReadFile(filepath.Join(c.Dir, "cgroup.controllers"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, name := range strings.Fields(string(controllers)) {
		err = errors.Join(err, os.WriteFile(filepath.Join(c.Dir, "cgroup.subtree_control"), []byte("+"+name), 0))
	}
	return err
}

// Remove removes the directory and all below it; no process may be left in them.
func (c Cgroup) Remove() error {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, Cgroup{Dir: filepath.Join(c.Dir, e.Name())}.Remove())
		}
	}
	return errors.Join(err, os.Remove(c.Dir))
}
