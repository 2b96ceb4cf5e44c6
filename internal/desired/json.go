package desired

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"go.yaml.in/yaml/v3"
)

const (
	maxDepth = 64
	// maxValues bounds values and names: parsing a megabyte of empty lists and objects takes half a gigabyte. A file
	// of an Ignition config has about twenty.
	maxValues = 64 << 10
)

var errTooMany = fmt.Errorf("holds more than %d values", maxValues)

// toJSON returns one JSON object without duplicate keys, from JSON or YAML.
func toJSON(data []byte) ([]byte, error) {
	if t := bytes.TrimSpace(data); len(t) == 0 {
		return nil, errors.New("is empty")
	} else if t[0] == '{' {
		dec := json.NewDecoder(bytes.NewReader(t))
		dec.UseNumber()
		left := maxValues
		if err := noDuplicates(dec, 0, &left); err != nil {
			return nil, fmt.Errorf("parsing JSON: %w", err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, errors.New("parsing JSON: text after the object")
		}
		return t, nil
	}
	// The parser has no limit of its own. Each of these characters separates values in YAML.
	if bytes.Count(data, []byte{','})+bytes.Count(data, []byte{'\n'})+bytes.Count(data, []byte{'\r'})+
		bytes.Count(data, []byte{'['})+bytes.Count(data, []byte{'{'}) > 2*maxValues {
		return nil, fmt.Errorf("parsing: %w", errTooMany)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("is empty")
	} else if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds several documents: take the one of this node's pool")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errNotObject
	}
	v, err := value(doc.Content[0], 0)
	if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	return json.Marshal(v)
}

// noDuplicates reads one value without duplicate keys, of which readers of JSON take different ones.
func noDuplicates(dec *json.Decoder, depth int, left *int) error {
	if depth > maxDepth {
		return errors.New("is nested too deeply")
	}
	if *left--; *left < 0 {
		return errTooMany
	}
	t, err := dec.Token()
	if err != nil {
		return err
	}
	d, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if d == '{' {
			k, err := dec.Token()
			if err != nil {
				return err
			}
			*left--
			name, _ := k.(string)
			if seen[name] {
				return fmt.Errorf("key %q is given twice", name)
			}
			seen[name] = true
		}
		if err := noDuplicates(dec, depth+1, left); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// value turns a YAML node into a value for json.Marshal. It refuses aliases: a few of them can expand to gigabytes.
func value(n *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("is nested too deeply")
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
				return nil, fmt.Errorf("line %d: a key is no plain name", k.Line)
			}
			if _, ok := m[k.Value]; ok {
				return nil, fmt.Errorf("line %d: key %q is given twice", k.Line, k.Value)
			}
			v, err := value(n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			m[k.Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		s := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, err := value(c, depth+1)
			if err != nil {
				return nil, err
			}
			s = append(s, v)
		}
		return s, nil
	case yaml.ScalarNode:
		return scalar(n)
	}
	return nil, fmt.Errorf("line %d: aliases are not supported", n.Line)
}

func scalar(n *yaml.Node) (any, error) {
	switch n.Tag {
	case "!!str", "!!timestamp":
		return n.Value, nil
	case "!!null":
		return nil, nil
	case "!!bool":
		b, err := strconv.ParseBool(n.Value)
		return b, err
	case "!!int":
		var i int64
		err := n.Decode(&i)
		return i, err
	}
	return nil, fmt.Errorf("line %d: a value of type %s is not supported", n.Line, n.Tag)
}
