package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nodetrust/nodetrust/agent"
	"github.com/nodetrust/nodetrust/agent/child"
	"github.com/nodetrust/nodetrust/agent/node"
	"github.com/nodetrust/nodetrust/internal/judge"
)

const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitBad     = 3
	exitUnknown = 4
)

// lastReport bounds what --once waits for the API server.
const lastReport = 10 * time.Second

// clearTime bounds what --restore waits for the API server.
const clearTime = time.Minute

// maxSpread is an hour: 100,000 nodes at 28 requests a second.
const maxSpread = time.Hour

const usage = `Keeps the image signature policy of one host as desired, proves with canaries
that it is enforced, and reports.

Usage:
  nodetrust-agent --host-root DIR --desired PATH [flags]
  nodetrust-agent --host-root DIR --restore [--node-name NAME]

PATH is an Ignition config, a MachineConfig, or a directory with desired.ign and
canaries.json: what nodetrust render writes. It is read again when it changes.
On a node of the Machine Config Operator nothing is written but the agent's own
memory in /var/lib/nodetrust.

--restore puts the files of the host back as they were before the first write,
removes everything of nodetrust's but the programs, and ends.

Flags:
`

const usageEnd = `
EXIT STATUS
  0  ended by SIGTERM; with --once: Enforced; with --restore: all is back
  1  the operation failed
  2  bad usage or invalid input
  3  with --once: the state is bad; with --restore: files that somebody else has
     changed were left as they are
  4  with --once: the state is Unknown

EXAMPLE
  nodetrust-agent --host-root / --desired /etc/nodetrust --once
  nodetrust-agent --host-root / --restore
`

type config struct {
	agent.Options
	nodetrust, metricsAddr, kubeconfig, logLevel string
	spread                                       time.Duration
	restore                                      bool
}

// run is the whole program but for the process: it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "nodetrust-agent: error: %v\nnodetrust-agent: hint: see nodetrust-agent --help\n", err)
		return exitUsage
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		fmt.Fprintf(stderr, "nodetrust-agent: error: --log-level must be debug, info, warn or error\n")
		return exitUsage
	}
	c.Log = slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	if c.restore {
		return c.putBack(ctx, stdout, stderr)
	}
	status, err := c.work(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "nodetrust-agent: error: %v\n", err)
		if errors.Is(err, agent.ErrDesired) {
			return exitUsage
		}
		return exitFailed
	}
	if !c.Once {
		return exitOK
	}
	if status.State == "" { // ended by a signal before there was one
		return exitFailed
	}
	fmt.Fprintf(stdout, "%s", status.State)
	if status.Reason != "" {
		fmt.Fprintf(stdout, " (%s)", status.Reason)
	}
	fmt.Fprintf(stdout, ": %s\n", status.Message)
	switch status.State {
	case judge.Enforced:
		return exitOK
	case judge.Unknown:
		return exitUnknown
	}
	return exitBad
}

// putBack is the run of --restore.
func (c *config) putBack(ctx context.Context, stdout, stderr io.Writer) int {
	left, err := c.restoreHost(ctx)
	switch {
	case errors.Is(err, agent.ErrMCO):
		fmt.Fprintln(stdout, err)
	case err != nil:
		fmt.Fprintf(stderr, "nodetrust-agent: error: %v\nnodetrust-agent: hint: --restore can be run again\n", err)
		return exitFailed
	case len(left) > 0:
		for _, l := range left {
			fmt.Fprintf(stdout, "left: %s\n", l)
		}
		fmt.Fprintf(stderr, "nodetrust-agent: error: not everything is as it was found\n"+
			"nodetrust-agent: hint: put these files right, or remove them and run --restore again; "+
			"originals stay in /var/lib/nodetrust/found\n")
		return exitBad
	default:
		fmt.Fprintln(stdout, "the host's files are as they were found, and nothing of nodetrust is left")
	}
	return exitOK
}

func (c *config) restoreHost(ctx context.Context) (left []string, err error) {
	if err := child.Harden(); err != nil {
		return nil, err
	}
	c.Child = child.New(findNodetrust(c.nodetrust))
	reporter, err := c.reporter()
	if err != nil {
		return nil, err
	}
	left, err = agent.Restore(ctx, c.Options)
	if err != nil && !errors.Is(err, agent.ErrMCO) || reporter == nil {
		return left, err
	}
	ctx, cancel := context.WithTimeout(ctx, clearTime)
	defer cancel()
	if cerr := reporter.Clear(ctx); cerr != nil {
		return left, fmt.Errorf("the files are back, the annotations of node %s are not removed: %w", c.NodeName, cerr)
	}
	return left, err
}

