package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// logLine is what the bench reads of the agent's JSON log.
type logLine struct {
	Time  time.Time `json:"time"`
	Msg   string    `json:"msg"`
	Path  string    `json:"path"`
	State string    `json:"state"`
}

// agent starts the real agent on a host root with 50 files and measures its idle cost and how fast it heals.
func (b *bench) agent(ctx context.Context, w *bytes.Buffer) error {
	root := filepath.Join(b.dir, "root")
	ign := filepath.Join(b.dir, "desired", "desired.ign")
	if err := os.MkdirAll(filepath.Dir(ign), 0o755); err != nil {
		return err
	}
	data, err := b.nodetrust(ctx, "render", "--to", "ignition", "wide.yaml")
	if err != nil {
		return err
	}
	if err := os.WriteFile(ign, data, 0o644); err != nil {
		return err
	}
	canaries := fmt.Sprintf(`[{"image":%q,"expect":"accept"},{"image":%q,"expect":"refuse"}]`, b.signed, b.canary)
	if err := os.WriteFile(filepath.Join(filepath.Dir(ign), "canaries.json"), []byte(canaries), 0o644); err != nil {
		return err
	}
	// The probe runs unprivileged: it must be able to read the host root.
	for _, dir := range []string{b.dir, root} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "nodetrust-agent"),
		"--host-root", root, "--desired", filepath.Dir(ign), "--runtime", "verify", "--probe-interval", "1h", "--nodetrust",
		filepath.Join(b.bin, "nodetrust"))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	lines := make(chan logLine, 1024)
	go readLog(stderr, lines)
	if err := await(ctx, lines, time.Minute, func(l logLine) bool { return l.State == "Enforced" }); err != nil {
		return fmt.Errorf("waiting for Enforced: %w", err)
	}

	before, err := cpuOf(cmd.Process.Pid)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.idle):
	}
	after, err := cpuOf(cmd.Process.Pid)
	if err != nil {
		return err
	}
	rss, err := lab.ResidentMemory(cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "## The agent at rest\n\n50 files watched, full check every 30 s, no change, the probing child apart.\n\n| figure | measured | goal |\n|---|---|---|\n")
	fmt.Fprintf(w, "| resident memory | %.1f MiB | ≤ 20 MiB |\n| CPU over %s | %.2f millicores | ≤ 1 |\n\n",
		float64(rss)/(1<<20), b.idle, float64(after-before)/float64(b.idle)*1000)

	heals, err := b.heal(ctx, root, lines, b.tampers)
	if err != nil {
		return err
	}
	bare, err := bareReplace(root, b.tampers)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "## Tampering to durable heal\n\n%d tamperings, one of 50 files overwritten in place each time, at least 400 ms apart; from the return of the overwriting call\nuntil the agent's log says that file and directory are on disk. Beside it the bare cost on the same disk of writing a file, fsync,\nrename over one that was just overwritten likewise, and fsync of the directory: no writer that survives a loss of power is faster.\n\n| | p50 | p90 | p99 | max | goal |\n|---|---|---|---|---|---|\n", b.tampers)
	row := func(name string, s sample, goal string) {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", name, ms(s.percentile(50)), ms(s.percentile(90)),
			ms(s.percentile(99)), ms(s.percentile(100)), goal)
	}
	row("tamper → durable heal", heals, "p50 ≤ 2 ms, p99 ≤ 25 ms")
	row("bare fsync + rename + fsync of the directory", bare, "–")
	fmt.Fprintf(w, "\nFor comparison (measured elsewhere, not in this run): the MCO's drift monitor takes 9 ms with 50 files to notice, and doesn't heal.\n\n")
	return nil
}

// heal overwrites files one at a time with bytes never seen before and returns how long each was wrong: from the moment
// that the overwriting is done.
func (b *bench) heal(ctx context.Context, root string, lines <-chan logLine, n int) (sample, error) {
	dir := filepath.Join(root, "etc", "containers")
	files, err := filepath.Glob(filepath.Join(dir, "registries.d", "*.yaml"))
	if err != nil {
		return nil, err
	}
	files = append(files, filepath.Join(dir, "policy.json"))
	if len(files) != 50 {
		return nil, fmt.Errorf("want 50 files on the host root, found %d", len(files))
	}
	var out sample
	for i := range n {
		path := files[rand.IntN(len(files))]
		want, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		// Later events settle for 200 ms after a heal: a tampering is an event of its own only after that.
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(400 * time.Millisecond):
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, "# tampered %d %d\n", i, time.Now().UnixNano()), 0o644); err != nil {
			return nil, err
		}
		start := time.Now()
		host := strings.TrimPrefix(path, root)
		var healed time.Time
		err = await(ctx, lines, 10*time.Second, func(l logLine) bool {
			healed = l.Time
			return l.Msg == "healed file" && l.Path == host
		})
		if err != nil {
			return nil, fmt.Errorf("waiting for the heal of %s: %w", host, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			return nil, fmt.Errorf("%s is not healed although the log says so (err %v)", host, err)
		}
		out = append(out, healed.Sub(start))
	}
	return out, nil
}

// bareReplace measures write, fsync, rename and fsync of the directory, and nothing else.
func bareReplace(root string, n int) (sample, error) {
	dir := filepath.Join(root, "bare")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	data := bytes.Repeat([]byte("x"), 4096)
	var out sample
	for range n {
		time.Sleep(20 * time.Millisecond)
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("# tampered\n"), 0o644); err != nil {
			return nil, err
		}
		start := time.Now()
		f, err := os.Create(filepath.Join(dir, "new"))
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(data); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		if err := os.Rename(f.Name(), filepath.Join(dir, "file")); err != nil {
			return nil, err
		}
		d, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		if err := d.Sync(); err != nil {
			return nil, err
		}
		_ = d.Close()
		out = append(out, time.Since(start))
	}
	return out, nil
}

func readLog(r io.Reader, lines chan<- logLine) {
	defer close(lines)
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		var l logLine
		if json.Unmarshal(sc.Bytes(), &l) == nil {
			lines <- l
		} else {
			fmt.Fprintf(os.Stderr, "agent: %s\n", sc.Text())
		}
	}
}

func await(ctx context.Context, lines <-chan logLine, d time.Duration, ok func(logLine) bool) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l, open := <-lines:
			if !open {
				return fmt.Errorf("the agent ended")
			}
			if ok(l) {
				return nil
			}
		}
	}
}

// cpuOf is the CPU time of all threads of pid, its children apart, in the scheduler's own nanoseconds (clock ticks
// would miss short bursts).
func cpuOf(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("reading the threads of %d: %v", pid, err)
	}
	var sum time.Duration
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
