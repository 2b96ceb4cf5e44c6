// Package diff compares what two things demand that hold policies: hosts, pools of a cluster, configs and files.
package diff

import (
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

	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/lint"
	"github.com/nodetrust/nodetrust/internal/source"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// ErrPool says that a dump holds several MachineConfigs, and no pool was named.
var ErrPool = errors.New("it holds several MachineConfigs")

// ReadError says that an input could not be read, or holds nothing to compare.
type ReadError struct {
	Name string
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("reading %s: %v", e.Name, e.Err) }

func (e *ReadError) Unwrap() error { return e.Err }

// complete is an error that says by itself what it is about.
type complete struct{ error }

func (e complete) Unwrap() error { return e.error }

// Options say how inputs are read.
type Options struct {
	// At is the time at which keys are looked at.
	At time.Time
	// Pool of a dump that is meant.
	Pool string
	// OpenShift is the version of a dump's cluster, for example 4.18; empty is what the dump says.
	OpenShift string
	// Stdin is read for an input of the name -.
	Stdin io.Reader
}

// Load reads the policies of a file, a pipe, a directory with desired.ign or the root directory of a host. The error is
// a *ReadError, ErrPool, mco.ErrVersion, or what is wrong with the input.
func (o Options) Load(name string) (*Side, error) {
	s, err := o.find(name)
	return o.loaded(name, s, err)
}

// LoadPool reads the policies of a pool's nodes out of a dump.
func (o Options) LoadPool(name string, d *mco.Dump) (*Side, error) {
	s, err := o.pool(d)
	return o.loaded(name, s, err)
}

func (o Options) loaded(name string, s *Side, err error) (*Side, error) {
	if err == nil {
		return s, s.parse(name, o.At)
	}
	if errors.As(err, new(complete)) || errors.Is(err, ErrPool) || errors.Is(err, mco.ErrVersion) {
		return nil, err
	}
	return nil, &ReadError{name, err}
}

// find returns the policies in what name stands for, and how the key files are read that they name.
func (o Options) find(name string) (*Side, error) {
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
	in, err := source.Read(name, o.Stdin)
	if err != nil {
		return nil, err
	}
	switch in.Kind {
	case source.Trust:
		cfg, err := source.ParseTrust(name, in.Data)
		if err != nil {
			return nil, complete{err}
		}
		files, err := cfg.Files(nil)
		if err != nil {
			return nil, complete{err}
		}
		return fromFiles(files)
	case source.Policy:
		found := lint.HostPolicies{Policies: []lint.HostPolicy{{Path: name, Data: in.Data}}}
		return &Side{HostPolicies: found, read: ofThisMachine}, nil
	case source.MachineConfig, source.Ignition, source.Desired:
		docs, err := source.Documents(in.Data)
		if err != nil {
			return nil, err
		}
		var s *desired.State
		switch kind := source.KindOf("", docs[0]); {
		case len(docs) == 1 && kind == source.MachineConfig:
			s, err = lint.ReadDesired(docs[0])
		case len(docs) == 1 && kind == source.Ignition:
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

func fromFiles(files trust.FileSet) (*Side, error) {
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
	return &Side{HostPolicies: *policies, read: func(path string) ([]byte, error) {
		if f, ok := files.Get(path); ok {
			return f.Data, nil
		}
		return nil, fs.ErrNotExist
	}}, nil
}

// hostSide are the policies that the runtimes of a host may take.
func hostSide(root string) (*Side, error) {
	policies, err := lint.PoliciesOfHost(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("a host's root directory has etc/containers/policy.json, which is missing")
	}
	if err != nil {
		return nil, err
	}
	return &Side{
		HostPolicies: *policies, whole: true,
		read: func(path string) ([]byte, error) { return hostfs.Root(root).ReadFile(path, trust.MaxKeyFile) },
	}, nil
}

// dumped merges the MachineConfigs of a pool; a single one is its own pool.
func (o Options) dumped(data []byte) (*Side, error) {
	d, err := mco.ParseDump(data)
	if err != nil {
		return nil, fmt.Errorf("is no trust.yaml, policy.json, MachineConfig, Ignition config or cluster dump: %w", err)
	}
	if len(d.Configs) == 1 {
		return fromConfigs(mco.Merge(d.Configs))
	}
	if o.Pool == "" {
		return nil, ErrPool
	}
	return o.pool(d)
}

// pool is what the pool's nodes get.
func (o Options) pool(d *mco.Dump) (*Side, error) {
	minor := d.Minor
	if o.OpenShift != "" {
		r, err := trust.LookupReader("openshift-" + o.OpenShift)
		if err != nil {
			return nil, complete{fmt.Errorf("--openshift %s: must be a version such as 4.18", o.OpenShift)}
		}
		minor = r.OpenShift
	}
	files, err := d.PoolFiles(o.Pool, minor)
	if err != nil {
		return nil, err
	}
	return fromConfigs(files)
}

// fromConfigs is fromFiles of those that MachineConfigs write.
func fromConfigs(owned map[string]mco.Owned) (*Side, error) {
	var files trust.FileSet
	var leftOut []string
	for _, p := range slices.Sorted(maps.Keys(owned)) {
		f := owned[p]
		switch {
		case f.Err == nil:
			files = append(files, trust.File{Path: p, Data: f.Data})
		case p == trust.PolicyPath || path.Dir(p) == trust.RegistriesDir:
			return nil, fmt.Errorf("%s of %s: %w", p, f.Owner.Name, f.Err)
		case lint.NamesPolicies(p, string(owned[hostfs.Passwd].Data)):
			leftOut = append(leftOut, fmt.Sprintf("%s of %s: %v", p, f.Owner.Name, f.Err))
		}
	}
	s, err := fromFiles(files)
	if err != nil {
		return nil, err
	}
	s.LeftOut, s.whole = append(s.LeftOut, leftOut...), true
	return s, nil
}
