package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/e2e/lab"
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
		return "the machine's cgroups lack the controllers " + strings.Join(missing, ", ") +
			": in version 2 their root hands them down in cgroup.subtree_control"
	}
	free := 0
	err = lab.Poll(2*time.Second, func() error { // another lab may be counting as well
		if free = freeInotify(inotifyInstances); free < inotifyInstances {
			return errors.New("too few")
		}
		return nil
	})
	if err != nil {
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
