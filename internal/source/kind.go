package source

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Kind is what an input is.
type Kind int

// Kinds of inputs.
const (
	Unknown    Kind = iota
	Policy          // policy.json
	Registries      // of registries.d
	Key
	Trust         // trust.yaml
	MachineConfig // or several documents, of which this is the first: see Documents
	Ignition
	Desired // another object of a cluster, such as a rendered ConfigMap
	Dump    // a list of objects of a cluster, maybe compressed
	RegistriesConf
	CRIO // crio.conf
)

// KindOf tells what an input is by its content; its name decides only where the content says nothing.
func KindOf(name string, data []byte) Kind {
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return Dump
	}
	k := Unknown
	if len(data) <= MaxObject {
		k = kindOf(name, data)
	}
	if (k == MachineConfig || k == Desired || len(data) > MaxObject) && isList(data) {
		return Dump
	}
	return k
}

func kindOf(name string, data []byte) Kind {
	trimmed := bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	ext := strings.ToLower(filepath.Ext(name))
	switch {
	case len(data) > 0 && data[0]&0x80 != 0 && data[0] != 0xef:
		return Key
	case bytes.Contains(data, []byte("-----BEGIN ")) && !bytes.HasPrefix(trimmed, []byte("{")) && ext != ".yaml" &&
		ext != ".yml":
		return cmp.Or(detectYAML(trimmed), Key) // a pipe has no name, and keys stand in a trust.yaml too
	case bytes.HasPrefix(trimmed, []byte("{")):
		return detectJSON(trimmed)
	case ext == ".json":
		return Policy
	case ext == ".conf":
		return detectTOML(name, data)
	}
	if k := detectYAML(trimmed); k != Unknown {
		return k
	}
	if base := filepath.Base(name); base == "trust.yaml" || base == "trust.yml" {
		return Trust
	}
	switch ext {
	case ".yaml", ".yml":
		return Registries
	case ".asc", ".gpg", ".pub", ".key", ".pem":
		return Key
	}
	if strings.HasPrefix(filepath.Base(name), "RPM-GPG-KEY") {
		return Key
	}
	return Unknown
}

func detectJSON(data []byte) Kind {
	var top map[string]json.RawMessage
	if json.Unmarshal(data, &top) != nil {
		return cmp.Or(detectYAML(data), Policy)
	}
	members := map[string]string{}
	for name, value := range top {
		text := ""
		_ = json.Unmarshal(value, &text) // what is no text is none
		members[name] = text
	}
	_, isPolicy := members[policy.FieldDefault]
	_, hasDefault := members[registriesd.DefaultSection]
	k := ofMembers(members)
	if k == Unknown || k == Registries && isPolicy && !hasDefault {
		return Policy
	}
	return k
}

// ofMembers tells the kind of an object by its members, whose text is "" if it is none.
func ofMembers(members map[string]string) Kind {
	has := func(key string) bool { _, ok := members[key]; return ok }
	switch kind := members["kind"]; {
	case kind == trust.ObjectKind, strings.HasPrefix(members["apiVersion"], "nodetrust.io/"):
		return Trust
	case kind == "MachineConfig":
		return MachineConfig
	case kind != "":
		return Desired
	case has("ignition"):
		return Ignition
	case slices.ContainsFunc(registriesd.TopKeys(), has):
		return Registries
	}
	return Unknown
}

// detectTOML tells the configuration of CRI-O from registries.conf, by names where they are broken.
func detectTOML(name string, data []byte) Kind {
	var conf map[string]any
	err := toml.Unmarshal(data, &conf)
	base := filepath.Base(name)
	switch {
	case err == nil && conf["crio"] != nil, err != nil && strings.HasPrefix(base, "crio"):
		return CRIO
	case err == nil && (conf["registry"] != nil || conf["unqualified-search-registries"] != nil ||
		conf["short-name-mode"] != nil || conf["aliases"] != nil),
		strings.HasPrefix(base, "registries"):
		return RegistriesConf
	}
	return Unknown
}

func detectYAML(data []byte) Kind {
	if len(data) > MaxObject {
		return Unknown
	}
	var n yaml.Node
	if yaml.Unmarshal(data, &n) != nil || len(n.Content) == 0 || n.Content[0].Kind != yaml.MappingNode {
		// Broken YAML: what it was meant to be shows in the text.
		switch {
		case bytes.Contains(data, []byte("nodetrust.io/")):
			return Trust
		case bytes.Contains(data, []byte("kind: MachineConfig")):
			return MachineConfig
		}
		return Unknown
	}
	members := map[string]string{}
	for i := 0; i+1 < len(n.Content[0].Content); i += 2 {
		members[n.Content[0].Content[i].Value] = n.Content[0].Content[i+1].Value
	}
	return ofMembers(members)
}

// Documents cuts YAML into its documents, and takes the Ignition config out of those that are a rendered ConfigMap.
func Documents(data []byte) ([][]byte, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return [][]byte{data}, nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var out [][]byte
	configMap := false
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var object struct {
			Kind string
			Data map[string]string
		}
		if n.Decode(&object) == nil && object.Kind == "ConfigMap" && object.Data[desired.IgnitionFile] != "" {
			configMap = true
			out = append(out, []byte(object.Data[desired.IgnitionFile]))
			continue
		}
		doc, err := yaml.Marshal(&n)
		if err != nil {
			return nil, err
		}
		out = append(out, doc)
	}
	if len(out) < 2 && !configMap {
		return [][]byte{data}, nil // as it is written
	}
	return out, nil
}

// isList reports whether data is a list of objects, as `oc get mc -o yaml` writes it.
func isList(data []byte) bool {
	// The kind of a list stands in a line of its own before or behind the items, those of the items are indented.
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		for line := range bytes.Lines(data) {
			if kind, ok := bytes.CutPrefix(line, []byte("kind:")); ok &&
				bytes.HasSuffix(bytes.Trim(kind, " \r\n\"'"), []byte("List")) {
				return true
			}
		}
		return false
	}
	var o struct{ Kind string }
	return json.Unmarshal(data, &o) == nil && len(o.Kind) >= 4 && o.Kind[len(o.Kind)-4:] == "List"
}
