package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/cluster"
	"github.com/nodetrust/nodetrust/cluster/mco"
	"github.com/nodetrust/nodetrust/desired"
	"github.com/nodetrust/nodetrust/lint"
	"github.com/nodetrust/nodetrust/strength"
	"github.com/nodetrust/nodetrust/trust"
	"github.com/nodetrust/nodetrust/verify"
	"github.com/nodetrust/nodetrust/verify/hostfs"
)

// maxPolicy bounds a policy.json on a host.
const maxPolicy = 4 << 20

type diffOptions struct {
	pool  string
	minor string
	all   bool
	live  cluster.Config
	// notes takes what is to be said of a live cluster.
	notes io.Writer
}

func newDiffCommand() *cobra.Command {
	var out outputFlag
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare what two policies demand, scope by scope",
		Long: `Says for every scope whether B is weaker or stronger than A, equal, or incomparable, and why. Weaker means that B accepts all that
A does, and more. A scope that only one of them has is compared with what covers it in the other: the most specific scope is used
alone. Keys are compared by their fingerprints where the key file is at hand, else by its path, which is taken to be the same file on
the nodes. At hand are the files below a host's root, those that come with a config, and for a policy.json those of this machine.

A and B may be a trust.yaml, a policy.json, a MachineConfig or Ignition config, a directory with desired.ign, the root
directory of a host, a cluster dump with --pool, made by oc get mc,mcp,clusterversion -o yaml, or, with --pool as well, live:
the cluster that the kubeconfig names.

The exit status is 3 if B is weaker at any scope; 4 if at none, but incomparable at some: B may accept there what A refuses. Else
it is 0: whatever B accepts, A does. What lint says doesn't load can't be compared: 2.`,
		Example: `  nodetrust diff /etc/containers/policy.json trust.yaml
  nodetrust diff /host trust.yaml -o json
  nodetrust diff --pool worker dump.yaml.gz trust.yaml
  nodetrust diff --pool worker live trust.yaml`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			verify.Isolate()
			if !slices.Contains(args, live) && o.live != (cluster.Config{}) {
				return usagef("--kubeconfig and --context go with live")
			}
			o.notes = cmd.ErrOrStderr()
			a, err := o.load(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			b, err := o.load(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			r := strength.Compare(a, b)
			if err := write(out, cmd.OutOrStdout(), r, func(w io.Writer, r strength.Report) error { return writeDiff(w, r, o.all) }); err != nil {
				return err
			}
			switch {
			case r.Has(strength.Weaker):
				return silent(exitRefused)
			case r.Has(strength.Incomparable):
				return silent(exitUnknown)
			}
			return nil
		},
	}
	out.add(cmd)
	cmd.Flags().StringVar(&o.pool, "pool", "", "`POOL` of a cluster, or of several MachineConfigs in one file")
	cmd.Flags().StringVar(&o.minor, "openshift", "", "`VERSION` of the cluster, for example 4.18, if the dump has no ClusterVersion")
	cmd.Flags().BoolVar(&o.all, "all", false, "with text output: equal scopes too")
	cmd.Flags().StringVar(&o.live.Kubeconfig, "kubeconfig", "", "for live: kubeconfig file (default: as kubectl)")
	cmd.Flags().StringVar(&o.live.Context, "context", "", "for live: context of the kubeconfig")
	completeContext(cmd, &o.live)
	return cmd
}

func writeDiff(w io.Writer, r strength.Report, all bool) error {
	for _, s := range r.Scopes {
		if s.Relation == strength.Equal && !all {
			continue
		}
		name := s.Transport + ": " + s.Scope
		switch {
		case s.Transport == "":
			name = "default"
		case s.Scope == "":
			name = s.Transport
		}
		fmt.Fprintf(w, "%s: %s", name, s.Relation)
		if s.Reason != "" {
			fmt.Fprintf(w, ": %s", s.Reason)
		}
		fmt.Fprintf(w, "\n  a: %s\n  b: %s\n", s.A, s.B)
	}
	_, err := fmt.Fprintf(w, "b is %s\n", map[strength.Relation]string{
		strength.Equal: "equal to a", strength.Weaker: "weaker than a", strength.Stronger: "stronger than a", strength.Incomparable: "not comparable with a",
	}[r.Relation])
	return err
}

// load reads a policy of whatever form. All errors are bad input, but for those of reaching a live cluster.
func (o diffOptions) load(ctx context.Context, name string) (*strength.Policy, error) {
	data, read, err := o.policy(ctx, name)
	if err != nil {
		var e *exitError
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, usageErr(fmt.Errorf("reading %s: %w", name, err))
	}
	if err := lint.LoadPolicy(data, name); err != nil {
		return nil, usageErr(err)
	}
	p, err := strength.Parse(data, read)
	if err != nil {
		return nil, usageErr(fmt.Errorf("reading %s: %w", name, err))
	}
	return p, nil
}

