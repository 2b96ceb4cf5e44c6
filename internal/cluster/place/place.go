// Package place puts a rendered MachineConfig where the Machine Config Operator gives it effect in a pool, or returns
// what is in the way. It reads a dump and writes nothing.
package place

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/render"
)

// IgnitionError means that a MachineConfig would have a format that the cluster doesn't take. The Machine Config
// Operator would report this only after it was applied: RenderDegraded.
type IgnitionError struct {
	// Takes reads the newest format that the cluster takes.
	Takes trust.Reader
	// Made reads the format that the MachineConfig would have.
	Made trust.Reader
}

func (e *IgnitionError) Error() string {
	return fmt.Sprintf("the cluster is OpenShift 4.%d and takes Ignition configs up to %s; for %s it would be %s",
		e.Takes.OpenShift, e.Takes.Ignition(), e.Made.Name, e.Made.Ignition())
}

// Readers returns the readers of the files in a cluster: asked, else the cluster's own CRI-O and the current library.
// The error is an *IgnitionError, or the dump's version is unknown.
func Readers(d *mco.Dump, asked []trust.Reader) ([]trust.Reader, error) {
	readers := asked
	if len(asked) == 0 {
		readers = trust.DefaultReaders()
	}
	if d.Minor == 0 {
		return readers, nil
	}
	takes, err := trust.LookupReader(fmt.Sprintf("openshift-4.%d", d.Minor))
	if err != nil {
		return nil, fmt.Errorf("the cluster dump: %w", err)
	}
	if len(asked) == 0 {
		readers = append([]trust.Reader{takes}, readers[1:]...)
	}
	if made := render.IgnitionReader(readers); made.Ignition() > takes.Ignition() {
		return nil, &IgnitionError{takes, made}
	}
	return readers, nil
}

// MinorOf returns the version of OpenShift that decides how MachineConfigs are merged: the dump's, else that of the
// readers in asked, or 0 if neither is known or readers differ.
func MinorOf(d *mco.Dump, asked []trust.Reader) int {
	minor := d.Minor
	if minor > 0 {
		return minor
	}
	for _, r := range asked {
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

// Options say where a MachineConfig is put.
type Options struct {
	Dump *mco.Dump
	// Minor is the result of MinorOf.
	Minor int
	// Merge keeps what others in the pool demand, instead of refusing to overrule them.
	Merge bool
	// Note receives remarks, a line each.
	Note func(line string)
}

// ConflictError lists what is in the way of a MachineConfig.
type ConflictError struct {
	Pool      string
	Conflicts []mco.Conflict
}

func (e *ConflictError) Error() string {
	var lines []string
	for _, c := range e.Conflicts {
		lines = append(lines, fmt.Sprintf("pool %s: %s", e.Pool, c))
	}
	return strings.Join(lines, "\n")
}

// Waits reports whether the Machine Config Operator has yet to do its part.
func (e *ConflictError) Waits() bool {
	return slices.ContainsFunc(e.Conflicts, func(c mco.Conflict) bool { return c.With == "" })
}

// Put returns in with effect in its pool: unchanged, or merged if Options say so. The target is the pool without the
// MachineConfigs that in replaces. A *ConflictError means that others are in the way.
func Put(in render.Input, o Options) (render.Input, mco.Target, error) {
	t := mco.Target{Dump: o.Dump, Pool: in.Pool, Minor: o.Minor}
	awaited, err := t.Awaited()
	if err != nil {
		return in, t, err
	}
	var replaces []string
	if o.Merge {
		if in, replaces, err = o.mergeInto(&t, in); err != nil {
			return in, t, err
		}
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
		return in, t, err
	}
	if awaited != nil {
		conflicts = append(conflicts, *awaited)
	}
	if len(conflicts) > 0 {
		return in, t, &ConflictError{in.Pool, conflicts}
	}
	return in, t, o.describe(t, ours)
}

// mergeInto merges in with the pool, and removes the MachineConfigs that the result replaces from t. It returns the
// paths of others whose content is in the result.
func (o Options) mergeInto(t *mco.Target, in render.Input) (render.Input, []string, error) {
	earlier := t.Earlier(in.MachineConfigName(), in.Config.Name)
	var own []string
	for _, e := range earlier {
		own = append(own, e.Name)
	}
	in, replaces, err := merge(*t, in, own)
	if err != nil {
		return in, nil, err
	}
	for _, e := range earlier {
		if e.Merged() {
			why, err := t.Outdated(e)
			if err != nil {
				return in, nil, err
			}
			for _, w := range why {
				o.note("%s is outdated: %s: apply this one", e.Name, w)
			}
		}
		if e.Name != in.MachineConfigName() {
			o.note("%s is no longer needed: delete it after this one is rolled out", e.Name)
		}
	}
	t.Dump = o.Dump.Without(own...)
	return in, replaces, nil
}

func (o Options) note(format string, args ...any) { o.Note(fmt.Sprintf(format, args...)) }

// describe notes the owner of each file, and the pods for which the policy is not used.
func (o Options) describe(t mco.Target, ours mco.Config) error {
	files, err := t.Dump.With(ours).PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return err
	}
	if err := load(files); err != nil {
		return err
	}
	for _, f := range ours.Files {
		var before []string
		for _, s := range files[f.Path].Shadowed {
			before = append(before, s.Name)
		}
		if len(before) == 0 {
			o.note("%s is written by %s alone", f.Path, ours.Name)
		} else {
			o.note("%s is written by %s, in place of %s", f.Path, ours.Name, strings.Join(before, ", "))
		}
	}
	namespaces, err := t.Namespaces()
	for _, ns := range namespaces {
		o.note("pods of namespace %s are pulled by a policy of their own (an ImagePolicy), which has nothing of ours", ns)
	}
	return err
}

// merge returns in, under a name that is merged last, with a policy.json and registries.d files that keep what the
// pool has without us. It returns the paths of others whose content is in ours.
func merge(t mco.Target, in render.Input, own []string) (render.Input, []string, error) {
	name, err := t.LastName(in.Config.Name, own...)
	if err != nil {
		return in, nil, err
	}
	policy, _ := in.Files.Get(trust.PolicyPath)
	m, err := t.Merge(policy.Data, own...)
	if err != nil {
		return in, nil, err
	}
	if err := library.LoadPolicy(m.Policy, trust.PolicyPath); err != nil {
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

// load proves that the registries.d files of the pool load together: two with one scope fail every pull.
func load(files map[string]mco.Owned) error {
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
