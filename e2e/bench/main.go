// Command bench measures nodetrust beside its peers, in one run on one machine, and writes docs/benchmarks.md.
// Figures are for reading; no test depends on them.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
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

	"github.com/nodetrust/nodetrust/e2e/cluster"
)

// section is a part of the page.
type section struct {
	name string
	// lab says that it needs the tests' cluster (bench.lab), which needs root.
	lab bool
	run func(ctx context.Context, w *bytes.Buffer) error
}

// sections are all parts in the order of the page. A new one is a line here and a method of bench, which writes a
// heading of the second level, what was measured and how, and a table; progress goes to b.progress.
func (b *bench) sections() []section {
	return []section{
		{"sizes", false, b.sizes},
		{"agent", false, b.agent},
		{"render", false, b.render},
		{"verify", false, b.verify},
		{"parts", false, b.verifyParts},
		{"audit", false, b.audit},
		{"hostile", false, b.hostile},
		{"flood", false, b.flood},
		{"startup", true, b.startOfLab},
		{"pod", true, b.pod},
		{"thousand", true, b.thousand},
		{"listing", true, b.listing},
	}
}

func main() {
	out := flag.String("o", "-", "where to write the page; - for standard output")
	root := flag.String("repo", "..", "the checkout, with bin/ built")
	idle := flag.Duration("idle", time.Minute, "how long idle CPU is measured")
	runs := flag.Int("runs", 40, "how often each command is run")
	tampers := flag.Int("tampers", 200, "how many tamperings are healed")
	only := flag.String("only", "", "sections, separated by commas; without it all")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	page, err := measure(ctx, *root, options{idle: *idle, runs: *runs, tampers: *tampers}, *only)
	switch {
	case page == nil:
	case *out == "-":
		_, werr := os.Stdout.Write(page)
		err = errors.Join(err, werr)
	default:
		err = errors.Join(err, os.WriteFile(*out, page, 0o644))
	}
	if err != nil {
		fatal(err)
	}
}

// measure runs the sections and returns the page. With an error it may be there as well: it names the sections that
// it lacks.
func measure(ctx context.Context, root string, o options, only string) (page []byte, err error) {
	began := time.Now()
	b, err := newBench(root, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	var w bytes.Buffer
	header(&w)
	sections := b.sections()
	want := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, name := range want {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no section %q", name)
		}
	}
	var missing []string
	unfit := cluster.Unfit()
	for _, s := range sections {
		switch {
		case len(want) > 0 && !slices.Contains(want, s.name):
			continue
		case s.lab && unfit != "":
			b.progress("%s: left out: %s", s.name, unfit)
			continue
		}
		b.progress("%s", s.name)
		var part bytes.Buffer
		if failed := s.run(ctx, &part); failed != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			// The others are still worth their time.
			b.progress("%s: error: %v", s.name, failed)
			missing = append(missing, s.name)
			continue
		}
		w.Write(part.Bytes())
	}
	if len(missing) > 0 {
		fmt.Fprintf(&w, "Not measured in this run, for an error: %s.\n\n", strings.Join(missing, ", "))
	}
	if unfit != "" {
		fmt.Fprintf(&w, "The figures of the cluster are left out: %s.\n", unfit)
	}
	b.progress("done after %s", time.Since(began).Round(time.Second))
	if len(missing) > 0 {
		err = fmt.Errorf("not measured: %s", strings.Join(missing, ", "))
	}
	return append(bytes.TrimRight(w.Bytes(), "\n"), '\n'), err
}

// progress says on standard error what is being measured.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: %s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
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

func (b *bench) sizes(_ context.Context, w *bytes.Buffer) error {
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
