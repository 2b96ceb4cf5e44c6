package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/outside"
)

type statusOptions struct {
	pool, agents string
	watch        bool
	cluster      cluster.Config
	out          cli.Format
}

func newStatusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [--pool P]",
		Short: "Show the state of each node, and a summary per pool",
		Long: `Shows what the agents say of their nodes: state, reason, desired and observed digest (shortened) and how long ago the state
was reported. A node without a report, of a state that can't be known, or whose report may not hold any more counts as Unknown:
its agent's pod is missing or not ready, the agent has not reported since it started, or the node is not ready. Agents write on
change only, so an old report of a live agent is as good as a new one.

Below is a line for each known hole in the verifiers of the nodes' runtimes, by the versions that they give: a distributor may
have mended one and kept the number. A hole makes no node bad; nodetrust readers --advisories tells what it lets through.

Reads nodes and the pods in namespace nodetrust, and writes nothing. With --agents elsewhere the pods are not read: for agents
that are services of their hosts, whose reports are then taken as they are.

Status 3 if a node's state is bad, 4 if some are only Unknown.`,
		Example: `  nodetrust status
  nodetrust status --pool worker -o json
  kubectl nodetrust status --watch`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd, o) },
	}
	addNodes(cmd, &o.cluster, &o.pool, &o.agents)
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "show changes until interrupted")
	o.out.Add(cmd)
	return cmd
}

func runStatus(cmd *cobra.Command, o statusOptions) error {
	client, err := openCluster(o.cluster)
	if err != nil {
		return err
	}
	s := cli.NewScreen(cmd.OutOrStdout())
	if o.watch {
		return watchStatus(cmd, o, client, s)
	}
	snapshot, err := client.Read(cmd.Context(), o.agents)
	if err != nil {
		return clusterErr(client, err)
	}
	if err := snapshot.AgentsErr; err != nil {
		cli.Say(cmd.ErrOrStderr(), cli.Warning, "%v", err)
		cli.Say(cmd.ErrOrStderr(), cli.Hint, "reports are taken as they are with --agents elsewhere")
	}
	status := snapshot.Status(o.pool, time.Now())
	if len(status.Nodes) == 0 {
		return noNodes(o.pool)
	}
	return cli.Finish(o.out, s, status,
		func(s *cli.Screen, st cluster.Status) { writeStatus(s, st, time.Now()) }, statusExit(status))
}

func noNodes(pool string) error {
	if pool == "" {
		return fmt.Errorf("the cluster has no nodes")
	}
	return fmt.Errorf("no node is in pool %s", pool)
}

func clusterErr(c *cluster.Client, err error) error {
	if cluster.IsForbidden(err) {
		return cli.WithHint(err, "this command lists nodes: ask for the right, or name another user with --kubeconfig or --context")
	}
	return cli.WithHint(err, "the API server is "+c.Server())
}

// statusExit is 3 if a node is bad, 4 if some are only unknown.
func statusExit(s cluster.Status) int {
	switch {
	case s.Summary.Bad > 0:
		return cli.ExitRefused
	case s.Summary.Unknown > 0:
		return cli.ExitUnknown
	}
	return cli.ExitOK
}

// refresh is how often a table on a terminal is drawn again for the ages in it.
const refresh = 30 * time.Second

// watchStatus shows each change until it is interrupted, which is its regular end.
func watchStatus(cmd *cobra.Command, o statusOptions, client *cluster.Client, s *cli.Screen) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	type picture struct {
		snapshot *cluster.Snapshot
		err      error
	}
	pictures := make(chan picture)
	ended := make(chan error, 1)
	defer func() {
		cancel()
		for range ended { // until the watch has ended
		}
	}()
	go func() {
		defer close(ended)
		ended <- client.Watch(ctx, o.agents, func(sn *cluster.Snapshot, err error) {
			select {
			case pictures <- picture{sn, err}:
			case <-ctx.Done():
			}
		})
	}()
	if s.TTY && o.out == "text" {
		defer s.Leave()
	}
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	var last picture
	var shown []byte
	for {
		select {
		case err := <-ended:
			if err != nil {
				return clusterErr(client, err)
			}
			return nil
		case last = <-pictures:
		case <-tick.C:
			if last.snapshot == nil || !s.TTY {
				continue
			}
		}
		var b bytes.Buffer
		page := *s
		page.W = &b
		err := cli.Write(o.out, &page, last.snapshot.Status(o.pool, time.Now()), func(s *cli.Screen, st cluster.Status) {
			if len(st.Nodes) == 0 {
				fmt.Fprintln(s, noNodes(o.pool))
				return
			}
			writeStatus(s, st, time.Now())
		})
		if err != nil {
			return err
		}
		for _, warn := range []error{last.err, last.snapshot.AgentsErr} {
			switch {
			case warn == nil:
			case s.TTY && o.out == "text":
				fmt.Fprintf(&b, "\nwarning: %s; this is what was known before\n", outside.Text(warn.Error()))
			default:
				cli.Say(cmd.ErrOrStderr(), cli.Warning, "%v", warn)
			}
		}
		if bytes.Equal(b.Bytes(), shown) {
			continue
		}
		shown = b.Bytes()
		if err := s.Draw(shown, o.out == "text"); err != nil {
			return err
		}
	}
}
