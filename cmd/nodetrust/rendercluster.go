package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nodetrust/nodetrust/cluster/mco"
	"github.com/nodetrust/nodetrust/render"
	"github.com/nodetrust/nodetrust/trust"
	"github.com/nodetrust/nodetrust/verify"
)

// clusterDump is what --cluster names, nil without it.
type clusterDump struct {
	*mco.Dump
	merge bool
}

func readDump(file string) (*mco.Dump, error) {
	data, err := readLimited(file, mco.MaxDump)
	if err != nil {
		return nil, usageErr(fmt.Errorf("reading the cluster dump: %w", err))
	}
	d, err := mco.ParseDump(data)
	if err != nil {
		return nil, usageErr(fmt.Errorf("reading the cluster dump: %s: %w", file, err))
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
		return nil, usageErr(fmt.Errorf("the cluster dump: %w", err))
	}
	return append([]trust.Reader{r}, trust.DefaultReaders()[1:]...), nil
}

// minorOf is the version of OpenShift that decides how MachineConfigs are merged: that of the dump, else of readers that were
// asked for. 0 if neither says, or readers differ.
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
		fmt.Fprintf(notes, "nodetrust: note: pool %s: %s\n", in.Pool, fmt.Sprintf(format, args...))
	}
	earlier := t.Earlier(in.MachineConfigName(), in.Config.Name)
	var replaces []string
	if c.merge {
		var own []string
		for _, e := range earlier {
			own = append(own, e.Name)
		}
		var err error
		if in, err = merged(t, in, own); err != nil {
			return in, placeErr(err)
		}
		replaces = []string{trust.PolicyPath}
		for _, e := range earlier {
			if was := e.Annotations[mco.MergedAnnotation]; was != "" && was != in.Annotations[mco.MergedAnnotation] {
				note("%s was merged with another policy.json than the one that %s has now: apply this one", e.Name, in.Annotations[mco.MergedFromAnnotation])
			}
			if e.Name != in.MachineConfigName() {
				note("%s is no longer needed: delete it after this one is rolled out", e.Name)
			}
		}
		t.Dump = c.Without(own...)
	}
	ours := mco.Config{Name: in.MachineConfigName(), Labels: map[string]string{"machineconfiguration.openshift.io/role": in.Pool}}
	for _, f := range in.Files {
		ours.Files = append(ours.Files, mco.File{Path: f.Path, Data: f.Data})
	}
	conflicts, err := t.Conflicts(ours, replaces...)
	if err != nil {
		return in, placeErr(err)
	}
	if len(conflicts) > 0 {
		return in, refused(in, conflicts, c.merge)
	}
	if err := c.notes(t, ours, note); err != nil {
		return in, placeErr(err)
	}
	return in, nil
}

// notes says whose each file is, and for which pods the policy is not used.
func (c *clusterDump) notes(t mco.Target, ours mco.Config, note func(string, ...any)) error {
	files, err := t.Dump.With(ours).PoolFiles(t.Pool, t.Minor)
	if err != nil {
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

// merged is in with a policy.json that keeps what the pool has without us, under a name that is merged last.
func merged(t mco.Target, in render.Input, own []string) (render.Input, error) {
	name, err := t.LastName(in.Config.Name, own...)
	if err != nil {
		return in, err
	}
	policy, _ := in.Files.Get(trust.PolicyPath)
	m, err := t.Merge(policy.Data, own...)
	if err != nil {
		return in, err
	}
	if err := verify.LoadPolicy(m.Policy, trust.PolicyPath); err != nil {
		return in, fmt.Errorf("merging with %s: the result doesn't load: %w", m.From, err)
	}
	files := in.Files.Sorted()
	for i := range files {
		if files[i].Path == trust.PolicyPath {
			files[i].Data = m.Policy
		}
	}
	in.Files, in.Name = files, name
	in.Annotations = map[string]string{mco.MergedAnnotation: m.Digest, mco.MergedFromAnnotation: m.From}
	return in, nil
}

// placeErr: what the dump holds stands in the way.
func placeErr(err error) error {
	e := &exitError{code: exitRefused, err: err}
	if errors.Is(err, mco.ErrVersion) {
		e.code, e.hint = exitUsage, "name the cluster's version, for example --reader openshift-4.18"
	}
	return e
}

func refused(in render.Input, conflicts []mco.Conflict, merge bool) error {
	var all []error
	policyOnly := true
	for _, c := range conflicts {
		all = append(all, fmt.Errorf("pool %s: %s", in.Pool, c))
		policyOnly = policyOnly && c.Path == trust.PolicyPath
	}
	hint := "delete or rename the other MachineConfig"
	if policyOnly && !merge {
		hint = "--merge keeps what the other one demands and adds ours"
	}
	return &exitError{code: exitRefused, err: errors.Join(all...), hint: hint}
}
