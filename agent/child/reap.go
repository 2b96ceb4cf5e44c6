package child

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

type process struct {
	pid, parent int
}

func processes() []process {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var out []process
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + n + "/stat")
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything, so parse after its end: state and parent.
		i := bytes.LastIndexByte(stat, ')')
		if i < 0 {
			continue
		}
		f := bytes.Fields(stat[i+1:])
		if len(f) < 2 {
			continue
		}
		parent, err := strconv.Atoi(string(f[1]))
		if err == nil {
			out = append(out, process{pid, parent})
		}
	}
	return out
}

func childrenOf(pid int) map[int]bool {
	out := map[int]bool{}
	for _, p := range processes() {
		if p.parent == pid {
			out[p.pid] = true
		}
	}
	return out
}

// mine returns the descendants that runs left behind, dead or alive, children first. It leaves out children that are
// older than the Runner and, for root, those of other users.
func (r *Runner) mine() []process {
	self := os.Getpid()
	byParent := map[int][]process{}
	for _, p := range processes() {
		byParent[p.parent] = append(byParent[p.parent], p)
	}
	var out []process
	for _, p := range byParent[self] {
		if !r.before[p.pid] && r.owns(p.pid) {
			out = append(out, p)
		}
	}
	for i := 0; i < len(out); i++ {
		out = append(out, byParent[out[i].pid]...)
	}
	return out
}

func (r *Runner) owns(pid int) bool {
	if !r.asRoot {
		return true
	}
	var st unix.Stat_t
	// A non-dumpable process belongs to root in /proc; its status file names the real user.
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return unix.Stat("/proc/"+strconv.Itoa(pid), &st) == nil && st.Uid == UID
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			f := bytes.Fields(rest)
			return len(f) > 0 && string(f[0]) == strconv.Itoa(UID)
		}
	}
	return false
}

// reap kills and awaits every descendant. As the subreaper we inherit the children of each killed parent, so reap
// repeats until none are left.
func (r *Runner) reap() error {
	self := os.Getpid()
	deadline := time.Now().Add(reapTime)
	for {
		left := r.mine()
		if len(left) == 0 {
			return nil
		}
		for _, p := range left {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		for _, p := range left {
			if p.parent == self {
				wait(p.pid, deadline)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("killing descendants: %d are left", len(left))
		}
	}
}

// wait waits for a killed child. It polls: a blocking wait for a process in an uninterruptible call has no time limit.
func wait(pid int, deadline time.Time) {
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if got == pid || (err != nil && !errors.Is(err, unix.EINTR)) || time.Now().After(deadline) {
			return
		}
		time.Sleep(pause)
	}
}
