// Package mco computes what the Machine Config Operator makes of a pool's MachineConfigs: which belong to the pool,
// the order of their merge, and so the owner of each file. It is pure: it reads a dump, not a cluster.
package mco

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// MaxDump bounds a dump, decompressed. A rendered MachineConfig has about 250 KiB, and the MCO keeps old ones.
const MaxDump = 64 << 20

// Dump is the state of a cluster by `oc get mc,mcp -o yaml`. The zero value is empty; Add extends it.
type Dump struct {
	// Configs are in the order of the dump; Pools may be empty.
	Configs []Config
	Pools   []Pool
	// Minor is the minor version of OpenShift 4 if the dump has a ClusterVersion, else 0.
	Minor int
	// ClusterPolicies name the ClusterImagePolicies of the dump, Namespaces the namespaces of its ImagePolicies.
	ClusterPolicies []string
	Namespaces      []string
	// Restricted is true if the cluster's Image config has allowed or blocked registries.
	Restricted bool
}

// Config is the part of a MachineConfig that concerns image policies.
type Config struct {
	Name   string
	Labels map[string]string
	// Owner is the kind of the object from which the MCO made it, empty if a user made it.
	Owner       string
	Annotations map[string]string
	Files       []File

	// rest is the size of the spec as compact JSON without its files, sizes the size of each file's entry by path.
	rest  int
	sizes map[string]int
}

// Role returns the label that assigns c to pools.
func (c Config) Role() string { return c.Labels[desired.RoleLabel] }

// Rendered reports whether the MCO made c of others.
func (c Config) Rendered() bool { return c.Owner == "MachineConfigPool" }

// file returns the last file of a path, which is the one that is written.
func (c Config) file(p string) (File, bool) {
	for _, f := range slices.Backward(c.Files) {
		if f.Path == p {
			return f, true
		}
	}
	return File{}, false
}

type File struct {
	Path string
	Data []byte
	// Err is why Data is unknown.
	Err error
}

// Pool is a MachineConfigPool.
type Pool struct {
	Name     string
	Selector *Selector
}

// Selector is a label selector. An empty one selects nothing.
type Selector metav1.LabelSelector

func (s *Selector) matches(set map[string]string) (bool, error) {
	selector, err := metav1.LabelSelectorAsSelector((*metav1.LabelSelector)(s))
	if err != nil {
		return false, fmt.Errorf("machineConfigSelector: %w", err)
	}
	return !selector.Empty() && selector.Matches(labels.Set(set)), nil
}

// ParseDump reads a dump: YAML or JSON, documents or lists, optionally gzipped. It ignores objects of other kinds.
func ParseDump(data []byte) (*Dump, error) {
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		var err error
		if data, err = bounded.Gunzip(data, MaxDump); err != nil {
			return nil, err
		}
	}
	if len(data) > MaxDump {
		return nil, &bounded.TooLargeError{Limit: MaxDump}
	}
	docs, err := documents(data)
	if err != nil {
		return nil, err
	}
	d := &Dump{}
	for _, doc := range docs {
		if err := d.Add(doc); err != nil {
			return nil, err
		}
	}
	if len(d.Configs) == 0 {
		return nil, errors.New("holds no MachineConfig")
	}
	return d, nil
}

func documents(data []byte) (out []json.RawMessage, err error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		dec := json.NewDecoder(bytes.NewReader(data))
		for {
			var doc json.RawMessage
			if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
				return out, nil
			} else if err != nil {
				return nil, fmt.Errorf("parsing JSON: %w", err)
			}
			out = append(out, doc)
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var v any
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("parsing YAML: %w", err)
		}
		if v == nil {
			continue
		}
		doc, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("parsing YAML: %w", err)
		}
		out = append(out, doc)
	}
}

