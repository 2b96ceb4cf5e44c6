// Package render turns the files of a trust config into Butane, MachineConfig, Ignition config or ConfigMap. Bytes in,
// bytes out: the same input always gives the same bytes.
package render

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/templates"
)

// Limits of the consumers.
const (
	maxMachineConfig = 1_572_864 // the MCO's, for everything of a pool
	maxConfigMap     = 1 << 20
)

// Namespace is the namespace of the agents' ConfigMaps.
const Namespace = "nodetrust"

// Input is what every format is made from.
type Input struct {
	Config *trust.Config
	// Files are those of Config for Readers.
	Files   trust.FileSet
	Readers []trust.Reader
	Pool    string
	// Name replaces the default name of the MachineConfig, 51-<pool>-<name>.
	Name string
	// Annotations are added to those of the MachineConfig.
	Annotations map[string]string
}

// New makes the files of c for the readers.
func New(c *trust.Config, readers []trust.Reader, pool string) (Input, error) {
	files, err := c.Files(readers)
	if err != nil {
		return Input{}, err
	}
	return Input{Config: c, Files: files, Readers: readers, Pool: pool}, nil
}

// MachineConfigName returns the name of the MachineConfig of a pool.
func (in Input) MachineConfigName() string {
	if in.Name != "" {
		return in.Name
	}
	return "51-" + in.Pool + "-" + in.Config.Name
}

// ConfigMapName returns the name of the ConfigMap that a pool's agents read.
func (in Input) ConfigMapName() string { return "nodetrust-" + in.Pool }

// IgnitionReader returns the reader that decides on the versions of Butane and Ignition configs: the oldest OpenShift,
// as newer MCOs take older Ignition configs. Without OpenShift it returns a default reader.
func IgnitionReader(readers []trust.Reader) trust.Reader {
	oldest := trust.DefaultReaders()[0]
	found := false
	for _, r := range readers {
		if r.OpenShift > 0 && (!found || r.OpenShift < oldest.OpenShift) {
			oldest, found = r, true
		}
	}
	return oldest
}

type (
	butane struct {
		Variant  string   `yaml:"variant"`
		Version  string   `yaml:"version"`
		Metadata metadata `yaml:"metadata"`
		Storage  struct {
			Files []butaneFile `yaml:"files"`
		} `yaml:"storage"`
	}

	metadata struct {
		Name        string            `yaml:"name"`
		Namespace   string            `yaml:"namespace,omitempty"`
		Labels      map[string]string `yaml:"labels,omitempty"`
		Annotations map[string]string `yaml:"annotations,omitempty"`
	}

	butaneFile struct {
		Path      string    `yaml:"path"`
		Mode      yaml.Node `yaml:"mode"`
		Overwrite bool      `yaml:"overwrite"`
		Contents  contents  `yaml:"contents"`
	}

	contents struct {
		Inline string `yaml:"inline,omitempty"`
		Source string `yaml:"source,omitempty"`
	}
)

// Butane returns a Butane config of variant openshift. It can't hold the canaries; MachineConfig adds them.
func Butane(in Input) ([]byte, error) {
	b := butane{
		Variant:  "openshift",
		Version:  IgnitionReader(in.Readers).Butane(),
		Metadata: metadata{Name: in.MachineConfigName(), Labels: map[string]string{desired.RoleLabel: in.Pool}},
	}
	for _, f := range in.Files {
		b.Storage.Files = append(b.Storage.Files, butaneFile{
			Path:      f.Path,
			Mode:      yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprintf("%#o", f.Mode)},
			Overwrite: true,
			Contents:  inline(f.Data),
		})
	}
	return encode(in, b)
}

// inline returns text as it is, for human readers, and anything else as a data URL.
func inline(data []byte) contents {
	text := string(data)
	if len(data) > 0 && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == 0xFEFF }) {
		return contents{Inline: text}
	}
	return contents{Source: "data:;base64," + base64.StdEncoding.EncodeToString(data)}
}

