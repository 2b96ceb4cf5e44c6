// Command bench measures nodetrust beside its peers, in one run on one machine, and writes docs/benchmarks.md.
// Figures are for reading; no test depends on them.
package main

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	out := flag.String("o", "-", "where to write the page; - for standard output")
	root := flag.String("repo", "..", "the checkout, with bin/ built")
	idle := flag.Duration("idle", time.Minute, "how long the agent's idle CPU is measured")
	runs := flag.Int("runs", 40, "how often each command is run")
	tampers := flag.Int("tampers", 200, "how many tamperings are healed")
	only := flag.String("only", "", "one section: sizes, agent, render or verify")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b, err := newBench(*root)
	if err != nil {
		fatal(err)
	}
	defer b.close()
	var page bytes.Buffer
	header(&page)
	for _, section := range []struct {
		name string
		run  func() error
	}{
		{"sizes", func() error { return b.sizes(&page) }},
		{"agent", func() error { return b.agent(ctx, &page, *idle, *tampers) }},
		{"render", func() error { return b.render(ctx, &page, *runs) }},
		{"verify", func() error { return b.verify(ctx, &page, *runs) }},
	} {
		if *only != "" && *only != section.name {
			continue
		}
		if err := section.run(); err != nil {
			b.close()
			fatal(err)
		}
	}
	if *out == "-" {
		_, _ = os.Stdout.Write(page.Bytes())
		return
	}
	if err := os.WriteFile(*out, page.Bytes(), 0o644); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
	os.Exit(1)
}

func header(w *bytes.Buffer) {
	fmt.Fprintf(w, `# Benchmarks

Made by %[1]smake bench%[1]s in one run on one machine: nodetrust beside its peers, on loopback. Goals are those that the project
set itself; a figure above its goal is a defect to look into, not a failed test.

| machine | |
|---|---|
| CPU | %[2]d × %[3]s |
| kernel | %[4]s |
| Go | %[5]s |
| peers | %[6]s |

`, "`", runtime.NumCPU(), cpuModel(), firstLine("uname", "-sr"), runtime.Version(), strings.Join([]string{
		firstLine("skopeo", "--version"), "butane v0.29.0 (its own CLI)", firstLine("gpg", "--version"),
	}, ", "))
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return name + " (not installed)"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// usage is what one run of a command cost: elapsed time, and the CPU time of it and of the children it waited for.
type usage struct{ wall, cpu time.Duration }

// timed runs argv and returns what it cost. A command that fails is an error: no figure is made from it.
func timed(ctx context.Context, dir string, env []string, argv ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(start)}
	if err != nil {
		return u, fmt.Errorf("running %s: %w: %s", strings.Join(argv, " "), err, stderr.String())
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return u, nil
}

// sample is a set of durations.
type sample []time.Duration

func (s sample) percentile(p int) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Clone(s)
	slices.SortFunc(sorted, cmp.Compare)
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }

// interleave runs each command n times in turn, so that what else the machine does hits all alike.
func interleave(n int, run ...func() (usage, error)) (walls, cpus []sample, err error) {
	walls, cpus = make([]sample, len(run)), make([]sample, len(run))
	for i := range n + 1 {
		for j, f := range run {
			u, err := f()
			if err != nil {
				return nil, nil, err
			}
			if i > 0 { // the first is a warm-up
				walls[j], cpus[j] = append(walls[j], u.wall), append(cpus[j], u.cpu)
			}
		}
	}
	return walls, cpus, nil
}

func (b *bench) sizes(w *bytes.Buffer) error {
	fmt.Fprintf(w, "## Size\n\n| program | size | goal |\n|---|---|---|\n")
	for _, p := range []struct{ name, goal string }{{"nodetrust-agent", "≤ 18 MB"}, {"nodetrust", "–"}} {
		st, err := os.Stat(filepath.Join(b.bin, p.name))
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "| `%s` | %.1f MB | %s |\n", p.name, float64(st.Size())/1e6, p.goal)
	}
	fmt.Fprintln(w)
	return nil
}
