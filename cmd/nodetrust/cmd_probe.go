package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/probe"
	"github.com/nodetrust/nodetrust/internal/source"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// verifyTimeout bounds the library's judgement of one canary.
const verifyTimeout = 30 * time.Second

type probeFlags struct {
	out      cli.Format
	policy   policyFlags
	canaries string
	desired  string
	timeout  time.Duration
	announce bool
	remove   bool
	opts     probe.Options
	reach    reachFlags
}

func newProbeCommand(env verify.Env) *cobra.Command {
	f := probeFlags{policy: policyFlags{env: env}}
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Run the canaries now, on this node",
		Long: `Has this node's own container runtimes pull the canaries: an image that must be accepted and one that must be
refused for its signatures. Only both together prove that the policy is enforced. nodetrust judges them with its own
library as well; where it disagrees with the runtime that is said in the message and decides nothing. Where a runtime's verifier has a known hole by its version number, an Enforced
says so in its reason and message (see nodetrust readers --advisories): no canary can tell.

Runtimes: cri (PullImage on --cri-socket; also once in the context of each namespaced policy of CRI-O), podman (with a
store of its own, the node's is not touched), verify (the library alone). auto takes cri if the socket is there, and podman
if it is installed and this is no container. Images that were not there before are removed again.

The canaries are those of --canaries, --desired or --config; what judges is what --config renders to, unless --policy or --root is
given. --cert-dir, --tls-verify and --platform are for podman and verify.`,
		Example: `  nodetrust probe --config trust.yaml
  nodetrust probe --canaries canaries.json --runtime podman -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	f.out.Add(cmd)
	f.policy.add(cmd)
	addDesired(cmd, &f.desired)
	fl.StringVar(&f.canaries, "canaries", "", "JSON `FILE` with a list of {\"image\",\"expect\"}, - for stdin")
	f.opts.Runtime = probe.Auto
	cli.Choice(cmd, &f.opts.Runtime, "runtime", "", "string", "auto, cri, podman or verify",
		probe.Auto, probe.CRI, probe.Podman, probe.Verify)
	addCRISocket(cmd, &f.opts.CRISocket)
	addAuthfile(cmd, &f.opts.Authfile)
	f.reach.add(cmd)
	addDeadline(cmd, &f.timeout, 100*time.Second, "the whole round; canaries that are not through by then are unknown")
	fl.BoolVar(&f.announce, "announce", false, "first write the line {\"absent\":[…]}: the images that the round may leave behind if it is killed; results are compact JSON")
	fl.StringArrayVar(&f.opts.Owned, "owned", nil,
		"`IMAGE` that an earlier round left behind: counts as absent (repeatable)")
	fl.BoolVar(&f.opts.KeepAccepted, "keep-accepted", false, "leave the images of accept-canaries in the store")
	fl.BoolVar(&f.remove, "remove", false, "do not probe: remove the --owned images from the CRI store")
	return cmd
}

func (f *probeFlags) run(cmd *cobra.Command) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	if f.remove {
		return probe.Remove(ctx, f.opts.Owned, f.opts)
	}
	canaries, err := f.readCanaries(cmd)
	if err != nil {
		return err
	}
	stdout := cmd.OutOrStdout()
	if len(canaries) == 0 && f.canaries == "" {
		return f.finish(stdout, probe.NoCanaries(cmp.Or(f.desired, f.policy.config)))
	}
	if err := probe.CheckCanaries(canaries); err != nil {
		return cli.Usage(err)
	}
	f.opts.Environ = f.policy.env.Environ
	reach := f.reach.options()
	f.opts.CertDir, f.opts.TLSVerify, f.opts.Platform = reach.CertDir, reach.TLSVerify, reach.Platform
	by, onHost, err := f.openPolicy()
	if err != nil {
		return err
	}
	defer by.Close()
	f.opts.Root, f.opts.Verify = f.policy.root, by.Image
	if f.announce {
		f.opts.Announce = func(absent []string) error {
			return json.NewEncoder(stdout).Encode(map[string][]string{"absent": absent})
		}
	}
	results, err := probe.Run(ctx, canaries, f.opts)
	if err != nil {
		return err
	}
	res := probe.Judge(results, probe.Runtimes(ctx, f.opts), f.opts)
	if onHost && by.policy != nil {
		res.Keys = probe.Keys(cmp.Or(f.policy.root, "/"), by.policy.File)
	}
	return f.finish(stdout, res)
}

// finish writes the result and ends with its exit status.
func (f *probeFlags) finish(w io.Writer, res judge.Probe) error {
	var err error
	if f.announce {
		err = json.NewEncoder(w).Encode(res)
	} else {
		err = cli.Write(f.out, cli.NewScreen(w), res, writeProbe)
	}
	if err != nil {
		return err
	}
	return cli.Exit(stateExit(res.State))
}

func stateExit(s judge.State) int {
	switch s {
	case judge.Enforced:
		return cli.ExitOK
	case judge.NotEnforced, judge.Blocked:
		return cli.ExitRefused
	}
	return cli.ExitUnknown
}

// readCanaries takes the canaries of --canaries, --desired or --config, in this order.
func (f *probeFlags) readCanaries(cmd *cobra.Command) ([]trust.Canary, error) {
	switch {
	case f.canaries != "":
		read := func() ([]byte, error) { return bounded.ReadFile(f.canaries, trust.MaxConfig) }
		usage := cli.Usage
		if f.canaries == "-" {
			read = func() ([]byte, error) { return bounded.Read(cmd.InOrStdin(), trust.MaxConfig) }
			usage = func(err error) error { return err }
		}
		b, err := read()
		if err != nil {
			return nil, usage(fmt.Errorf("reading canaries: %w", err))
		}
		out, err := trust.ParseCanaries(b)
		if err != nil {
			return nil, cli.Usage(err)
		}
		return out, nil
	case f.desired != "":
		s, err := source.ReadDesired(f.desired)
		if err != nil {
			return nil, cli.Usage(err)
		}
		return s.Canaries, nil
	case f.policy.config != "":
		cfg, err := loadTrust(f.policy.config, nil)
		if err != nil {
			return nil, err
		}
		return cfg.Canaries, nil
	}
	return nil, cli.WithHint(cli.Usagef("no canaries given"), "use --config, --desired or --canaries")
}

// openPolicy opens the policy that verify judges by: --policy, else the host below --root, else what --config renders
// to, else this machine's. It is onHost if it is a host's.
func (f *probeFlags) openPolicy() (by *judging, onHost bool, err error) {
	flags := f.policy
	if flags.policy != "" || flags.root != "" {
		flags.config, flags.keys = "", nil
	}
	// The agent's child may not look into root's home; the agent itself does.
	flags.hiddenHome = f.announce
	o := f.reach.options()
	o.AuthFile, o.Timeout = f.opts.Authfile, verifyTimeout
	if err := o.Check(); err != nil {
		return nil, false, cli.Usage(err)
	}
	by, err = flags.judge(o)
	return by, flags.policy == "" && flags.config == "", err
}

func writeProbe(s *cli.Screen, r judge.Probe) {
	fmt.Fprintf(s, "%s%s", r.State, because(r.Reason))
	if r.Message != "" {
		fmt.Fprintf(s, ": %s", r.Message)
	}
	fmt.Fprintln(s)
	if len(r.Canaries) == 0 {
		return
	}
	fmt.Fprintln(s)
	type column = cli.Column[judge.Canary]
	cli.Table(s, r.Canaries,
		column{Cell: func(c judge.Canary) string { return map[bool]string{true: "ok", false: "no"}[c.OK] }},
		column{Head: "RUNTIME", Cell: func(c judge.Canary) string {
			return strings.TrimSuffix(c.Runtime+"/"+c.Namespace, "/")
		}},
		column{Head: "EXPECT", Cell: func(c judge.Canary) string { return string(c.Expect) }},
		column{Head: "VERDICT", Cell: func(c judge.Canary) string { return string(c.Answer) }},
		column{Head: "REASON", Cell: func(c judge.Canary) string { return cli.Dash(c.Reason) }},
		column{Head: "IMAGE", Cell: func(c judge.Canary) string { return c.Image }})
}
