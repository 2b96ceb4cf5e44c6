package mco

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/policy/compare"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Conflict is a reason why a MachineConfig must not be applied to a pool.
type Conflict struct {
	Path string
	// With is the MachineConfig that it conflicts with.
	With   string
	Reason string
}

func (c Conflict) String() string {
	if c.With == "" {
		return fmt.Sprintf("%s: %s", c.Path, c.Reason)
	}
	return fmt.Sprintf("%s: %s: %s", c.Path, c.With, c.Reason)
}

// Target is the pool of a MachineConfig.
type Target struct {
	Dump *Dump
	Pool string
	// Minor is the minor version of OpenShift 4, 0 if unknown.
	Minor int
}

// Conflicts adds ours to the pool, merges as the MCO does, and lists the conflicts:
// - files of ours that another MachineConfig replaces;
// - files of others, with other bytes, that ours replaces, but not those of the MCO's own templates and of replaces;
// - scopes of registries.d in two files, which stops all pulls.
func (t Target) Conflicts(ours Config, replaces ...string) ([]Conflict, error) {
	files, err := t.Dump.With(ours).PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return nil, err
	}
	var out []Conflict
	for _, p := range ours.paths() {
		o := files[p]
		if o.Owner.Name != ours.Name {
			out = append(out, Conflict{
				p, o.Owner.Name,
				"is merged later: the file of " + ours.Name + " would never reach a node",
			})
			continue
		}
		for _, c := range o.Shadowed {
			f, _ := c.file(p)
			if template(c) || slices.Contains(replaces, p) || f.Err == nil && bytes.Equal(f.Data, o.Data) {
				continue
			}
			out = append(out, Conflict{p, c.Name, "writes this file too and would be shadowed" + whose(c)})
		}
	}
	return append(out, scopeConflicts(ours, files)...), nil
}

func whose(c Config) string {
	switch {
	case c.Owner == "Image":
		return ": it is the MCO's, made from allowed and blocked registries and image policies, which would no longer have an effect"
	case c.Owner != "":
		return ": it is made from a " + c.Owner
	}
	return ""
}

func scopeConflicts(ours Config, files map[string]Owned) (out []Conflict) {
	mine := map[string]string{}
	for _, f := range ours.Files {
		scopes, err := registryScopes(f)
		if err != nil {
			out = append(out, Conflict{f.Path, "", err.Error()})
		}
		for _, s := range scopes {
			mine[s] = f.Path
		}
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		o := files[p]
		if o.Owner.Name == ours.Name {
			continue
		}
		scopes, err := registryScopes(o.File)
		if err != nil {
			out = append(out, Conflict{p, o.Owner.Name, fmt.Sprintf("can't tell which scopes it has: %v", err)})
		}
		for _, s := range scopes {
			if by, ok := mine[s]; ok {
				out = append(out, Conflict{
					p, o.Owner.Name,
					fmt.Sprintf("has the scope %s, as %s would: a scope in two files stops every pull of a node", s, by),
				})
			}
		}
	}
	return out
}

// registryScopes lists the scopes of a registries.d file, none of any other file.
func registryScopes(f File) ([]string, error) {
	if !registriesd.Is(f.Path, trust.RegistriesDir) {
		return nil, nil
	}
	if f.Err != nil {
		return nil, f.Err
	}
	c, err := registriesd.Parse(registriesd.File{Path: f.Path, Data: f.Data})
	if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	return c.Scopes(), nil
}

