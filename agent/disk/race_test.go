package disk_test

import (
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/agent/disk"
)

// TestNulled: a link to /dev/null is an empty file to the runtimes, whatever a pod sees at /dev.
func TestNulled(t *testing.T) {
	const vendor = "/etc/containers/registries.d/vendor.yaml"
	for _, dev := range []bool{false, true} {
		h := newRight(t)
		h.link("/dev/null", vendor)
		if dev {
			h.fifo("/dev/null") // a device is as little a file
		}
		if got := disk.Compare(h.root, wanted()); len(got) != 0 {
			t.Errorf("there is a /dev/null: %v: %v", dev, got)
		}
		others, err := disk.Others(h.root, nil)
		if err != nil || len(others) != 1 || others[0].Path != labPath {
			t.Errorf("there is a /dev/null: %v: %v, %v", dev, others, err)
		}
	}
}

// TestNewDirectoryRace: who may write /etc/containers, a pod with that hostPath for example, puts a link in place of
// a directory as soon as that is made. Nothing that the link leads to gets another mode.
func TestNewDirectoryRace(t *testing.T) {
	h := newRight(t)
	const victim, dir = "/etc/shadow", "/etc/containers/registries.d"
	h.write(victim, "secret")
	h.must(os.Chmod(h.path(victim), 0o600))
	f, _ := wanted().Get(labPath)
	stop := make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if os.Remove(h.path(dir)) == nil { // an empty directory
				_ = os.Symlink("../shadow", h.path(dir))
			}
		}
	})
	// Each round waits for the disk, which others may keep busy.
	end := time.Now().Add(20 * time.Second)
	for i := 0; i < 2000 && time.Now().Before(end); i++ {
		_ = os.RemoveAll(h.path(dir))
		_, _ = disk.Replace(h.root, f)
		if info, err := os.Stat(h.path(victim)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v, %v", victim, info.Mode(), err)
			break
		}
	}
	close(stop)
	attacker.Wait()
}
