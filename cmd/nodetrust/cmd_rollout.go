package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cluster/rollout"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/source"
	"github.com/nodetrust/nodetrust/render"
)

type rolloutOptions struct {
	pool, config, desired, agents string
	readers                       []string
	wait                          bool
	timeout                       time.Duration
	cluster                       cluster.Config
	out                           cli.Format
}

func newRolloutStatusCommand() *cobra.Command {
	var o rolloutOptions
	cmd := &cobra.Command{
		Use:   "status [--pool P] [--config trust.yaml | --desired PATH]",
		Short: "Show whether MachineConfigs are rolled out and enforced",
		Long: `Says of each pool RolledOut, Progressing, Paused, Shadowed by the MachineConfig that replaces a file of ours, Degraded, NotEnforced
on some nodes, Outdated, or Unknown. A pool is RolledOut when our MachineConfig is among its sources, the rendered one has our bytes, the Machine
Config Operator has seen the pool's latest change and says Updated, every node is Done at the rendered one, and the agent of
every node says that these files are enforced. It is Outdated instead where ours was made by render --merge and what was merged has
changed since: then it has to be rendered and applied again.

--config renders the trust config (for --reader, as render does) and looks for 51-<pool>-<name>; --desired takes a rendered
MachineConfig, for example one that was merged. Without them it looks for MachineConfigs of nodetrust among the sources of the pools,
and takes the cluster's own bytes for those that were rendered.

Reads pools, nodes, the agents' pods, and MachineConfigs by name; writes nothing. --wait ends when all pools are rolled out, when one
has been bad for 15 seconds, or after --timeout.

Status 3 if a pool is Shadowed, Degraded, NotEnforced or Outdated, 4 if one is not rolled out yet or can't be told.`,
		Example: `  nodetrust rollout status
  nodetrust rollout status --config trust.yaml --reader openshift-4.18 --wait
  nodetrust rollout status --desired merged.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runRolloutStatus(cmd, o) },
	}
	addNodes(cmd, &o.cluster, &o.pool, &o.agents)
	addConfig(cmd, &o.config)
	addReaders(cmd, &o.readers)
	addDesired(cmd, &o.desired)
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until all pools are rolled out or one is bad")
	addDeadline(cmd, &o.timeout, time.Hour, "--wait")
	o.out.Add(cmd)
	return cmd
}

func runRolloutStatus(cmd *cobra.Command, o rolloutOptions) error {
	ask, err := o.ask()
	if err != nil {
		return err
	}
	client, err := openCluster(o.cluster)
	if err != nil {
		return err
	}
	w := &rolloutWait{
		read: func(ctx context.Context) (rollout.Report, error) { return readRollout(ctx, client, ask) },
		out:  o.out, screen: cli.NewScreen(cmd.OutOrStdout()), stderr: cmd.ErrOrStderr(), byConfig: o.config != "",
	}
	if o.wait {
		ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
		defer cancel()
		return w.wait(ctx)
	}
	r, err := w.read(cmd.Context())
	if err != nil {
		return err
	}
	return w.finish(r)
}

// ask makes the question out of the flags.
func (o rolloutOptions) ask() (cluster.Rollouts, error) {
	ask := cluster.Rollouts{Pool: o.pool, Agents: o.agents}
	switch {
	case o.config != "" && o.desired != "":
		return ask, cli.Usagef("--config and --desired exclude each other")
	case len(o.readers) > 0 && o.config == "":
		return ask, cli.Usagef("--reader goes with --config")
	case o.desired != "":
		state, err := source.ReadDesired(o.desired)
		if err != nil {
			return ask, cli.Usage(err)
		}
		pool := cmp.Or(o.pool, state.Pool)
		if state.Name == "" || pool == "" {
			return ask, cli.Usagef("--desired %s: is no MachineConfig of a pool", o.desired)
		}
		ask.Wanted = []cluster.Wanted{{Pool: pool, Name: state.Name, Files: state.Files}}
	case o.config != "":
		wanted, err := o.wanted()
		if err != nil {
			return ask, err
		}
		ask.Wanted = wanted
	}
	return ask, nil
}

// wanted are the MachineConfigs that render would make.
func (o rolloutOptions) wanted() (out []cluster.Wanted, err error) {
	readers, err := lookupReaders(o.readers)
	if err != nil {
		return nil, err
	}
	cfg, err := loadTrust(o.config, nil)
	if err != nil {
		return nil, err
	}
	pools, err := renderOptions{to: "machineconfig", pool: o.pool}.pools(cfg)
	if err != nil {
		return nil, err
	}
	for _, pool := range pools {
		in, err := render.New(cfg, readers, pool)
		if err != nil {
			return nil, cli.Usage(err)
		}
		out = append(out, cluster.Wanted{Pool: pool, Name: in.MachineConfigName(), Files: in.Files})
	}
	return out, nil
}

func readRollout(ctx context.Context, client *cluster.Client, ask cluster.Rollouts) (rollout.Report, error) {
	r := rollout.Report{Pools: []rollout.Verdict{}}
	snapshots, err := client.RolloutSnapshots(ctx, ask, time.Now())
	switch {
	case errors.Is(err, cluster.ErrNoPools):
		return r, cli.WithHint(err, "without the Machine Config Operator, nodetrust status tells of the nodes")
	case errors.Is(err, cluster.ErrPool):
		return r, err
	case cluster.IsForbidden(err):
		return r, cli.WithHint(err, "this command reads MachineConfigs, MachineConfigPools and nodes: ask for the right, or name another user with --kubeconfig or --context")
	case err != nil:
		return r, cli.WithHint(err, "the API server is "+client.Server())
	}
	for _, s := range snapshots {
		r.Pools = append(r.Pools, rollout.Judge(s))
	}
	return r, nil
}

// rolloutExit is 3 if a pool is bad, 4 if one is not rolled out or there is none.
func rolloutExit(r rollout.Report) int {
	switch {
	case r.Bad():
		return cli.ExitRefused
	case r.Done():
		return cli.ExitOK
	}
	return cli.ExitUnknown
}

// rolloutWait looks at a rollout, once or until it has come to an end.
type rolloutWait struct {
	read   func(context.Context) (rollout.Report, error)
	out    cli.Format
	screen *cli.Screen
	stderr io.Writer
	// byConfig is whether what is looked for was rendered of a trust config, without a cluster.
	byConfig bool
}

// wait ends with the last report that could be read. On a terminal it shows each in place of the one before.
func (w *rolloutWait) wait(ctx context.Context) error {
	live := w.screen.TTY && w.out == "text"
	if live {
		defer w.screen.Leave()
	}
	last, err := cluster.WaitRollout(ctx, cluster.Waiting{
		Read: w.read,
		Show: func(r rollout.Report) error {
			if live {
				return w.draw(r)
			}
			return nil
		},
		Warn: func(err error) { cli.Say(w.stderr, cli.Warning, "%v", err) },
	})
	switch {
	case err == nil:
		return w.finish(*last)
	case !errors.Is(err, ctx.Err()):
		return err
	}
	why := errors.New("interrupted")
	if errors.Is(err, context.DeadlineExceeded) {
		why = errors.New("not rolled out within --timeout")
	}
	code := cli.ExitUnknown
	if last != nil {
		code = rolloutExit(*last)
		if err := w.finish(*last); code == cli.ExitOK || cli.ExitOf(err) != code {
			return err
		}
	}
	return &cli.ExitError{Code: code, Err: why}
}

func (w *rolloutWait) draw(r rollout.Report) error {
	var b bytes.Buffer
	page := *w.screen
	page.W = &b
	writeRollout(&page, r)
	return w.screen.Draw(b.Bytes(), true)
}

// finish writes the report and ends with its exit status.
func (w *rolloutWait) finish(r rollout.Report) error {
	var err error
	if w.screen.Drawn {
		err = w.draw(r)
	} else {
		err = cli.Write(w.out, w.screen, r, writeRollout)
	}
	if err != nil {
		return err
	}
	if w.byConfig && slices.ContainsFunc(r.Pools,
		func(v rollout.Verdict) bool { return v.Reason == rollout.ReasonNotApplied }) {
		cli.Say(w.stderr, cli.Hint, "a MachineConfig that render --merge made has another name: give it with --desired")
	}
	return cli.Exit(rolloutExit(r))
}

// mostMessage bounds a message, of which the Machine Config Operator may have written a part.
const mostMessage = 500

// mostNodes is how many nodes of a pool are shown.
const mostNodes = 20

// writeRollout writes one line per pool, and below it the nodes that are not where they should be.
func writeRollout(s *cli.Screen, r rollout.Report) {
	if len(r.Pools) == 0 {
		fmt.Fprintln(s, "no pool has a MachineConfig of nodetrust among its sources; name one with --config or --desired")
	}
	for _, v := range r.Pools {
		fmt.Fprintf(s, "pool %s: %s: %s\n", v.Pool, rolloutState(s, v), cli.Shorten(v.Message, mostMessage))
		if v.State != rollout.Outdated && len(v.Outdated) > 0 {
			fmt.Fprintf(s, "  outdated: %s\n", cli.Shorten(strings.Join(v.Outdated, "; "), mostMessage))
		}
		if v.State == rollout.RolledOut || v.MachineConfig == "" {
			continue
		}
		shown := 0
		for _, n := range v.Nodes {
			done := n.Current == v.Rendered && n.Desired == v.Rendered && n.Daemon == "Done"
			if done && n.Agent.State == judge.Enforced && n.Agent.Desired == v.Digest {
				continue
			}
			if shown++; shown <= mostNodes {
				fmt.Fprintf(s, "  %s: %s at %s; agent: %s\n", n.Name, cli.Dash(n.Daemon), cli.Dash(n.Current),
					agentCell(n.Agent, v.Digest))
			}
		}
		if shown > mostNodes {
			fmt.Fprintf(s, "  … %d more\n", shown-mostNodes)
		}
	}
}

func agentCell(a rollout.Agent, digest string) string {
	text := cli.Dash(a.State) + because(a.Reason)
	if a.Desired != "" && a.Desired != digest {
		text += " of other files"
	}
	return text
}

// rolloutState is the state with whom it is about.
func rolloutState(s *cli.Screen, v rollout.Verdict) string {
	text := string(v.State)
	switch {
	case v.State == rollout.Shadowed:
		text += " by " + strings.Join(v.ShadowedBy, ", ")
	case v.State == rollout.NotEnforced:
		text += " on " + strings.Join(v.On[:min(len(v.On), mostNodes)], ", ")
		if len(v.On) > mostNodes {
			text += fmt.Sprintf(" and %d more", len(v.On)-mostNodes)
		}
	}
	colour := cli.Yellow
	switch {
	case v.State == rollout.RolledOut:
		colour = cli.Green
	case v.State.Bad():
		colour = cli.Red
	}
	return s.Paint(colour, text)
}
