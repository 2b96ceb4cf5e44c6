// Command demo shows the main job of nodetrust on one machine, without root, cluster or internet: keys, a registry
// and a lookaside, signed and unsigned images, one trust.yaml, a scratch host root that an agent provisions,
// verdicts, tampering, healing, state. It ends with status 0 only if every step held.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	bin := flag.String("bin", "../bin", "where nodetrust and nodetrust-agent are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	err := run(ctx, *bin, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, out io.Writer) (err error) {
	start := time.Now()
	d, err := newDemo(bin, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	fmt.Fprintf(out, "nodetrust demo: all files below %s, all traffic on loopback\n\n", d.dir)
	for i, s := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"a signing key, a registry, a lookaside server for signatures", d.serve},
		{"images: one signed, one not, one signed that will be the canary to refuse", d.push},
		{"one trust.yaml says it all", d.writeConfig},
		{"rendered as MachineConfig (or Butane, Ignition, ConfigMap, files)", d.render},
		{"the agent applies it to a host root that had nothing", d.apply},
		{"what this host would say of each image, and why", d.verify},
		{"a second opinion: podman with the same files", d.podman},
		{"tampered with, healed", d.tamper},
		{"proven, not just configured: the state of the node", d.state},
		{"a lookaside that is down is no proof of anything", d.outage},
		{"SIGTERM ends the agent cleanly", d.stop},
	} {
		t0 := time.Now()
		fmt.Fprintf(out, "%2d. %s\n", i+1, s.title)
		if err := s.do(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			fmt.Fprintf(out, "    [FAILED] %v\n", err)
			return fmt.Errorf("step %d did not hold", i+1)
		}
		fmt.Fprintf(out, "    [ok] %.2f s\n\n", time.Since(t0).Seconds())
	}
	fmt.Fprintf(out, "Every step held, %.1f s in all.\n", time.Since(start).Seconds())
	return nil
}

// cli runs nodetrust and wants the given exit status.
func (d *demo) cli(ctx context.Context, want int, args ...string) (string, error) {
	d.say("$ nodetrust %s", strings.ReplaceAll(strings.Join(args, " "), d.dir+"/", ""))
	cmd := exec.CommandContext(ctx, d.nodetrust, args...)
	cmd.Env = d.env()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		return "", fmt.Errorf("exit status %d, want %d: %s%s", code, want, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// say prints a line below the title of the step.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "    "+format+"\n", args...)
}

// quote prints text as it is, indented.
func (d *demo) quote(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		d.say("| %s", line)
	}
}

// patience is with what takes a second: wrong is only what doesn't come on a machine that has other things to do
// either.
const patience = 2 * time.Minute

// poll looks until ok has no complaint; the pause is in the order of what is measured.
func poll(ctx context.Context, every time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", patience, err)
		case <-tick.C:
		}
	}
}

// status is the part of the agent's status file that the demo shows.
type status struct {
	State, Reason, Message, Desired, Observed, CheckedAt string

	Canaries []struct {
		Image, Expect, Runtime, Verdict, Reason string
		OK                                      bool
	}
}

func (d *demo) readStatus() (status, error) {
	var s status
	b, err := os.ReadFile(d.statusFile())
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}
