package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// runPeak runs cmd and returns the most memory that it, or the largest of its descendants, had resident, in bytes,
// looked at every 5 ms. The kernel's own figure at the end (ru_maxrss) begins with what the process had that started
// it, this one, which may be more.
func runPeak(cmd *exec.Cmd) (peak int64, err error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return peak, err
		case <-tick.C:
			peak = max(peak, resident(cmd.Process.Pid))
		}
	}
}

// resident is the most that a process or one of its descendants has had resident since its program began; 0 if it has
// ended.
func resident(pid int) (bytes int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if _, rest, ok := strings.Cut(string(status), "\nVmHWM:"); ok {
		_, _ = fmt.Sscan(rest, &bytes)
		bytes <<= 10
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	for child := range strings.FieldsSeq(string(children)) {
		if n, err := strconv.Atoi(child); err == nil {
			bytes = max(bytes, resident(n))
		}
	}
	return bytes
}
