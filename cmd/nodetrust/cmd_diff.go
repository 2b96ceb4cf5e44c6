package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/lint"
	"github.com/nodetrust/nodetrust/internal/source"
	"github.com/nodetrust/nodetrust/internal/trust"
)

type diffOptions struct {
	at    time.Time // when keys are looked at
	pool  string
	minor string
	all   bool
	live  cluster.Config
	stdin io.Reader
	// notes takes what is to be said of a live cluster.
	notes io.Writer
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
			o.notes, o.stdin = cmd.ErrOrStderr(), cmd.InOrStdin()
			var err error
			if o.at, err = atTime(at); err != nil {
				return err
			}
			a, err := o.load(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			b, err := o.load(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			r := compareSides(a, b)
			if err := cli.Write(out, cmd.OutOrStdout(), r,
				func(w io.Writer, r diffReport) error { return writeDiff(w, r, o.all) }); err != nil {
				return err
			}
			return cli.Exit(r.exit())
		},
	}
	out.Add(cmd)
	addPool(cmd, &o.pool)
	cmd.Flags().StringVar(&o.minor, "openshift", "",
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

// load reads the policies of whatever form. Errors are bad input, but for those of reaching a live cluster, and of
// files that the caller may not read.
func (o diffOptions) load(ctx context.Context, name string) (*diffSide, error) {
	s, err := o.side(ctx, name)
	if err != nil {
		var e *cli.ExitError
		switch {
		case errors.As(err, &e):
			return nil, err
		case errors.Is(err, fs.ErrPermission):
			return nil, &cli.ExitError{Code: cli.ExitUnknown, Err: fmt.Errorf("reading %s: %w", name, err), Hint: "run as root"}
		}
		return nil, cli.Usage(fmt.Errorf("reading %s: %w", name, err))
	}
	return s, s.parse(name, o.at)
}

// side finds the policies in what name stands for, and where the key files are that they name.
func (o diffOptions) side(ctx context.Context, name string) (*diffSide, error) {
	if name == live {
		if o.pool == "" {
			return nil, cli.Usagef("live needs --pool")
		}
		d, err := readCluster(ctx, live, o.live, o.notes)
		if err != nil {
			return nil, err
		}
		return o.ofPool(d)
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		if _, err := os.Stat(filepath.Join(name, desired.IgnitionFile)); err == nil {
			s, err := desired.Load(name)
			if err != nil {
				return nil, err
			}
			return fromFiles(s.Files)
		}
		return hostSide(name)
	}
	in, err := source.Read(name, o.stdin)
	if err != nil {
		return nil, err
	}
	switch in.Kind {
	case source.Trust:
		cfg, err := source.ParseTrust(name, in.Data)
		if err != nil {
			return nil, cli.Usage(err)
		}
		files, err := cfg.Files(nil)
		if err != nil {
			return nil, cli.Usage(err)
		}
		return fromFiles(files)
	case source.Policy:
		return &diffSide{found: []lint.HostPolicy{{Path: name, Data: in.Data}}, read: ofThisMachine}, nil
	case source.Desired:
		docs, err := source.Documents(in.Data)
		if err != nil {
			return nil, err
		}
		var top struct {
			Kind     string
			Ignition any
		}
		var s *desired.State
		switch err = yaml.Unmarshal(docs[0], &top); {
		case err == nil && len(docs) == 1 && top.Kind == "MachineConfig":
			s, err = lint.ReadDesired(docs[0])
		case err == nil && len(docs) == 1 && top.Ignition != nil:
			s, err = desired.Extract(docs[0], func(string) bool { return true })
		default:
			return o.dumped(in.Data)
		}
		if err != nil {
			return nil, err
		}
		return fromFiles(s.Files)
	}
	return o.dumped(in.Data)
}

// ofThisMachine reads a key file that a policy.json names, where verify reads it too.
func ofThisMachine(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, fs.ErrNotExist
	}
	return hostfs.ThisMachine.ReadFile(path, trust.MaxKeyFile)
}

func fromFiles(files trust.FileSet) (*diffSide, error) {
	policies, err := lint.PoliciesOfFiles(files)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it has no %s", trust.PolicyPath)
	}
	if err != nil {
		return nil, err
	}
	if err := lint.LoadRegistries(files); err != nil {
		return nil, err
	}
	return &diffSide{found: policies.Policies, leftOut: policies.LeftOut, read: func(path string) ([]byte, error) {
		if f, ok := files.Get(path); ok {
			return f.Data, nil
		}
		return nil, fs.ErrNotExist
	}}, nil
}

// hostSide are the policies that the runtimes of a host may take.
func hostSide(root string) (*diffSide, error) {
	policies, err := lint.PoliciesOfHost(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("a host's root directory has etc/containers/policy.json, which is missing")
	}
	if err != nil {
		return nil, err
	}
	return &diffSide{
		found: policies.Policies, leftOut: policies.LeftOut, whole: true,
		read: func(path string) ([]byte, error) { return hostfs.Root(root).ReadFile(path, trust.MaxKeyFile) },
	}, nil
}

// dumped merges the MachineConfigs of a pool; a single one is its own pool.
func (o diffOptions) dumped(data []byte) (*diffSide, error) {
	d, err := mco.ParseDump(data)
	if err != nil {
		return nil, fmt.Errorf("is no trust.yaml, policy.json, MachineConfig, Ignition config or cluster dump: %w", err)
	}
	if len(d.Configs) == 1 {
		return fromConfigs(mco.Merge(d.Configs))
	}
	if o.pool == "" {
		return nil, cli.WithHint(cli.Usagef("it holds several MachineConfigs"),
			"say with --pool which pool's policy is meant")
	}
	return o.ofPool(d)
}

// ofPool is what the pool's nodes get.
func (o diffOptions) ofPool(d *mco.Dump) (*diffSide, error) {
	minor := d.Minor
	if o.minor != "" {
		r, err := trust.LookupReader("openshift-" + o.minor)
		if err != nil {
			return nil, cli.Usagef("--openshift %s: must be a version such as 4.18", o.minor)
		}
		minor = r.OpenShift
	}
	files, err := d.PoolFiles(o.pool, minor)
	if errors.Is(err, mco.ErrVersion) {
		return nil, cli.WithHint(cli.Usage(err), "say --openshift 4.N")
	}
	if err != nil {
		return nil, err
	}
	return fromConfigs(files)
}

// fromConfigs is fromFiles of those that MachineConfigs write.
func fromConfigs(owned map[string]mco.Owned) (*diffSide, error) {
	var files trust.FileSet
	var leftOut []string
	for _, p := range slices.Sorted(maps.Keys(owned)) {
		f := owned[p]
		switch {
		case f.Err == nil:
			files = append(files, trust.File{Path: p, Data: f.Data})
		case p == trust.PolicyPath || path.Dir(p) == trust.RegistriesDir:
			return nil, fmt.Errorf("%s of %s: %w", p, f.Owner.Name, f.Err)
		case lint.NamesPolicies(p):
			leftOut = append(leftOut, fmt.Sprintf("%s of %s: %v", p, f.Owner.Name, f.Err))
		}
	}
	s, err := fromFiles(files)
	if err != nil {
		return nil, err
	}
	s.leftOut, s.whole = append(s.leftOut, leftOut...), true
	return s, nil
}
