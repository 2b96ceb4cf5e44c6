package mco

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Order is how a version of the MCO sorts a pool's MachineConfigs. Later ones replace files of earlier ones.
type Order int

// The orders. They differ for custom pools only.
const (
	// ByName sorts all by name: OpenShift up to 4.14.
	ByName Order = iota
	// WorkerFirst sorts those of role worker by name, then all others by name: from 4.15 on.
	WorkerFirst
)

// OrderOf returns the order of OpenShift 4.minor.
func OrderOf(minor int) Order {
	if minor < 15 {
		return ByName
	}
	return WorkerFirst
}

// orders are those of OpenShift 4.minor: both if the version is unknown (0).
func orders(minor int) []Order {
	if minor == 0 {
		return []Order{WorkerFirst, ByName}
	}
	return []Order{OrderOf(minor)}
}

const worker = "worker"

// Sources returns the MachineConfigs of a pool in the order of their merge. If the dump lacks the MachineConfigPool,
// the convention applies: a pool takes those of its own role, and all but control plane pools take those of role
// worker too.
func (d *Dump) Sources(pool string, order Order) ([]Config, error) {
	selects, err := d.selects(pool)
	if err != nil {
		return nil, err
	}
	var out []Config
	for _, c := range d.Configs {
		if c.Rendered() {
			continue
		}
		ok, err := selects(c.Labels)
		if err != nil {
			return nil, fmt.Errorf("pool %s: %w", pool, err)
		}
		if ok {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no MachineConfig of the dump belongs to the pool %s", pool)
	}
	slices.SortFunc(out, func(a, b Config) int {
		if order == WorkerFirst && (a.Role() == worker) != (b.Role() == worker) {
			if a.Role() == worker {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return out, nil
}

func (d *Dump) selects(pool string) (func(map[string]string) (bool, error), error) {
	for _, p := range d.Pools {
		if p.Name != pool {
			continue
		}
		if p.Selector == nil {
			return nil, fmt.Errorf("pool %s: has no machineConfigSelector", pool)
		}
		return p.Selector.matches, nil
	}
	if len(d.Pools) > 0 {
		return nil, fmt.Errorf("the dump has no MachineConfigPool %s", pool)
	}
	return func(labels map[string]string) (bool, error) {
		role := Config{Labels: labels}.Role()
		return role == pool || role == worker && pool != "master" && pool != "arbiter", nil
	}, nil
}

// With returns the dump with c added, in place of one of the same name.
func (d *Dump) With(c Config) *Dump {
	out := *d
	out.Configs = slices.DeleteFunc(slices.Clone(d.Configs), func(old Config) bool { return old.Name == c.Name })
	out.Configs = append(out.Configs, c)
	return &out
}

// Without returns the dump without the MachineConfigs of these names.
func (d *Dump) Without(names ...string) *Dump {
	out := *d
	out.Configs = slices.DeleteFunc(slices.Clone(d.Configs),
		func(old Config) bool { return slices.Contains(names, old.Name) })
	return &out
}

// Owned is a file and its owner.
type Owned struct {
	File
	// Owner is the MachineConfig whose file lands on the nodes.
	Owner Config
	// Shadowed are those whose file of the same path does not, in the order of the merge.
	Shadowed []Config
}

// Merge returns the files of the nodes: for each path the file of the last source that has one.
func Merge(sources []Config) map[string]Owned {
	out := map[string]Owned{}
	for _, c := range sources {
		for _, p := range c.paths() {
			f, _ := c.file(p)
			o, ok := out[p]
			if ok {
				o.Shadowed = append(slices.Clone(o.Shadowed), o.Owner)
			}
			o.File, o.Owner = f, c
			out[p] = o
		}
	}
	return out
}

func (c Config) paths() []string {
	set := map[string]bool{}
	for _, f := range c.Files {
		set[f.Path] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// PoolFiles merges the pool's sources. If the version of the cluster is unknown (minor 0), both orders must agree.
func (d *Dump) PoolFiles(pool string, minor int) (map[string]Owned, error) {
	var first map[string]Owned
	for _, order := range orders(minor) {
		sources, err := d.Sources(pool, order)
		if err != nil {
			return nil, err
		}
		merged := Merge(sources)
		if first == nil {
			first = merged
		}
		for p, o := range first {
			if o.Owner.Name != merged[p].Owner.Name {
				return nil, fmt.Errorf("%w: %s is written by %s up to OpenShift 4.14, by %s from 4.15 on", ErrVersion, p,
					merged[p].Owner.Name, o.Owner.Name)
			}
		}
	}
	return first, nil
}

// ErrVersion means that the answer depends on the version of OpenShift, which is unknown.
var ErrVersion = errors.New("the order of the merge depends on the version of OpenShift")

// template reports whether the MCO made c from its own templates, whose files others are meant to replace.
func template(c Config) bool {
	return c.Owner == "ControllerConfig" && (strings.HasPrefix(c.Name, "00-") || strings.HasPrefix(c.Name, "01-"))
}
