package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/diff"
	"github.com/nodetrust/nodetrust/internal/policy/compare"
)

type diffOptions struct {
	diff.Options
	all  bool
	live cluster.Config
}

func newDiffCommand() *cobra.Command {
	var out cli.Format
	var o diffOptions
	var at string
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare what two policies demand, scope by scope",
		Long: `Says for every scope whether B is weaker or stronger than A, equal, or incomparable, and why. Weaker means that B accepts all that
A does, and more. A scope that only one of them has is compared with what covers it in the other: the most specific scope is used
alone. Keys are compared where the key file is at hand, else by its path, which is taken to be the same file on the nodes. At hand
are the files below a host's root, those that come with a config, and for a policy.json those of this machine. OpenPGP keys are
compared by fingerprint and by what GnuPG makes of them at a time, now or --at: a key that is revoked or has expired in A and is
usable in B makes B weaker. What can't be told of a key is never equal, unless it is the same bytes.

A and B may be a trust.yaml, a policy.json, a MachineConfig, an Ignition config or a rendered ConfigMap, a directory with desired.ign, the root
directory of a host, a cluster dump with --pool, made by oc get mc,mcp,clusterversion -o yaml, or, with --pool as well, live:
the cluster that the kubeconfig names. Of a host, or a pool, all policies are compared that its runtimes may take: that of root's
home and the system's, that of CRI-O's signature_policy, those of single namespaces. Where one side has no such policy, what its
runtime takes instead is compared.

The exit status is 3 if B is weaker at any scope; 4 if at none, but incomparable at some, where B may accept what A refuses, or if
something was left out, which is named. Else it is 0: whatever B accepts, A does. What lint says doesn't load can't be
compared: 2.`,
		Example: `  nodetrust diff /etc/containers/policy.json trust.yaml
  nodetrust diff /host trust.yaml -o json
  nodetrust diff --pool worker dump.yaml.gz trust.yaml
  nodetrust diff --pool worker live trust.yaml`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(args, live) && o.live != (cluster.Config{}) {
				return cli.Usagef("--kubeconfig and --context go with live")
			}
			o.Stdin = cmd.InOrStdin()
			var err error
			if o.At, err = atTime(at); err != nil {
				return err
			}
			a, err := o.load(cmd, args[0])
			if err != nil {
				return err
			}
			b, err := o.load(cmd, args[1])
			if err != nil {
				return err
			}
			r, code := diff.Compare(a, b), cli.ExitOK
			switch {
			case r.Weaker():
				code = cli.ExitRefused
			case r.Unknown():
				code = cli.ExitUnknown
			}
			return cli.Finish(out, cmd.OutOrStdout(), r,
				func(w *cli.Screen, r diff.Report) { writeDiff(w, r, o.all) }, code)
		},
	}
	out.Add(cmd)
	addPool(cmd, &o.Pool)
	cmd.Flags().StringVar(&o.OpenShift, "openshift", "",
		"`VERSION` of the cluster, for example 4.18, if the dump has no ClusterVersion")
	cmd.Flags().StringVar(&at, "at", "", "compare keys as they are at a `TIME`, RFC 3339 or a date (default now)")
	cmd.Flags().BoolVar(&o.all, "all", false, "with text output: equal scopes too")
	addCluster(cmd, &o.live)
	return cmd
}

// atTime reads a time as --at takes it.
func atTime(s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, cli.Usagef("--at %s: must be a time such as 2026-11-29T22:00:00Z, or a date", s)
}

// load reads the policies of an input. Its errors say what is bad input, unreachable or unreadable.
func (o diffOptions) load(cmd *cobra.Command, name string) (side *diff.Side, err error) {
	if name == live {
		if o.Pool == "" {
			return nil, cli.Usagef("live needs --pool")
		}
		d, err := readCluster(cmd.Context(), live, o.live, cmd.ErrOrStderr())
		if err != nil {
			return nil, err
		}
		side, err = o.LoadPool(name, d)
		return side, diffErr(err)
	}
	side, err = o.Load(name)
	return side, diffErr(err)
}

func diffErr(err error) error {
	_, unread := errors.AsType[*diff.ReadError](err)
	switch {
	case err == nil:
		return nil
	case unread && errors.Is(err, fs.ErrPermission):
		return &cli.ExitError{Code: cli.ExitUnknown, Err: err, Hint: "run as root"}
	case errors.Is(err, diff.ErrPool):
		return cli.WithHint(cli.Usage(err), "say with --pool which pool's policy is meant")
	case errors.Is(err, mco.ErrVersion):
		return cli.WithHint(cli.Usage(err), "say --openshift 4.N")
	}
	return cli.Usage(err)
}

func writeDiff(w *cli.Screen, r diff.Report, all bool) {
	writeScopes(w, r.Scopes, all)
	for _, p := range r.Policies {
		if p.Relation == compare.Equal && !all {
			continue
		}
		fmt.Fprintf(w, "policy of %s: a: %s, b: %s\n", p.Of, p.A, p.B)
		writeScopes(w, p.Scopes, all)
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(w, "left out: %s\n", l)
	}
	fmt.Fprintf(w, "b is %s\n", map[compare.Relation]string{
		compare.Equal: "equal to a", compare.Weaker: "weaker than a", compare.Stronger: "stronger than a",
		compare.Incomparable: "not comparable with a",
	}[r.Relation])
}

func writeScopes(w *cli.Screen, scopes []compare.Scope, all bool) {
	for _, s := range scopes {
		if s.Relation == compare.Equal && !all {
			continue
		}
		name := s.Transport + ": " + s.Scope
		switch {
		case s.Transport == "":
			name = "default"
		case s.Scope == "":
			name = s.Transport
		}
		why := ""
		if s.Reason != "" {
			why = ": " + s.Reason
		}
		fmt.Fprintf(w, "%s: %s%s\n  a: %s\n  b: %s\n", name, s.Relation, why, s.A, s.B)
	}
}