type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
	Metadata   struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		Labels          map[string]string `json:"labels"`
		Annotations     map[string]string `json:"annotations"`
		OwnerReferences []struct {
			Kind string `json:"kind"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Spec   json.RawMessage `json:"spec"`
	Status json.RawMessage `json:"status"`
}

// Add reads one more object or list, as JSON, and ignores objects of other kinds. An error leaves the dump unchanged,
// but for the items of a list before the wrong one.
func (d *Dump) Add(doc json.RawMessage) error { return d.add(doc, 0) }

func (d *Dump) add(doc json.RawMessage, depth int) error {
	var o object
	if err := json.Unmarshal(doc, &o); err != nil {
		return fmt.Errorf("parsing an object: %w", err)
	}
	group, _, _ := strings.Cut(o.APIVersion, "/")
	if strings.HasSuffix(o.Kind, "List") {
		if depth > 1 {
			return errors.New("lists are nested too deeply")
		}
		for _, item := range o.Items {
			if err := d.add(item, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	switch group + " " + o.Kind {
	case "machineconfiguration.openshift.io MachineConfig":
		err = d.config(o)
	case "machineconfiguration.openshift.io MachineConfigPool":
		err = d.pool(o)
	case "config.openshift.io ClusterVersion":
		err = d.version(o)
	case "config.openshift.io ClusterImagePolicy":
		d.ClusterPolicies = append(d.ClusterPolicies, o.Metadata.Name)
	case "config.openshift.io ImagePolicy":
		if ns := o.Metadata.Namespace; !slices.Contains(d.Namespaces, ns) {
			d.Namespaces = append(d.Namespaces, ns)
		}
	case "config.openshift.io Image":
		err = d.image(o)
	}
	if err != nil {
		return fmt.Errorf("reading %s %s: %w", o.Kind, o.Metadata.Name, err)
	}
	return nil
}

// config reads a MachineConfig. Files look the same in all versions of its Ignition config.
func (d *Dump) config(o object) error {
	var spec struct {
		Config struct {
			Storage struct {
				Files []struct {
					Path     string          `json:"path"`
					Append   json.RawMessage `json:"append"`
					Contents struct {
						Source      *string `json:"source"`
						Compression string  `json:"compression"`
					} `json:"contents"`
				} `json:"files"`
			} `json:"storage"`
		} `json:"config"`
	}
	if err := json.Unmarshal(o.Spec, &spec); err != nil {
		return err
	}
	c := Config{Name: o.Metadata.Name, Labels: o.Metadata.Labels, Annotations: o.Metadata.Annotations}
	if err := c.measure(o.Spec); err != nil {
		return err
	}
	if c.Name == "" {
		return errors.New("it has no name")
	}
	if slices.ContainsFunc(d.Configs, func(other Config) bool { return other.Name == c.Name }) {
		return errors.New("the dump has two of this name")
	}
	for _, r := range o.Metadata.OwnerReferences {
		c.Owner = r.Kind
	}
	for _, f := range spec.Config.Storage.Files {
		if !matters(f.Path) {
			continue
		}
		g := File{Path: f.Path}
		switch text := string(f.Append); {
		case text != "" && text != "null" && text != "false" && text != "[]":
			g.Err = errors.New("append is not supported")
		case f.Contents.Source != nil:
			g.Data, g.Err = desired.Contents(*f.Contents.Source, f.Contents.Compression)
		}
		c.Files = append(c.Files, g)
	}
	d.Configs = append(d.Configs, c)
	return nil
}

// Directories of files that decide which images a node accepts.
const (
	namespacedDir = policy.NamespacedDir
	keyDirs       = "/etc/pki/"
	noRebootDir   = "/etc/machine-config-daemon/no-reboot/"
)

func matters(p string) bool {
	return p == trust.PolicyPath || path.Dir(p) == trust.RegistriesDir || path.Dir(p) == namespacedDir ||
		strings.HasPrefix(p, keyDirs) || strings.HasPrefix(p, noRebootDir)
}

func (d *Dump) pool(o object) error {
	var spec struct {
		MachineConfigSelector *Selector `json:"machineConfigSelector"`
	}
	if err := json.Unmarshal(o.Spec, &spec); err != nil {
		return err
	}
	d.Pools = append(d.Pools, Pool{o.Metadata.Name, spec.MachineConfigSelector})
	return nil
}

func (d *Dump) image(o object) error {
	var spec struct {
		RegistrySources struct {
			AllowedRegistries []string `json:"allowedRegistries"`
			BlockedRegistries []string `json:"blockedRegistries"`
		} `json:"registrySources"`
	}
	if len(o.Spec) == 0 {
		return nil
	}
	if err := json.Unmarshal(o.Spec, &spec); err != nil {
		return err
	}
	d.Restricted = len(spec.RegistrySources.AllowedRegistries)+len(spec.RegistrySources.BlockedRegistries) > 0
	return nil
}

func (d *Dump) version(o object) error {
	var status struct {
		Desired struct {
			Version string `json:"version"`
		} `json:"desired"`
	}
	if len(o.Status) == 0 {
		return nil
	}
	if err := json.Unmarshal(o.Status, &status); err != nil {
		return err
	}
	v := strings.Split(status.Desired.Version, ".")
	if len(v) < 2 || v[0] != "4" {
		return nil
	}
	minor, err := strconv.Atoi(v[1])
	if err == nil && minor > 0 {
		d.Minor = minor
	}
	return nil
}