func parse(args []string, stdout io.Writer) (*config, error) {
	c := &config{}
	fs := flag.NewFlagSet("nodetrust-agent", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&c.HostRoot, "host-root", "", "root `DIR` of the host")
	fs.StringVar(&c.Desired, "desired", "", "`PATH` of the desired state")
	fs.StringVar(&c.Pool, "pool", "", "refuse a desired state for another pool than `P`")
	fs.StringVar(&c.NodeName, "node-name", os.Getenv("NODE_NAME"), "`NAME` of the Node to annotate (default $NODE_NAME)")
	fs.BoolVar(&c.Observe, "observe", false, "compare, probe and report, but write nothing on the host")
	fs.BoolVar(&c.Once, "once", false, "end when the state is known")
	fs.BoolVar(&c.restore, "restore", false, "put back what was on the host before, forget the rest, and end")
	fs.StringVar(&c.StatusFile, "status-file", "", "write the status as JSON to `FILE`")
	fs.StringVar(&c.metricsAddr, "metrics-addr", "", "serve /metrics and /healthz on `ADDR`")
	fs.StringVar(&c.kubeconfig, "kubeconfig", "", "`FILE` (default: the pod's ServiceAccount)")
	fs.StringVar(&c.nodetrust, "nodetrust", "", "`PATH` of the nodetrust program (default: beside this one, then $PATH)")
	fs.StringVar(&c.CRISocket, "cri-socket", "/run/crio/crio.sock", "`SOCKET` of the container runtime")
	fs.StringVar(&c.Runtime, "runtime", "auto", "auto, cri, podman or verify")
	fs.StringVar(&c.Authfile, "authfile", "", "`FILE` with logins for the canaries' registries")
	fs.DurationVar(&c.Resync, "resync", 30*time.Second, "compare everything every `D`, event or not")
	fs.DurationVar(&c.ProbeInterval, "probe-interval", 15*time.Minute, "run the canaries every `D`")
	fs.IntVar(&c.ContestedAfter, "contested-after", 10, "same foreign bytes `N` times in 10 minutes: contested")
	fs.DurationVar(&c.spread, "report-spread", node.Spread, "spread over `D` what all agents report at once")
	fs.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	tellVersion := fs.Bool("version", false, "print the version and end")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			printFlags(stdout, fs)
			fmt.Fprint(stdout, usageEnd)
		}
		return nil, err
	}
	if *tellVersion {
		fmt.Fprintf(stdout, "nodetrust-agent %s\n", version)
		return nil, flag.ErrHelp
	}
	return c, c.check(fs.Args())
}

// printFlags is fs.PrintDefaults with the two dashes that all documents use.
func printFlags(w io.Writer, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		value, does := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			does += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(w, "  --%s\n        %s\n", strings.TrimSpace(f.Name+" "+value), does)
	})
}

func (c *config) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case c.HostRoot == "":
		return errors.New("--host-root is missing")
	case c.restore && c.Observe:
		return errors.New("--restore writes, --observe forbids it: give one of them")
	case c.Desired == "" && !c.restore:
		return errors.New("--desired is missing")
	case c.Resync <= 0 || c.ProbeInterval <= 0:
		return errors.New("--resync and --probe-interval must be above zero")
	case c.spread < 0 || c.spread > maxSpread:
		return fmt.Errorf("--report-spread must be between 0 and %s", maxSpread)
	case c.ContestedAfter < 1:
		return errors.New("--contested-after must be at least 1")
	case !slices.Contains([]string{"auto", "cri", "podman", "verify"}, c.Runtime):
		return errors.New("--runtime must be auto, cri, podman or verify")
	}
	for _, p := range []*string{&c.HostRoot, &c.Desired, &c.StatusFile, &c.Authfile} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if info, err := os.Stat(c.HostRoot); err != nil || !info.IsDir() {
		return fmt.Errorf("--host-root %s is no directory", c.HostRoot)
	}
	return nil
}

// work starts what runs beside the agent, and waits for all of it.
func (c *config) work(ctx context.Context) (agent.Status, error) {
	if err := child.Harden(); err != nil {
		return agent.Status{}, err
	}
	c.Child = child.New(findNodetrust(c.nodetrust))
	c.Metrics = agent.NewMetrics()
	reporter, err := c.reporter()
	if err != nil {
		return agent.Status{}, err
	}

	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	if c.metricsAddr != "" {
		stop, err := c.serve(ctx)
		if err != nil {
			return agent.Status{}, err
		}
		defer stop()
	}
	if reporter != nil {
		c.MCO = reporter.MCO()
		c.Report = func(s agent.Status) {
			reporter.Report(node.Report{
				State: string(s.State), Reason: s.Reason, Message: s.Message, Desired: s.Desired, Observed: s.Observed,
				CheckedAt: s.CheckedAt,
			})
		}
		beside.Go(func() { reporter.Run(ctx) })
	}
	status, err := agent.Run(ctx, c.Options)
	if reporter != nil && c.Once && ctx.Err() == nil {
		cancel()
		beside.Wait()
		c.report(reporter, status)
	}
	return status, err
}

// report writes the result of --once, which does not wait for the pauses that spare the API server a herd.
func (c *config) report(r *node.Reporter, s agent.Status) {
	c.Options.Report(s)
	ctx, cancel := context.WithTimeout(context.Background(), lastReport)
	defer cancel()
	if err := r.Flush(ctx); err != nil {
		c.Log.Warn("annotations not written", "node", c.NodeName, "err", err)
	}
}

func (c *config) reporter() (*node.Reporter, error) {
	if c.NodeName == "" {
		if c.kubeconfig != "" {
			return nil, errors.New("--kubeconfig needs --node-name")
		}
		return nil, nil
	}
	client, err := node.Client(c.kubeconfig)
	if err != nil || client == nil {
		return nil, err
	}
	r := node.New(client, c.NodeName, c.spread, c.Log)
	r.RenewFrom(c.kubeconfig)
	return r, nil
}

// findNodetrust returns where the CLI is. That it is not there is reported when it is needed: files are healed
// without it.
func findNodetrust(flag string) string {
	if flag != "" {
		if abs, err := filepath.Abs(flag); err == nil {
			return abs
		}
		return flag
	}
	exe, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(exe), "nodetrust")
		if _, err := os.Stat(beside); err == nil {
			return beside
		}
	}
	found, _ := exec.LookPath("nodetrust")
	return cmp.Or(found, "nodetrust")
}