// translate is the only caller of the Butane library. Raw returns the Ignition config alone, as JSON, instead of a
// MachineConfig in YAML. Even a warning of Butane is an error: nodetrust wrote the input.
func translate(in Input, raw bool) ([]byte, error) {
	bu, err := Butane(in)
	if err != nil {
		return nil, err
	}
	out, rpt, err := config.TranslateBytes(bu, common.TranslateBytesOptions{Raw: raw})
	if err != nil {
		return nil, fmt.Errorf("translating Butane config: %w: %s", err, rpt.String())
	}
	if len(rpt.Entries) > 0 {
		return nil, fmt.Errorf("translating Butane config: %s", rpt.String())
	}
	return out, nil
}

// MachineConfig returns Butane's MachineConfig of the pool, with the canaries and the digest of the files as
// annotations.
func MachineConfig(in Input) ([]byte, error) {
	mc, err := translate(in, false)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(mc, &doc); err != nil {
		return nil, fmt.Errorf("parsing MachineConfig: %w", err)
	}
	canaries, err := in.canaries()
	if err != nil {
		return nil, err
	}
	annotations := map[string]string{
		desired.CanariesAnnotation: string(canaries), desired.DigestAnnotation: in.Files.Digest(),
	}
	maps.Copy(annotations, in.Annotations)
	var node yaml.Node
	if err := node.Encode(annotations); err != nil {
		return nil, err
	}
	meta := child(doc.Content[0], "metadata")
	if meta == nil {
		return nil, fmt.Errorf("parsing MachineConfig: it has no metadata")
	}
	meta.Content = append(meta.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "annotations"}, &node)
	doc.HeadComment, doc.Content[0].HeadComment = "", ""
	out, err := encode(in, &doc)
	if err == nil && len(out) > maxMachineConfig {
		return nil, fmt.Errorf("MachineConfig has %d bytes, the MCO takes at most %d", len(out), maxMachineConfig)
	}
	return out, err
}

func child(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func (in Input) canaries() ([]byte, error) {
	list := in.Config.Canaries
	if list == nil {
		list = []trust.Canary{}
	}
	return json.Marshal(list)
}

// Ignition returns the Ignition config alone, as JSON with a newline at its end.
func Ignition(in Input) ([]byte, error) {
	if in.Pool == "" {
		in.Pool = "none" // Butane requires a role; the Ignition config doesn't hold it
	}
	out, err := translate(in, true)
	if err != nil {
		return nil, err
	}
	return append(bytes.TrimRight(out, "\n"), '\n'), nil
}

type configMap struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Metadata   metadata          `yaml:"metadata"`
	Data       map[string]string `yaml:"data"`
}

// ConfigMap returns the ConfigMap that the agents of the pool read, in the namespace nodetrust.
func ConfigMap(in Input) ([]byte, error) {
	ign, err := Ignition(in)
	if err != nil {
		return nil, err
	}
	canaries, err := in.canaries()
	if err != nil {
		return nil, err
	}
	if n := len(ign) + len(canaries); n > maxConfigMap {
		return nil, fmt.Errorf("ConfigMap has %d bytes of data, Kubernetes takes at most %d", n, maxConfigMap)
	}
	return encode(in, configMap{
		APIVersion: "v1",
		Kind:       "ConfigMap",
		Metadata: metadata{
			Name:        in.ConfigMapName(),
			Namespace:   Namespace,
			Labels:      map[string]string{"app.kubernetes.io/name": "nodetrust", "nodetrust.io/pool": in.Pool},
			Annotations: map[string]string{desired.DigestAnnotation: in.Files.Digest()},
		},
		Data: map[string]string{desired.IgnitionFile: string(ign), desired.CanariesFile: string(canaries) + "\n"},
	})
}

func encode(in Input, v any) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintln(&b, templates.Comment(in.Config.Name))
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return b.Bytes(), nil
}
