package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A starter starts processes from one thread that lives as long as this program: the kernel ties "die with the parent"
// to the thread that forked, and Go ends threads as it likes.
type starter chan func()

func newStarter() starter {
	s := make(starter)
	go func() {
		runtime.LockOSThread()
		for f := range s {
			f()
		}
	}()
	return s
}

func (s starter) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// A terminal's ^C goes to this program alone, which ends the others in order.
	cmd.SysProcAttr.Setpgid = true
	done := make(chan error)
	s <- func() { done <- cmd.Start() }
	return <-done
}

// Log collects the output of a process. It is safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write adds p.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Process is a long-lived program in a node.
type Process struct {
	Log *Log

	cmd  *exec.Cmd
	pid  int // of the program itself: nsenter is its parent
	done chan struct{}
}

// PID is the program's process id as this machine counts it.
func (p *Process) PID() int { return p.pid }

// Signal sends sig to the program.
func (p *Process) Signal(sig syscall.Signal) error { return syscall.Kill(p.pid, sig) }

// Exited tells whether the program has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Stop sends SIGTERM, waits, then kills. It returns the exit status, or -1 when the program had to be killed.
func (p *Process) Stop() int { return p.stop(Patience) }

func (p *Process) stop(patience time.Duration) int {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
	}
	p.Kill()
	return -1
}

// Kill ends the program without giving it a chance, and waits for its end.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
}

// Info is a process as /proc shows it.
type Info struct {
	PID, PPID int
	State     string // "S", "Z", …
	Command   string
}

func (i Info) String() string {
	return fmt.Sprintf("%d (parent %d, %s) %s", i.PID, i.PPID, i.State, i.Command)
}

// readInfo reads /proc/PID; the process may end meanwhile.
func readInfo(pid int) (Info, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Info{}, err
	}
	// pid (comm) state ppid …, where comm may hold anything.
	end := bytes.LastIndexByte(b, ')')
	open := bytes.IndexByte(b, '(')
	if open < 0 || end < open {
		return Info{}, errors.New("stat is not understood")
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 2 {
		return Info{}, errors.New("stat is not understood")
	}
	ppid, err := strconv.Atoi(f[1])
	if err != nil {
		return Info{}, err
	}
	i := Info{PID: pid, PPID: ppid, State: f[0], Command: string(b[open : end+1])}
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(cmdline) > 0 {
		i.Command = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return i, nil
}

func allPIDs() ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// childOf waits for a process to have a child and returns it.
func childOf(ctx context.Context, parent int) (int, error) {
	for {
		pids, err := allPIDs()
		if err != nil {
			return 0, err
		}
		for _, pid := range pids {
			if i, err := readInfo(pid); err == nil && i.PPID == parent {
				return pid, nil
			}
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// pause waits between two looks at something that nobody announces.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Patience is how long to wait for what takes seconds. Machines of CI are slow at times, and wrong is only what never
// comes.
const Patience = 3 * time.Minute

// Poll looks every few milliseconds until ok says yes; after the deadline it returns what ok last complained of.
func Poll(deadline time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("after %s: %w", deadline, err)
		}
	}
}

// ResidentMemory of a process, in bytes.
func ResidentMemory(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
