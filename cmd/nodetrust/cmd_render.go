package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/cluster/place"
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/source"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/render"
)

// renderFormats are the values of --to.
var renderFormats = []string{
	"files", "butane", "machineconfig", "ignition", "configmap", "bundle", "nodedisruptionpolicy",
}

type renderOptions struct {
	to      string
	pool    string
	readers []string
	output  string
	cluster string
	merge   bool
	live    cluster.Config
	// noReboot refuses what would reboot nodes.
	noReboot bool
	// audit is the JSON of an audit to warn by.
	audit string
}

func newRenderCommand() *cobra.Command {
	var o renderOptions
	cmd := &cobra.Command{
		Use:   "render --to FORMAT FILE",
		Short: "Render a trust config into what brings it to nodes",
		Long: `Renders a trust config. The same input always gives the same bytes.

  files          policy.json and registries.d as a tree below a directory (needs -o DIR)
  butane         Butane configs of variant openshift
  machineconfig  MachineConfigs 51-<pool>-<name> for the Machine Config Operator
  ignition       the Ignition config alone
  configmap      ConfigMaps nodetrust-<pool> for nodetrust-agent
  bundle         a shell script that brings the files to a host which no operator manages; see docs/bundle.md
  nodedisruptionpolicy  the MachineConfiguration that keeps OpenShift 4.16 and later from rebooting nodes for the files

Each pool of the config is a document of its own on stdout, or a file of its own in -o DIR. --reader names who will read the
files; what one of them doesn't understand is an error. The default is openshift-4.14 and the current library. FILE may be - for
stdin; key files are then relative to the current directory.`,
		Example: `  nodetrust render --to machineconfig trust.yaml | oc apply -f -
  nodetrust render --to machineconfig --reader openshift-4.18 --pool worker trust.yaml
  nodetrust render --to machineconfig --cluster live --merge trust.yaml
  nodetrust render --to files -o out trust.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRender(cmd, o, args[0])
		},
	}
	cmd.Flags().StringVar(&o.to, "to", "", "format: "+cli.Either(renderFormats))
	addPool(cmd, &o.pool)
	addReaders(cmd, &o.readers)
	cmd.Flags().StringVar(&o.cluster, "cluster", "",
		"with --to machineconfig: live, or a `FILE` made by oc get mc,mcp,clusterversion -o yaml (or json, or gzip of them); refuse what would have no effect there")
	cmd.Flags().BoolVar(&o.merge, "merge", false,
		"with --cluster: keep what the cluster's own policy.json demands, and sort last")
	addCluster(cmd, &o.live)
	cmd.Flags().BoolVar(&o.noReboot, "no-reboot", false,
		"with --to machineconfig: refuse files whose change reboots nodes")
	cmd.Flags().StringVar(&o.audit, "audit", "",
		"JSON `FILE` of nodetrust audit: warn of images that the cluster can't go on without and that would be refused")
	cmd.Flags().StringVarP(&o.output, "output", "o", "-", "directory to write to, or - for stdout")
	_ = cmd.RegisterFlagCompletionFunc("cluster",
		cobra.FixedCompletions([]cobra.Completion{live}, cobra.ShellCompDirectiveDefault))
	cli.Complete(cmd, "to", renderFormats...)
	return cmd
}

func runRender(cmd *cobra.Command, o renderOptions, file string) error {
	if err := o.check(); err != nil {
		return err
	}
	names := o.readers
	if o.to == "nodedisruptionpolicy" && len(names) == 0 {
		names = []string{"openshift-4.17"} // the first that has it
	}
	readers, err := lookupReaders(names)
	if err != nil {
		return err
	}
	var pool *place.Options
	if o.cluster != "" {
		dump, err := readCluster(cmd.Context(), o.cluster, o.live, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		var asked []trust.Reader
		if len(o.readers) > 0 {
			asked = readers
		}
		readers, err = place.Readers(dump, asked)
		if ignition, ok := errors.AsType[*place.IgnitionError](err); ok {
			return cli.WithHint(cli.Usage(err), "leave --reader away, or add --reader "+ignition.Takes.Name)
		} else if err != nil {
			return cli.Usage(err)
		}
		pool = &place.Options{Dump: dump, Minor: place.MinorOf(dump, asked), Merge: o.merge}
	}
	cfg, err := loadTrust(file, cmd.InOrStdin())
	if err != nil {
		return err
	}
	pools, err := o.pools(cfg)
	if err != nil {
		return err
	}
	if err := o.checkDir(); err != nil {
		return err
	}
	if o.audit != "" {
		if err := warnOfAudit(cmd.ErrOrStderr(), o.audit, cfg, readers); err != nil {
			return err
		}
	}
	out, err := o.render(cfg, readers, pools, pool, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if o.output != "-" {
		return writeTree(o.output, out)
	}
	var b bytes.Buffer
	for i, f := range out {
		if i > 0 {
			b.WriteString("---\n")
		}
		b.Write(f.data)
	}
	return cli.WriteFile(cmd.OutOrStdout(), b.Bytes())
}

func (o renderOptions) check() error {
	switch {
	case o.to == "":
		return cli.Usagef("--to is missing: %s", cli.Either(renderFormats))
	case !slices.Contains(renderFormats, o.to):
		return cli.Usagef("unknown format %q: use %s", o.to, cli.Either(renderFormats))
	case o.to == "files" && o.output == "-":
		return cli.Usagef("--to files writes a tree: it needs -o DIR")
	case o.cluster != live && o.live != (cluster.Config{}):
		return cli.Usagef("--kubeconfig and --context go with --cluster live")
	case o.cluster != "" && o.to != "machineconfig":
		return cli.Usagef("--cluster goes with --to machineconfig")
	case o.noReboot && o.to != "machineconfig":
		return cli.Usagef("--no-reboot goes with --to machineconfig")
	case o.merge && o.cluster == "":
		return cli.Usagef("--merge goes with --cluster")
	case o.output == "":
		return cli.Usagef("-o is empty: name a directory, or - for stdout")
	}
	return nil
}

// checkDir fails before anything is written where -o can't be a directory.
func (o renderOptions) checkDir() error {
	if o.output == "-" {
		return nil
	}
	info, err := os.Stat(o.output)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		switch filepath.Ext(o.output) {
		case ".yaml", ".yml", ".json", ".bu", ".ign":
			return cli.Usagef("-o %s: names a directory to write to; for one file use > %s", o.output, o.output)
		}
		return nil
	case err != nil:
		return cli.Usage(fmt.Errorf("-o: %w", err))
	case !info.IsDir():
		return cli.Usagef("-o %s: is no directory", o.output)
	}
	return nil
}

func (o renderOptions) pools(cfg *trust.Config) ([]string, error) {
	switch {
	case o.pool != "" && !slices.Contains(cfg.Pools, o.pool):
		return nil, cli.Usagef("--pool %s: is not in spec.pools of %s (%s)", o.pool, cfg.File, strings.Join(cfg.Pools, ", "))
	case o.pool != "":
		return []string{o.pool}, nil
	case len(cfg.Pools) == 0 && slices.Contains([]string{"butane", "machineconfig", "configmap"}, o.to):
		return nil, cli.Usagef("%s: spec.pools: is empty, but a %s is for a pool", cfg.File, o.to)
	}
	return cfg.Pools, nil
}

// output is one rendered document or file.
type output struct {
	// path is relative to -o.
	path string
	data []byte
}

func (o renderOptions) render(cfg *trust.Config, readers []trust.Reader, pools []string, at *place.Options,
	notes io.Writer,
) ([]output, error) {
	in, err := render.New(cfg, readers, "")
	if err != nil {
		return nil, cli.Usage(err)
	}
	var out []output
	switch o.to {
	case "files":
		for _, f := range in.Files {
			out = append(out, output{strings.TrimPrefix(f.Path, "/"), f.Data})
		}
		return out, nil
	case "bundle":
		b, err := render.Bundle(in)
		return []output{{in.Config.Name + ".sh", b}}, err
	case "nodedisruptionpolicy":
		b, err := render.NodeDisruptionPolicy(in)
		if err != nil {
			return nil, cli.Usage(err)
		}
		return []output{{"machineconfiguration-cluster.yaml", b}}, nil
	case "machineconfig":
		minor := 0
		if at != nil {
			minor = at.Dump.Minor
		}
		if err := o.reboots(in, minor, notes); err != nil {
			return nil, err
		}
	}
	if o.to == "ignition" && (len(pools) == 0 || o.output == "-" && len(pools) > 1) {
		pools = []string{""} // all pools share one Ignition config
	}
	for _, pool := range pools {
		in.Pool = pool
		f, err := o.placed(in, at, notes)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// placed renders for a pool, in a cluster where it has an effect there unless at is nil.
func (o renderOptions) placed(in render.Input, at *place.Options, notes io.Writer) (output, error) {
	if at == nil {
		return o.document(in)
	}
	cluster := *at
	cluster.Note = func(line string) { cli.Say(notes, cli.Note, "pool %s: %s", in.Pool, outside.Name(line)) }
	in, target, err := place.Put(in, cluster)
	if err != nil {
		return output{}, placeErr(err, at.Merge)
	}
	f, err := o.document(in)
	if err != nil {
		return f, err
	}
	ours, err := mco.ParseDump(f.data)
	if err != nil {
		return f, fmt.Errorf("reading the rendered MachineConfig: %w", err)
	}
	warn, err := target.CheckSize(ours.Configs[0])
	if err != nil {
		return f, &cli.ExitError{Code: cli.ExitRefused, Err: fmt.Errorf("pool %s: %w", in.Pool, err)}
	}
	if warn != "" {
		cluster.Note(warn)
	}
	return f, nil
}

// placeErr: what the dump holds stands in the way.
func placeErr(err error, merge bool) error {
	e := &cli.ExitError{Code: cli.ExitRefused, Err: err}
	conflict, ok := errors.AsType[*place.ConflictError](err)
	switch {
	case errors.Is(err, mco.ErrVersion):
		e.Code, e.Hint = cli.ExitUsage, "name the cluster's version, for example --reader openshift-4.18"
	case !ok:
	case conflict.Waits():
		e.Hint = "wait for the MCO; where it doesn't come, the log of the machine-config-controller says why"
	case merge:
		e.Hint = "delete or rename the other MachineConfig"
	default:
		e.Hint = "--merge keeps what the other one demands and adds ours"
	}
	return e
}

// reboots says for which files nodes will reboot, where the version of OpenShift is known: that of the cluster dump
// (minor), or of the readers that were asked for. With --no-reboot that is an error.
func (o renderOptions) reboots(in render.Input, minor int, notes io.Writer) error {
	versions := map[int]bool{}
	switch {
	case minor > 0:
		versions[minor] = true
	case len(o.readers) > 0 || o.noReboot:
		for _, r := range in.Readers {
			versions[r.OpenShift] = true
		}
	}
	var problems []error
	for _, v := range slices.Sorted(maps.Keys(versions)) {
		files := mco.Rebooting(v, in.Files)
		if v == 0 || len(files) == 0 {
			continue
		}
		problems = append(problems, fmt.Errorf("openshift-4.%d: nodes reboot for %s", v, strings.Join(files, ", ")))
	}
	if o.noReboot && len(problems) > 0 {
		return &cli.ExitError{
			Code: cli.ExitRefused, Err: errors.Join(problems...),
			Hint: "OpenShift 4.16 and later don't; name the version with --reader openshift-4.N",
		}
	}
	for _, p := range problems {
		cli.Say(notes, cli.Note, "%s", outside.Name(fmt.Sprint(p)))
	}
	return nil
}

func (o renderOptions) document(in render.Input) (output, error) {
	f := map[string]struct {
		path   string
		render func(render.Input) ([]byte, error)
	}{
		"butane":        {in.MachineConfigName() + ".bu", render.Butane},
		"machineconfig": {in.MachineConfigName() + ".yaml", render.MachineConfig},
		"ignition":      {in.MachineConfigName() + ".ign", render.Ignition},
		"configmap":     {in.ConfigMapName() + ".yaml", render.ConfigMap},
	}[o.to]
	if in.Pool == "" { // an Ignition config for all pools
		f.path = in.Config.Name + ".ign"
	}
	data, err := f.render(in)
	return output{f.path, data}, err
}

// writeTree writes all files below dir or, unless a rename fails, none: it writes temporary files first.
func writeTree(dir string, files []output) error {
	var pending []*renameio.PendingFile
	defer func() {
		for _, p := range pending {
			_ = p.Cleanup() // does nothing after the rename
		}
	}()
	for _, f := range files {
		path := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			return fmt.Errorf("writing %s: is a directory", path)
		}
		p, err := pendingFile(path, f.data)
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		pending = append(pending, p)
	}
	for i, p := range pending {
		if err := p.CloseAtomicallyReplace(); err != nil {
			return fmt.Errorf("writing %s: %w", filepath.Join(dir, files[i].path), err)
		}
	}
	return nil
}

// pendingFile writes a temporary file beside path, whose place it takes when it is closed so.
func pendingFile(path string, b []byte) (*renameio.PendingFile, error) {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)),
		renameio.WithStaticPermissions(0o644))
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(err, f.Cleanup())
	}
	return f, nil
}

// replaceFile writes a file, whole or not at all.
func replaceFile(path string, b []byte) error {
	f, err := pendingFile(path, b)
	if err != nil {
		return err
	}
	return errors.Join(f.CloseAtomicallyReplace(), f.Cleanup())
}

// lookupReaders takes the values of --reader; none are the default readers.
func lookupReaders(names []string) ([]trust.Reader, error) {
	if len(names) == 0 {
		return trust.DefaultReaders(), nil
	}
	var readers []trust.Reader
	for _, name := range names {
		r, err := trust.LookupReader(name)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--reader: %w", err))
		}
		readers = append(readers, r)
	}
	return readers, nil
}

// loadTrust reads a trust config and the key files that it names; - is stdin, if there is one. Errors are bad input.
func loadTrust(file string, stdin io.Reader) (*trust.Config, error) {
	cfg, err := source.ReadTrust(file, stdin)
	if err != nil && !errors.Is(err, context.Canceled) {
		return nil, cli.Usage(err)
	}
	return cfg, err
}

// maxAudit bounds an audit's JSON, in bytes: 10,000 images used by some pods each are about 30 MiB.
const maxAudit = 256 << 20

// warnOfAudit says on notes what the audit in file found that would lock the cluster out, and whether it was an audit
// of what is rendered. It changes nothing of that; an error is a file that holds no audit.
func warnOfAudit(notes io.Writer, file string, cfg *trust.Config, readers []trust.Reader) error {
	b, err := bounded.ReadFile(file, maxAudit)
	if err != nil {
		return cli.Usage(fmt.Errorf("--audit %s: %w", file, err))
	}
	r, err := audit.ParseReport(b)
	if err != nil {
		return cli.Usage(fmt.Errorf("--audit %s: %w", file, err))
	}
	// audit judges with the current library, which reads the same out of it as the readers do.
	var digests []string
	for _, who := range [][]trust.Reader{nil, readers} {
		files, err := cfg.Files(who)
		if err != nil {
			return cli.Usage(err)
		}
		digests = append(digests, files.Digest())
	}
	for _, warning := range r.Warnings(file, cfg.File, digests...) {
		cli.Say(notes, cli.Warning, "%s", warning)
	}
	return nil
}
