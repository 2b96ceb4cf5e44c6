// Command pinns stands in for CRI-O's program of that name, which pins new namespaces of a pod to files:
//
//	pinns -d DIR -f NAME [--ipc] [--uts] [--net] [-s KEY=VALUE]…
//
// A namespace of type T ends up as DIR/Tns/NAME. "--T=host" pins the caller's own. User namespaces are refused.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "pinns: %v\n", err)
		os.Exit(1)
	}
}

// flags are the clone flags of the namespaces that can be pinned.
func flags(kind string) (int, bool) {
	switch kind {
	case "ipc":
		return unix.CLONE_NEWIPC, true
	case "uts":
		return unix.CLONE_NEWUTS, true
	case "net":
		return unix.CLONE_NEWNET, true
	}
	return 0, false
}

func run(args []string) error {
	var dir, name string
	var kinds, sysctls []string
	unshare := 0
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch arg {
		case "-d", "-f", "-s":
			if len(args) == 0 {
				return fmt.Errorf("%s wants a value", arg)
			}
			switch arg {
			case "-d":
				dir = args[0]
			case "-f":
				name = args[0]
			case "-s":
				sysctls = append(sysctls, args[0])
			}
			args = args[1:]
			continue
		}
		kind, host := strings.CutSuffix(strings.TrimPrefix(arg, "--"), "=host")
		flag, ok := flags(kind)
		if !ok {
			return fmt.Errorf("%s is not known", arg)
		}
		if !host {
			unshare |= flag
		}
		kinds = append(kinds, kind)
	}
	if dir == "" || name == "" || name != filepath.Base(name) {
		return fmt.Errorf("want -d DIR -f NAME, got %q and %q", dir, name)
	}

	// Namespaces belong to the thread.
	runtime.LockOSThread()
	if err := unix.Unshare(unshare); err != nil {
		return fmt.Errorf("unsharing: %w", err)
	}
	for _, s := range sysctls {
		if err := sysctl(s); err != nil {
			return err
		}
	}
	for _, kind := range kinds {
		if err := pin(kind, filepath.Join(dir, kind+"ns", name)); err != nil {
			return fmt.Errorf("pinning %s: %w", kind, err)
		}
	}
	return nil
}

func pin(kind, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/%s", unix.Gettid(), kind), path, "", unix.MS_BIND, "")
}

// sysctl sets KEY=VALUE in the namespaces of this thread; it must be one that is kept per namespace.
func sysctl(assignment string) error {
	key, value, ok := strings.Cut(assignment, "=")
	path := strings.ReplaceAll(key, ".", "/")
	namespaced := strings.HasPrefix(key, "net.") || strings.HasPrefix(key, "kernel.shm") ||
		strings.HasPrefix(key, "kernel.msg") ||
		strings.HasPrefix(key, "fs.mqueue.") || key == "kernel.sem"
	if !ok || !namespaced || strings.Contains(path, "//") {
		return fmt.Errorf("sysctl %q is not one of a pod", assignment)
	}
	return os.WriteFile("/proc/sys/"+path, []byte(value), 0)
}
