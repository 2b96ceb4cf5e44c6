package release

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/verify"
)

// The label of ConfigMaps with signatures of releases, and the namespace where the operator reads them.
const (
	ConfigMapLabel     = "release.openshift.io/verification-signatures"
	ConfigMapNamespace = "openshift-config-managed"
)

// ConfigMap is the used part of a Kubernetes ConfigMap.
type ConfigMap struct {
	Kind     string `json:"kind" yaml:"kind"`
	Metadata struct {
		Name      string            `json:"name" yaml:"name"`
		Namespace string            `json:"namespace" yaml:"namespace"`
		Labels    map[string]string `json:"labels" yaml:"labels"`
	} `json:"metadata" yaml:"metadata"`
	// BinaryData is base64, by key: sha256-<hex>, or sha256-<hex>-<n>.
	BinaryData map[string]string `json:"binaryData" yaml:"binaryData"`
	Items      []ConfigMap       `json:"items" yaml:"items"`
}

// ConfigMaps is a Source of signatures in ConfigMaps.
type ConfigMaps struct {
	name string
	maps []ConfigMap
}

// NewConfigMaps makes a Source of those ConfigMaps that have the label. The name says where they come from.
func NewConfigMaps(name string, list []ConfigMap) *ConfigMaps {
	c := &ConfigMaps{name: name}
	for _, m := range list {
		if _, ok := m.Metadata.Labels[ConfigMapLabel]; ok {
			c.maps = append(c.maps, m)
		}
	}
	return c
}

// ParseConfigMaps reads manifests, YAML or JSON, several of them or a list. It ignores objects other than ConfigMaps
// with the label, and returns an error if there is none with it.
func ParseConfigMaps(name string, data []byte) (*ConfigMaps, error) {
	var list []ConfigMap
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("parsing %s: %w", name, err)
		}
		var kind struct {
			Kind string `yaml:"kind"`
		}
		if err := n.Decode(&kind); err != nil {
			return nil, fmt.Errorf("parsing %s: %w", name, err)
		}
		if kind.Kind != "ConfigMap" && kind.Kind != "List" && kind.Kind != "ConfigMapList" {
			continue
		}
		var m ConfigMap
		if err := n.Decode(&m); err != nil {
			return nil, fmt.Errorf("parsing %s: %w", name, err)
		}
		list = append(append(list, m), m.Items...)
	}
	c := NewConfigMaps(name, list)
	if len(c.maps) == 0 {
		return nil, fmt.Errorf("parsing %s: it holds no ConfigMap with the label %s", name, ConfigMapLabel)
	}
	return c, nil
}

// Manifests returns ConfigMaps with signatures by digest, as YAML: in a cluster the Cluster Version Operator finds
// them without a store. Same input, same bytes.
func Manifests(signatures map[string][][]byte) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	for _, d := range slices.Sorted(maps.Keys(signatures)) {
		name := strings.Replace(d, ":", "-", 1)
		data := map[string]string{}
		for i, s := range signatures[d] {
			data[fmt.Sprintf("%s-%d", name, i+1)] = base64.StdEncoding.EncodeToString(s)
		}
		err := enc.Encode(struct {
			APIVersion string            `yaml:"apiVersion"`
			Kind       string            `yaml:"kind"`
			Metadata   map[string]any    `yaml:"metadata"`
			BinaryData map[string]string `yaml:"binaryData"`
		}{"v1", "ConfigMap", map[string]any{
			"name": name, "namespace": ConfigMapNamespace,
			"labels": map[string]string{ConfigMapLabel: ""},
		}, data})
		if err != nil {
			return nil, err
		}
	}
	return b.Bytes(), enc.Close()
}

// Signatures implements Source.
func (c *ConfigMaps) Signatures(_ context.Context, d string) ([]Blob, error) {
	prefix := strings.Replace(d, ":", "-", 1)
	var out []Blob
	for _, m := range c.maps {
		for _, key := range slices.Sorted(maps.Keys(m.BinaryData)) {
			if key != prefix && !strings.HasPrefix(key, prefix+"-") {
				continue
			}
			source := fmt.Sprintf("%s: ConfigMap %s/%s key %s", c.name, m.Metadata.Namespace, m.Metadata.Name, key)
			b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(m.BinaryData[key]), ""))
			if err != nil {
				return out, notSignature("%s: %w", source, err)
			}
			if len(b) > verify.MaxSignatureSize {
				return out, notSignature("%s has more than %d bytes: that is no signature", source, verify.MaxSignatureSize)
			}
			out = append(out, Blob{Source: source, Data: b})
		}
	}
	return out, nil
}
