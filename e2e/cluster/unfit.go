package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// inotifyInstances are what a cluster takes, agents and some room for tests included.
const inotifyInstances = 48

// Unfit says in one line why no cluster can run here, or returns "".
func Unfit() string {
	release, err := os.ReadFile("/etc/os-release")
	if os.Geteuid() != 0 || err != nil || !debian12(string(release)) {
		return "the lab needs root on Debian 12 or newer"
	}
	if reason := lab.Unfit(); reason != "" {
		return reason
	}
	for _, tool := range []string{"ip", "mmdebstrap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is not installed (make deps)"
		}
	}
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		return "the CNI plugins are not installed (make deps)"
	}
	if missing, err := lab.MissingControllers(); err != nil {
		return err.Error()
	} else if len(missing) > 0 {
		return "the machine's cgroups lack the controllers " + strings.Join(missing, ", ") + ": in version 2 their root hands them down in cgroup.subtree_control"
	}
	if free := freeInotify(inotifyInstances); free < inotifyInstances {
		return fmt.Sprintf("only %d inotify instances are free for root, the lab wants %d: end what holds them, or raise fs.inotify.max_user_instances", free, inotifyInstances)
	}
	return ""
}

func debian12(release string) bool {
	values := lab.OSRelease(release)
	version, err := strconv.Atoi(values["VERSION_ID"])
	// Testing and unstable have no number.
	return values["ID"] == "debian" && (values["VERSION_ID"] == "" || err == nil && version >= 12)
}

// freeInotify opens up to want inotify instances and says how many it got.
func freeInotify(want int) int {
	for got := range want {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return got
		}
		defer unix.Close(fd)
	}
	return want
}

const markFile = "cluster.json"

// startTime is when the process began, in ticks since boot: with its number it names a process for good.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return "", errors.New("stat is not understood")
	}
	return f[19], nil
}

// Down ends the clusters of this machine that `make lab` or a test started, and removes what those left behind that were
// killed. It returns how many there were.
func Down() (int, error) {
	marks, err := filepath.Glob(filepath.Join(os.TempDir(), "nt-lab-*", markFile))
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, path := range marks {
		errs = append(errs, down(path))
	}
	return len(marks), errors.Join(errs...)
}

func down(path string) error {
	var m mark
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	alive := func() bool {
		started, err := startTime(m.PID)
		return err == nil && started == m.Started
	}
	if alive() {
		if err := syscall.Kill(m.PID, syscall.SIGTERM); err != nil {
			return fmt.Errorf("ending the lab: %w", err)
		}
		err := lab.Poll(patience, func() error {
			if alive() {
				return fmt.Errorf("process %d goes on", m.PID)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("ending the lab: %w", err)
		}
	}
	if m.GPG != "" {
		fixture.RemoveGPG(m.GPG)
	}
	var errs []error
	for _, g := range m.Cgroups {
		errs = append(errs, removeCgroup(g))
	}
	return errors.Join(append(errs, os.RemoveAll(filepath.Dir(path)))...)
}