// Namespaces returns the namespaces for whose pods CRI-O uses another policy than the pool's policy.json: those with a
// file in the pool or an ImagePolicy.
func (t Target) Namespaces() ([]string, error) {
	files, err := t.Dump.PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(t.Dump.Namespaces)
	for p := range files {
		if ns, ok := strings.CutSuffix(path.Base(p), ".json"); ok && path.Dir(p) == namespacedDir {
			out = append(out, ns)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Awaited returns the policy.json that the MCO has yet to write for allowed or blocked registries or
// ClusterImagePolicies, or nil. It would shadow ours, or be missing in what is merged.
func (t Target) Awaited() (*Conflict, error) {
	var why []string
	if t.Dump.Restricted {
		why = append(why, "the allowed or blocked registries of the Image config")
	}
	if len(t.Dump.ClusterPolicies) > 0 {
		why = append(why, "the ClusterImagePolicies "+
			strings.Join(slices.Sorted(slices.Values(t.Dump.ClusterPolicies)), ", "))
	}
	if len(why) == 0 {
		return nil, nil
	}
	sources, err := t.Dump.Sources(t.Pool, OrderOf(t.Minor))
	if err != nil {
		return nil, err
	}
	for _, c := range sources {
		if _, ok := c.file(trust.PolicyPath); ok && generated(c) {
			return nil, nil
		}
	}
	return &Conflict{Path: trust.PolicyPath, Reason: "the MCO has not written its own yet, which it will for " +
		strings.Join(why, " and ")}, nil
}

// generated reports whether the MCO made c from image policies and the Image config.
func generated(c Config) bool {
	return c.Owner == "Image" || strings.HasPrefix(c.Name, "99-") && strings.HasSuffix(c.Name, "-generated-registries")
}

// Merged is our policy.json with that of the pool merged into it.
type Merged struct {
	Policy []byte
	Taken
}

// Merge returns a policy.json that demands what ours and the pool's other MachineConfigs demand. Those named own are
// ours and left out.
func (t Target) Merge(ours []byte, own ...string) (Merged, error) {
	files, err := t.Dump.Without(own...).PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return Merged{}, err
	}
	base, ok := files[trust.PolicyPath]
	if !ok {
		return Merged{}, fmt.Errorf("no MachineConfig of the pool %s has a %s to merge with", t.Pool, trust.PolicyPath)
	}
	if base.Err != nil {
		return Merged{}, fmt.Errorf("reading %s of %s: %w", trust.PolicyPath, base.Owner.Name, base.Err)
	}
	out, err := policy.Merge(base.Data, ours)
	if err != nil {
		return Merged{}, fmt.Errorf("merging with %s of %s: %w", trust.PolicyPath, base.Owner.Name, err)
	}
	if err := atLeast(out, base.Data, ours); err != nil {
		return Merged{}, err
	}
	return Merged{out, taken(base)}, nil
}

// atLeast proves that merged demands all that each of the others does.
func atLeast(merged []byte, others ...[]byte) error {
	m, err := compare.Parse(merged, nil, time.Time{})
	if err != nil {
		return err
	}
	for _, data := range others {
		p, err := compare.Parse(data, nil, time.Time{})
		if err != nil {
			return err
		}
		if r := compare.Policies(p, m); r.Relation != compare.Equal && r.Relation != compare.Stronger {
			return fmt.Errorf("merging: the result is %s than what was merged", r.Relation)
		}
	}
	return nil
}

// LastName returns a name that sorts our MachineConfig behind all others of the pool but own.
func (t Target) LastName(name string, own ...string) (string, error) {
	d := t.Dump.Without(own...)
	// Up to 4.14 no name that starts with a custom pool's sorts behind 99-worker-…
	for _, format := range []string{"99-%[1]s-%[2]s-%[3]s", "99-%[2]s-%[1]s-%[3]s"} {
		for z := 2; z < 16; z++ {
			c := Config{
				Name:   fmt.Sprintf(format, t.Pool, strings.Repeat("z", z), name),
				Labels: map[string]string{desired.RoleLabel: t.Pool},
			}
			last := true
			for _, order := range orders(t.Minor) {
				sources, err := d.With(c).Sources(t.Pool, order)
				if err != nil {
					return "", err
				}
				last = last && sources[len(sources)-1].Name == c.Name
			}
			if last {
				return c.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no name sorts after all MachineConfigs of the pool %s", t.Pool)
}
