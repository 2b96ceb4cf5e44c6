package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/render"
)

// clusterDump is what --cluster names, nil without it.
type clusterDump struct {
	*mco.Dump
	merge bool
}

// live is the name of the cluster that the kubeconfig names, where a dump may be named as well.
const live = "live"

// readCluster reads a dump, or the live cluster. What the caller may not read there is written to notes.
func readCluster(ctx context.Context, name string, config cluster.Config, notes io.Writer) (*mco.Dump, error) {
	if name != live {
		return readDump(name)
	}
	client, err := openCluster(config)
	if err != nil {
		return nil, err
	}
	d, unread, err := client.Dump(ctx)
	switch {
	case errors.Is(err, cluster.ErrNoPools):
		return nil, cli.WithHint(err, "without the Machine Config Operator there is nothing to merge with: render without --cluster, or --to configmap")
	case cluster.IsForbidden(err):
		return nil, cli.WithHint(err, "this needs the right to list MachineConfigs and MachineConfigPools: ask for it, or use a file made by "+dumpCommand)
	case err != nil:
		return nil, cli.WithHint(fmt.Errorf("reading the cluster: %w", err), "the API server is "+client.Server())
	}
	for _, kind := range unread {
		cli.Say(notes, cli.Note, "%s objects may not be read by this user: what they ask for is known as far as the Machine Config Operator has written it", kind)
	}
	return d, nil
}

const dumpCommand = "oc get mc,mcp,clusterversion,images.config,clusterimagepolicies -o yaml"

func readDump(file string) (*mco.Dump, error) {
	var d *mco.Dump
	data, err := bounded.ReadFile(file, mco.MaxDump)
	unread := err != nil
	if err == nil {
		d, err = mco.ParseDump(data)
	}
	large := (*bounded.TooLargeError)(nil)
	switch {
	case errors.As(err, &large):
		return nil, cli.WithHint(cli.Usage(fmt.Errorf("reading the cluster dump: %s: %w", file, large)),
			"--cluster live reads a page at a time")
	case unread:
		return nil, cli.Usage(fmt.Errorf("reading the cluster dump: %w", err))
	case err != nil:
		return nil, cli.WithHint(cli.Usage(fmt.Errorf("reading the cluster dump: %s: %w", file, err)),
			"make it by "+dumpCommand)
	}
	return d, nil
}

// clusterReaders are the default readers for the cluster: its own CRI-O and the current library.
func clusterReaders(d *mco.Dump) ([]trust.Reader, error) {
	if d.Minor == 0 {
		return trust.DefaultReaders(), nil
	}
	r, err := trust.LookupReader(fmt.Sprintf("openshift-4.%d", d.Minor))
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("the cluster dump: %w", err))
	}
	return append([]trust.Reader{r}, trust.DefaultReaders()[1:]...), nil
}

// checkIgnition refuses readers for which the MachineConfig would be in a format that the cluster doesn't take. The
// MCO says so only after it was applied: RenderDegraded.
func checkIgnition(d *mco.Dump, readers []trust.Reader) error {
	if d.Minor == 0 {
		return nil
	}
	takes, err := trust.LookupReader(fmt.Sprintf("openshift-4.%d", d.Minor))
	if err != nil {
		return cli.Usage(fmt.Errorf("the cluster dump: %w", err))
	}
	made := render.IgnitionReader(readers)
	if made.Ignition() <= takes.Ignition() {
		return nil
	}
	return cli.WithHint(cli.Usagef("the cluster is OpenShift 4.%d and takes Ignition configs up to %s; for %s it would be %s",
		d.Minor, takes.Ignition(), made.Name, made.Ignition()),
		"leave --reader away, or add --reader "+takes.Name)
}

// minorOf is the version of OpenShift that decides how MachineConfigs are merged: that of the dump, else of readers
// that were asked for. 0 if neither says, or readers differ.
func minorOf(d *mco.Dump, readers []trust.Reader, asked bool) int {
	minor := d.Minor
	if minor > 0 || !asked {
		return minor
	}
	for _, r := range readers {
		switch {
		case r.OpenShift == 0:
		case minor == 0:
			minor = r.OpenShift
		case mco.OrderOf(minor) != mco.OrderOf(r.OpenShift):
			return 0
		}
	}
	return minor
}

// place puts in where the MCO lets it have an effect: it returns in itself if it has, a merged one if that was asked
// for, or an error of exit status 3 that says what is in the way. What is good to know is written to notes.
func (c *clusterDump) place(in render.Input, minor int, notes io.Writer) (render.Input, error) {
	t := mco.Target{Dump: c.Dump, Pool: in.Pool, Minor: minor}
	note := func(format string, args ...any) {
		cli.Say(notes, cli.Note, "pool %s: %s", in.Pool, outside.Name(fmt.Sprintf(format, args...)))
	}
	earlier := t.Earlier(in.MachineConfigName(), in.Config.Name)
	awaited, err := t.Awaited()
	if err != nil {
		return in, placeErr(err)
	}
	var replaces []string
	if c.merge {
		var own []string
		for _, e := range earlier {
			own = append(own, e.Name)
		}
		if in, replaces, err = merged(t, in, own); err != nil {
			return in, placeErr(err)
		}
		for _, e := range earlier {
			if err := outdated(t, e, note); err != nil {
				return in, placeErr(err)
			}
			if e.Name != in.MachineConfigName() {
				note("%s is no longer needed: delete it after this one is rolled out", e.Name)
			}
		}
		t.Dump = c.Without(own...)
	}
	ours := mco.Config{
		Name:   in.MachineConfigName(),
		Labels: map[string]string{"machineconfiguration.openshift.io/role": in.Pool},
	}
	for _, f := range in.Files {
		ours.Files = append(ours.Files, mco.File{Path: f.Path, Data: f.Data})
	}
	conflicts, err := t.Conflicts(ours, replaces...)
	if err != nil {
		return in, placeErr(err)
	}
	if awaited != nil {
		conflicts = append(conflicts, *awaited)
	}
	if len(conflicts) > 0 {
		return in, refused(in, conflicts, c.merge)
	}
	if err := c.notes(t, ours, note); err != nil {
		return in, placeErr(err)
	}
	return in, nil
}

