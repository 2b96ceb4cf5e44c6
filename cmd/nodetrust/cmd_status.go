package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/outside"
)

type statusOptions struct {
	pool, agents string
	watch        bool
	cluster      cluster.Config
	out          outputFlag
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
	f := cmd.Flags()
	f.StringVar(&o.pool, "pool", "", "show the nodes of this pool only")
	f.StringVar(&o.agents, "agents", cluster.AgentsPods, "where the agents run: pods or elsewhere")
	f.BoolVarP(&o.watch, "watch", "w", false, "show changes until interrupted")
	f.StringVar(&o.cluster.Kubeconfig, "kubeconfig", "", "kubeconfig file (default: as kubectl)")
	f.StringVar(&o.cluster.Context, "context", "", "context of the kubeconfig")
	completeContext(cmd, &o.cluster)
	completePool(cmd, &o.cluster, &o.agents)
	o.out.add(cmd)
	_ = cmd.RegisterFlagCompletionFunc("agents",
		cobra.FixedCompletions([]cobra.Completion{cluster.AgentsPods, cluster.AgentsElsewhere},
			cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runStatus(cmd *cobra.Command, o statusOptions) error {
	if o.agents != cluster.AgentsPods && o.agents != cluster.AgentsElsewhere {
		return usagef("--agents %q: must be pods or elsewhere", o.agents)
	}
	client, err := cluster.New(o.cluster)
	if err != nil {
		return withHint(usageErr(err), kubeconfigHint)
	}
	s := newScreen(cmd.OutOrStdout())
	if o.watch {
		return watchStatus(cmd, o, client, s)
	}
	snapshot, err := client.Read(cmd.Context(), o.agents)
	if err != nil {
		return clusterErr(client, err)
	}
	if err := snapshot.AgentsErr; err != nil {
		say(cmd.ErrOrStderr(), "warning", err)
		fmt.Fprintln(cmd.ErrOrStderr(), "nodetrust: hint: reports are taken as they are with --agents elsewhere")
	}
	status := snapshot.Status(o.pool, time.Now())
	if len(status.Nodes) == 0 {
		return noNodes(o.pool)
	}
	if err := write(o.out, s.w, status, func(w io.Writer,
		status cluster.Status,
	) error {
		return s.status(w, status, time.Now())
	}); err != nil {
		return err
	}
	return silent(statusExit(status))
}

func noNodes(pool string) error {
	if pool == "" {
		return fmt.Errorf("the cluster has no nodes")
	}
	return fmt.Errorf("no node is in pool %s", pool)
}

func clusterErr(c *cluster.Client, err error) error {
	if cluster.IsForbidden(err) {
		return withHint(err, "this command lists nodes: ask for the right, or name another user with --kubeconfig or --context")
	}
	return withHint(err, "the API server is "+c.Server())
}

// statusExit is 3 if a node is bad, 4 if some are only unknown.
func statusExit(s cluster.Status) int {
	switch {
	case s.Summary.Bad > 0:
		return exitRefused
	case s.Summary.Unknown > 0:
		return exitUnknown
	}
	return exitOK
}

// refresh is how often a table on a terminal is drawn again for the ages in it.
const refresh = 30 * time.Second

// watchStatus shows each change until it is interrupted, which is its regular end.
func watchStatus(cmd *cobra.Command, o statusOptions, client *cluster.Client, s *screen) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	type picture struct {
		snapshot *cluster.Snapshot
		err      error
	}
	pictures := make(chan picture)
	ended := make(chan error, 1)
	go func() {
		ended <- client.Watch(ctx, o.agents, func(sn *cluster.Snapshot, err error) {
			select {
			case pictures <- picture{sn, err}:
			case <-ctx.Done():
			}
		})
	}()
	if s.tty && o.out == "text" {
		defer s.leave()
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
			if last.snapshot == nil || !s.tty {
				continue
			}
		}
		var b bytes.Buffer
		status := last.snapshot.Status(o.pool, time.Now())
		err := write(o.out, &b, status, func(w io.Writer, status cluster.Status) error {
			if len(status.Nodes) == 0 {
				fmt.Fprintln(w, noNodes(o.pool))
				return nil
			}
			return s.status(w, status, time.Now())
		})
		if err != nil {
			cancel()
			<-ended
			return err
		}
		for _, warn := range []error{last.err, last.snapshot.AgentsErr} {
			switch {
			case warn == nil:
			case s.tty && o.out == "text":
				fmt.Fprintf(&b, "\nwarning: %s; this is what was known before\n", outside.Text(warn.Error()))
			default:
				say(cmd.ErrOrStderr(), "warning", warn)
			}
		}
		if bytes.Equal(b.Bytes(), shown) {
			continue
		}
		shown = b.Bytes()
		if err := s.draw(shown, o.out == "text"); err != nil {
			cancel()
			<-ended
			return err
		}
	}
}

// screen is what is written to: a terminal, or anything else.
type screen struct {
	w             io.Writer
	tty, color    bool
	width, height func() int
	drawn         bool
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w, width: func() int { return 0 }, height: func() int { return 0 }}
	f, ok := terminalOf(w)
	if !ok {
		return s
	}
	s.tty, s.w = true, outside.NewWriter(f, screenControls...)
	s.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	size := func() (int, int) {
		w, h, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0
		}
		return w, h
	}
	s.width = func() int { w, _ := size(); return w }
	s.height = func() int { _, h := size(); return h }
	return s
}