// policy finds the policy.json in what name stands for, and where the key files are that it names.
func (o diffOptions) policy(ctx context.Context, name string) ([]byte, strength.ReadKey, error) {
	if name == live {
		if o.pool == "" {
			return nil, nil, usagef("live needs --pool")
		}
		d, err := readCluster(ctx, live, o.live, o.notes)
		if err != nil {
			return nil, nil, err
		}
		return o.ofPool(d)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() {
		if _, err := os.Stat(filepath.Join(name, desired.IgnitionFile)); err == nil {
			s, err := desired.Load(name)
			if err != nil {
				return nil, nil, err
			}
			return fromFiles(s.Files)
		}
		return hostPolicy(name)
	}
	data, err := readLimited(name, mco.MaxDump)
	if err != nil {
		return nil, nil, err
	}
	switch kind := kindOf(data); {
	case kind == trust.ObjectKind:
		cfg, err := loadTrust(name, nil)
		if err != nil {
			return nil, nil, err
		}
		files, err := cfg.Files(nil)
		if err != nil {
			return nil, nil, usageErr(err)
		}
		return fromFiles(files)
	case kind == "policy":
		return data, ofThisMachine, nil
	case kind == machineConfigKind:
		s, err := lint.ReadDesired(data)
		if err != nil {
			return nil, nil, err
		}
		return fromFiles(s.Files)
	case kind == "ignition":
		s, err := desired.Extract(data, func(string) bool { return true })
		if err != nil {
			return nil, nil, err
		}
		return fromFiles(s.Files)
	}
	return o.dumped(data)
}

// ofThisMachine reads a key file that a policy.json names, where verify reads it too.
func ofThisMachine(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, fs.ErrNotExist
	}
	return hostfs.ThisMachine.ReadFile(path, trust.MaxKeyFile)
}

const machineConfigKind = "MachineConfig"

// kindOf is the kind of a Kubernetes object, policy, ignition, or empty for several MachineConfigs and everything else.
func kindOf(data []byte) string {
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) || len(data) > maxPolicy {
		return ""
	}
	var top struct {
		Kind     string `json:"kind" yaml:"kind"`
		Default  any    `json:"default" yaml:"default"`
		Ignition any    `json:"ignition" yaml:"ignition"`
	}
	var dec interface{ Decode(any) error } = yaml.NewDecoder(bytes.NewReader(data))
	inJSON := bytes.HasPrefix(bytes.TrimSpace(data), []byte("{"))
	if inJSON {
		dec = json.NewDecoder(bytes.NewReader(data))
	}
	err := dec.Decode(&top)
	switch {
	case err != nil && inJSON:
		return "policy" // the image library says what is wrong with it
	case err != nil:
		return ""
	case top.Kind == machineConfigKind && !errors.Is(dec.Decode(new(any)), io.EOF):
		return ""
	case top.Kind == "" && top.Default != nil:
		return "policy"
	case top.Ignition != nil:
		return "ignition"
	}
	return top.Kind
}

func fromFiles(files trust.FileSet) ([]byte, strength.ReadKey, error) {
	p, ok := files.Get(trust.PolicyPath)
	if !ok {
		return nil, nil, fmt.Errorf("it has no %s", trust.PolicyPath)
	}
	if err := lint.LoadRegistries(files); err != nil {
		return nil, nil, err
	}
	return p.Data, func(path string) ([]byte, error) {
		if f, ok := files.Get(path); ok {
			return f.Data, nil
		}
		return nil, fs.ErrNotExist
	}, nil
}

// hostPolicy is the policy.json that root's processes read on a host.
func hostPolicy(root string) ([]byte, strength.ReadKey, error) {
	for _, p := range []string{"/root/.config/containers/policy.json", trust.PolicyPath, "/usr/share/containers/policy.json"} {
		data, err := hostfs.Root(root).ReadFile(p, maxPolicy)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return data, func(path string) ([]byte, error) { return hostfs.Root(root).ReadFile(path, trust.MaxKeyFile) }, err
	}
	return nil, nil, fmt.Errorf("a host's root directory has etc/containers/policy.json, which is missing")
}

// dumped merges the MachineConfigs of a pool; a single one is its own pool.
func (o diffOptions) dumped(data []byte) ([]byte, strength.ReadKey, error) {
	d, err := mco.ParseDump(data)
	if err != nil {
		return nil, nil, fmt.Errorf("is no trust.yaml, policy.json, MachineConfig, Ignition config or cluster dump: %w", err)
	}
	if len(d.Configs) == 1 {
		return fromConfigs(mco.Merge(d.Configs))
	}
	if o.pool == "" {
		return nil, nil, withHint(usagef("it holds several MachineConfigs"), "say with --pool which pool's policy is meant")
	}
	return o.ofPool(d)
}

// ofPool is what the pool's nodes get.
func (o diffOptions) ofPool(d *mco.Dump) ([]byte, strength.ReadKey, error) {
	minor := d.Minor
	if o.minor != "" {
		r, err := trust.LookupReader("openshift-" + o.minor)
		if err != nil {
			return nil, nil, usagef("--openshift %s: must be a version such as 4.18", o.minor)
		}
		minor = r.OpenShift
	}
	files, err := d.PoolFiles(o.pool, minor)
	if errors.Is(err, mco.ErrVersion) {
		return nil, nil, withHint(usageErr(err), "say --openshift 4.N")
	}
	if err != nil {
		return nil, nil, err
	}
	return fromConfigs(files)
}

// fromConfigs is fromFiles of those that MachineConfigs write.
func fromConfigs(owned map[string]mco.Owned) ([]byte, strength.ReadKey, error) {
	var files trust.FileSet
	for _, p := range slices.Sorted(maps.Keys(owned)) {
		f := owned[p]
		switch {
		case f.Err == nil:
			files = append(files, trust.File{Path: p, Data: f.Data})
		case p == trust.PolicyPath || path.Dir(p) == trust.RegistriesDir:
			return nil, nil, fmt.Errorf("%s of %s: %w", p, f.Owner.Name, f.Err)
		}
	}
	return fromFiles(files)
}