// size refuses a MachineConfig with which the rendered one of the pool would be larger than what etcd takes.
func (c *clusterDump) size(in render.Input, document []byte, minor int, notes io.Writer) error {
	ours, err := mco.ParseDump(document)
	if err != nil {
		return fmt.Errorf("reading the rendered MachineConfig: %w", err)
	}
	t := mco.Target{Dump: c.Dump, Pool: in.Pool, Minor: minor}
	if c.merge {
		var own []string
		for _, e := range t.Earlier(render.Input{Config: in.Config, Pool: in.Pool}.MachineConfigName(), in.Config.Name) {
			own = append(own, e.Name)
		}
		t.Dump = c.Without(own...)
	}
	warn, err := t.CheckSize(ours.Configs[0])
	if err != nil {
		return &cli.ExitError{Code: cli.ExitRefused, Err: fmt.Errorf("pool %s: %w", in.Pool, err)}
	}
	if warn != "" {
		cli.Say(notes, cli.Note, "pool %s: %s", in.Pool, outside.Name(warn))
	}
	return nil
}

// notes says whose each file is, and for which pods the policy is not used.
func (c *clusterDump) notes(t mco.Target, ours mco.Config, note func(string, ...any)) error {
	files, err := t.Dump.With(ours).PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return err
	}
	if err := loads(files); err != nil {
		return err
	}
	for _, f := range ours.Files {
		var before []string
		for _, s := range files[f.Path].Shadowed {
			before = append(before, s.Name)
		}
		if len(before) == 0 {
			note("%s is written by %s alone", f.Path, ours.Name)
		} else {
			note("%s is written by %s, in place of %s", f.Path, ours.Name, strings.Join(before, ", "))
		}
	}
	namespaces, err := t.Namespaces()
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		note("pods of namespace %s are pulled by a policy of their own (an ImagePolicy), which has nothing of ours", ns)
	}
	return nil
}

// outdated says what has changed since e was merged.
func outdated(t mco.Target, e mco.Config, note func(string, ...any)) error {
	if !e.Merged() {
		return nil
	}
	why, err := t.Outdated(e)
	if err != nil {
		return err
	}
	for _, w := range why {
		note("%s is outdated: %s: apply this one", e.Name, w)
	}
	return nil
}

// merged is in with a policy.json and registries.d files that keep what the pool has without us, under a name that is
// merged last. It returns the paths of others whose content is in ours now.
func merged(t mco.Target, in render.Input, own []string) (render.Input, []string, error) {
	name, err := t.LastName(in.Config.Name, own...)
	if err != nil {
		return in, nil, err
	}
	policy, _ := in.Files.Get(trust.PolicyPath)
	m, err := t.Merge(policy.Data, own...)
	if err != nil {
		return in, nil, err
	}
	if err := verify.LoadPolicy(m.Policy, trust.PolicyPath); err != nil {
		return in, nil, fmt.Errorf("merging with %s: the result doesn't load: %w", m.From, err)
	}
	files, taken, err := t.MergeRegistries(in.Files, own...)
	if err != nil {
		return in, nil, err
	}
	replaces := []string{trust.PolicyPath}
	for _, f := range taken {
		replaces = append(replaces, f.Path)
	}
	for i := range files {
		if files[i].Path == trust.PolicyPath {
			files[i].Data = m.Policy
		}
	}
	in.Files, in.Name = files, name
	in.Annotations, err = mco.MergedAnnotations(in.Config.Name, m.Taken, taken)
	return in, replaces, err
}

// loads proves that the registries.d files of the pool load together: of two with one scope every pull fails.
func loads(files map[string]mco.Owned) error {
	var all []registriesd.File
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if f := files[p]; path.Dir(p) == trust.RegistriesDir && f.Err == nil {
			all = append(all, registriesd.File{Path: p, Data: f.Data})
		}
	}
	if err := library.Load(all); err != nil {
		return fmt.Errorf("the registries.d files of the pool don't load together: %w", err)
	}
	return nil
}

// placeErr: what the dump holds stands in the way.
func placeErr(err error) error {
	e := &cli.ExitError{Code: cli.ExitRefused, Err: err}
	if errors.Is(err, mco.ErrVersion) {
		e.Code, e.Hint = cli.ExitUsage, "name the cluster's version, for example --reader openshift-4.18"
	}
	return e
}

func refused(in render.Input, conflicts []mco.Conflict, merge bool) error {
	var all []error
	waits := false
	for _, c := range conflicts {
		all = append(all, fmt.Errorf("pool %s: %s", in.Pool, c))
		waits = waits || c.With == ""
	}
	hint := "--merge keeps what the other one demands and adds ours"
	switch {
	case waits:
		hint = "wait for the MCO; where it doesn't come, the log of the machine-config-controller says why"
	case merge:
		hint = "delete or rename the other MachineConfig"
	}
	return &cli.ExitError{Code: cli.ExitRefused, Err: errors.Join(all...), Hint: hint}
}