// draw shows a picture of a watch: on a terminal in place of the last one, else below it.
func (s *screen) draw(picture []byte, text bool) error {
	if !s.tty || !text {
		if s.drawn && text {
			picture = append([]byte("\n"), picture...)
		}
		s.drawn = true
		_, err := s.w.Write(picture)
		return err
	}
	if !s.drawn {
		s.drawn = true
		fmt.Fprint(s.w, hideCursor+clearScreen)
	}
	if h := s.height(); h > 0 {
		picture = fit(picture, s.width(), h)
	}
	// Home; each line is cleared behind its end, and all below the last.
	_, err := fmt.Fprintf(s.w, home+"%s"+clearBelow, bytes.ReplaceAll(picture, []byte("\n"), []byte(clearLine+"\n")))
	return err
}

// leave gives the cursor back.
func (s *screen) leave() {
	if s.drawn {
		fmt.Fprint(s.w, showCursor)
	}
}

// fit leaves out lines before the summary, which is after the last empty line of a table, until picture fits a
// terminal of that width and height, the cursor's line included.
func fit(picture []byte, width, height int) []byte {
	lines := bytes.SplitAfter(picture, []byte("\n"))
	total := 0
	for _, l := range lines {
		total += rows(l, width)
	}
	over := total - height
	if over <= 0 {
		return picture
	}
	table := bytes.Index(picture, []byte("\n\n"))
	if table < 0 {
		keep, left := 0, height-1
		for left > 0 && keep < len(lines) {
			left -= rows(lines[keep], width)
			if left >= 0 {
				keep++
			}
		}
		return bytes.Join(lines[:max(keep, 1)], nil)
	}
	count := bytes.Count(picture[:table+1], []byte("\n"))
	keep := max(count-over-1, 1)
	out := append([][]byte{}, lines[:keep]...)
	out = append(out, fmt.Appendf(nil, "… %d more\n", count-keep))
	return bytes.Join(append(out, lines[count:]...), nil)
}

// rows is how many lines of a terminal one of text takes. Its escape sequences, which set colours, take no room.
func rows(line []byte, width int) int {
	shown, colour := 0, false
	for _, r := range string(bytes.TrimSuffix(line, []byte("\n"))) {
		switch {
		case r == '\x1b':
			colour = true
		case colour:
			colour = r != 'm'
		default:
			shown++
		}
	}
	if width <= 0 || shown == 0 {
		return 1
	}
	return (shown + width - 1) / width
}
