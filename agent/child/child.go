// Package child runs the nodetrust CLI as a short-lived process with minimal rights: its own user, no capabilities,
// no_new_privs, its own temporary directory, bounded output and a deadline. After a run neither a descendant of the
// child nor a file in its temporary directory is left.
package child

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
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// UID and GID are the child's if the agent is root. Group 0 opens the CRI socket (0660 root:root).
const (
	UID = 65532
	GID = 0
)

const (
	maxStdout = 1 << 20
	maxStderr = 64 << 10
	// reapTime bounds how long killed descendants may take to end.
	reapTime  = 5 * time.Second
	tmpPrefix = "nodetrust-child-"
)

// ErrOutput is returned when the child wrote more than 1 MiB to stdout.
var ErrOutput = errors.New("more than 1 MiB of output")

// Runner starts children one at a time. New makes it, before the process starts any other child.
type Runner struct {
	path   string
	asRoot bool
	before map[int]bool
}

// Harden sets no_new_privs, makes the process the reaper of its orphaned descendants, and marks inherited files
// close-on-exec. It is called once at start, before other threads matter.
func Harden() error {
	closeOnExec()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the reaper of descendants: %w", err)
	}
	_, _, errno := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	// With cgo the runtime can't reach all threads; Run sets it on each thread that starts a child.
	if errno != 0 && errno != syscall.ENOTSUP {
		return fmt.Errorf("setting no_new_privs: %w", errno)
	}
	return nil
}

// closeOnExec marks all open files but the standard ones. Go marks only files that it opened itself, not those
// inherited from a shell or a container runtime.
func closeOnExec() {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, f := range fds {
		if n, err := strconv.Atoi(f.Name()); err == nil && n > 2 {
			unix.CloseOnExec(n)
		}
	}
}

// New returns a Runner of the program at path, and removes temporary directories of agents that died.
func New(path string) *Runner {
	sweep()
	return &Runner{path: path, asRoot: os.Geteuid() == 0, before: childrenOf(os.Getpid())}
}

// File is a file in the child's temporary directory.
type File struct {
	Path string
	Data []byte
	// Secret gives the file mode 0400 and the child as owner. Other files have mode 0644 and our owner.
	Secret bool
}

// Command is one run.
type Command struct {
	// Args returns the arguments for the temporary directory, which is removed before Run returns.
	Args  func(tmp string) []string
	Stdin []byte
	Files []File
	// Deadline bounds the run. It must be set.
	Deadline time.Duration
	// FirstLine, if set, is called with the first line of stdout as soon as it arrives.
	FirstLine func(line []byte)
}

// Result is what a child left that ended by itself.
type Result struct {
	Stdout []byte
	Exit   int
	// Stderr is the last line of stderr.
	Stderr string
}

// Run runs the program and waits until it and all its descendants are gone. An error means no usable result: the child
// did not start, ran out of time, was killed, or wrote too much. A non-zero exit status is no error.
func (r *Runner) Run(ctx context.Context, c Command) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Deadline)
	defer cancel()
	type answer struct {
		Result
		err error
	}
	done := make(chan answer, 1)
	go func() {
		// A parent-death signal is tied to the thread that forked, so the thread must outlive the child. It gets
		// no_new_privs too, and stays locked, so that it ends with this goroutine.
		runtime.LockOSThread()
		res, err := r.run(ctx, c)
		done <- answer{res, err}
	}()
	a := <-done
	if err := ctx.Err(); a.err != nil && errors.Is(err, context.DeadlineExceeded) {
		a.err = fmt.Errorf("deadline of %v exceeded", c.Deadline)
	} else if a.err != nil && err != nil {
		a.err = err
	}
	return a.Result, a.err
}

func (r *Runner) run(ctx context.Context, c Command) (res Result, err error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return res, fmt.Errorf("setting no_new_privs: %w", err)
	}
	// A survivor of an earlier run has the same user as this child and could change its files.
	if err := r.reap(); err != nil {
		return res, err
	}
	tmp, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", tmpPrefix, os.Getpid()))
	if err != nil {
		return res, fmt.Errorf("making the child's directory: %w", err)
	}
	defer func() {
		if rerr := removeTree(tmp); rerr != nil && err == nil {
			err = fmt.Errorf("removing the child's directory: %w", rerr)
		}
	}()
	if err := r.fill(tmp, c); err != nil {
		return res, fmt.Errorf("filling the child's directory: %w", err)
	}
	stdin, err := os.Open(filepath.Join(tmp, "stdin"))
	if err != nil {
		return res, fmt.Errorf("opening the child's input: %w", err)
	}
	defer stdin.Close()
	if r.asRoot {
		if err := os.Chown(tmp, UID, GID); err != nil {
			return res, fmt.Errorf("filling the child's directory: %w", err)
		}
	}

	cmd := exec.Command(r.path, c.Args(tmp)...)
	cmd.Dir = tmp
	cmd.Env = []string{"PATH=" + searchPath(), "HOME=" + tmp, "TMPDIR=" + tmp}
	cmd.Stdin = stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if r.asRoot {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: UID, Gid: GID, Groups: []uint32{}}
	}
	// Own pipes: those of exec.Cmd make Wait wait for every descendant that holds them.
	out, err := newPipe(maxStdout, c.FirstLine)
	if err != nil {
		return res, err
	}
	errs, err := newPipe(maxStderr, nil)
	if err != nil {
		out.abandon()
		return res, err
	}
	cmd.Stdout, cmd.Stderr = out.w, errs.w
	if err := cmd.Start(); err != nil {
		out.abandon()
		errs.abandon()
		return res, fmt.Errorf("starting the child: %w", err)
	}
	out.start()
	errs.start()
	// The child is the first victim when memory runs out. A container's shared limit may still end both.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("1000"), 0)

	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	var werr, why error
	gone := true
	select {
	case werr = <-waited:
	case <-ctx.Done():
		why = ctx.Err()
	case <-out.full:
		why = ErrOutput
	}
	if why != nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		select {
		case werr = <-waited:
		case <-time.After(reapTime): // in an uninterruptible call, or frozen
			gone = false
		}
	}
	rerr := r.reap()
	wait := reapTime
	if !gone || rerr != nil {
		wait = 0 // a process holds the pipes open
	}
	stdout, stderr := out.finish(wait), errs.finish(wait)
	res = Result{Stdout: stdout, Stderr: lastLine(stderr)}
	if gone {
		res.Exit = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	switch {
	case why != nil:
		return res, why
	case out.overflowed():
		return res, ErrOutput
	case rerr != nil:
		return res, rerr
	case werr != nil && !errors.As(werr, &exit):
		return res, fmt.Errorf("waiting for the child: %w", werr)
	case res.Exit < 0:
		return res, fmt.Errorf("child ended: %w", werr)
	}
	return res, nil
}

func (r *Runner) fill(tmp string, c Command) error {
	files := append([]File{{Path: "stdin", Data: c.Stdin, Secret: true}}, c.Files...)
	for _, f := range files {
		p := filepath.Join(tmp, f.Path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if f.Secret {
			mode = 0o400
		}
		if err := os.WriteFile(p, f.Data, mode); err != nil {
			return err
		}
		if f.Secret && r.asRoot {
			if err := os.Chown(p, UID, GID); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep removes directories of ended agents and of a predecessor with our process ID. Directories with such a name
// that belong to another user stay.
func sweep() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), tmpPrefix+"*"))
	if err != nil {
		return
	}
	for _, d := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(d), tmpPrefix), "-")
		n, err := strconv.Atoi(pid)
		if err != nil || (n != os.Getpid() && unix.Kill(n, 0) == nil) {
			continue
		}
		var st unix.Stat_t
		if unix.Lstat(d, &st) != nil || st.Uid != UID && int(st.Uid) != os.Geteuid() {
			continue
		}
		_ = removeTree(d)
	}
}

func searchPath() string {
	if p := os.Getenv("PATH"); p != "" {
		return p
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	if len(b) > 512 {
		b = b[:512]
	}
	return strings.ToValidUTF8(string(b), "?")
}

type pipe struct {
	r, w  *os.File
	max   int
	first func([]byte)
	buf   bytes.Buffer
	over  bool
	full  chan struct{} // closed when more than max came
	done  chan struct{}
}

func newPipe(limit int, first func([]byte)) (*pipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	return &pipe{r: r, w: w, max: limit, first: first, full: make(chan struct{}), done: make(chan struct{})}, nil
}

func (p *pipe) abandon() {
	p.r.Close()
	p.w.Close()
}

// start reads until every writer is gone, and drops what is over the limit.
func (p *pipe) start() {
	p.w.Close()
	go func() {
		defer close(p.done)
		br := bufio.NewReader(io.LimitReader(p.r, int64(p.max)+1))
		if p.first != nil {
			line, err := br.ReadBytes('\n')
			p.buf.Write(line)
			if err == nil {
				p.first(line)
			}
		}
		_, _ = io.Copy(&p.buf, br)
		if p.buf.Len() > p.max {
			p.over = true
			close(p.full)
			_, _ = io.Copy(io.Discard, p.r)
		}
	}()
}

// finish waits for the end of the output, at most wait: a killed writer may have survived.
func (p *pipe) finish(wait time.Duration) []byte {
	select {
	case <-p.done:
	case <-time.After(wait):
		_ = p.r.SetReadDeadline(time.Now())
		<-p.done
	}
	p.r.Close()
	return p.buf.Bytes()
}

func (p *pipe) overflowed() bool { return p.over }
