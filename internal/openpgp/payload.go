package openpgp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
)

const payloadType = "atomic container signature"

// Payload is the JSON of a simple signature. Its fields are as trustworthy as the bytes that they were read from.
type Payload struct {
	Digest digest.Digest
	// Reference is as written. It may be empty or no reference, which no identity accepts.
	Reference string
	// Creator is "" and Timestamp (seconds since 1970) nil if missing.
	Creator   string
	Timestamp *int64
}

// ReadPayload reads the JSON of a simple signature as strictly as runtimes do: every object has exactly the members
// that it must have, each once and in its own spelling. Only "optional" may have others. The image library's reader is
// private; tests compare the two.
func ReadPayload(signed []byte) (Payload, error) {
	var p Payload
	top, err := exactly(signed, "critical", "optional")
	if err != nil {
		return p, err
	}
	if err := p.optional(top["optional"]); err != nil {
		return p, fmt.Errorf("optional: %w", err)
	}
	critical, err := exactly(top["critical"], "type", "image", "identity")
	if err != nil {
		return p, fmt.Errorf("critical: %w", err)
	}
	var kind, d string
	if err := json.Unmarshal(critical["type"], &kind); err != nil || kind != payloadType {
		return p, fmt.Errorf("critical: type is %s, not %q", critical["type"], payloadType)
	}
	if err := only(critical["image"], "docker-manifest-digest", &d); err != nil {
		return p, fmt.Errorf("image: %w", err)
	}
	if p.Digest, err = digest.Parse(d); err != nil {
		return p, fmt.Errorf("docker-manifest-digest %q: %w", d, err)
	}
	if err := only(critical["identity"], "docker-reference", &p.Reference); err != nil {
		return p, fmt.Errorf("identity: %w", err)
	}
	return p, nil
}

// optional reads optional members. Other members may be any JSON.
func (p *Payload) optional(b []byte) error {
	fields, err := members(b)
	if err != nil {
		return err
	}
	var timestamp float64
	for name, value := range fields {
		var target any = new(any)
		switch name {
		case "creator":
			target = &p.Creator
		case "timestamp":
			target = &timestamp
		}
		if err := json.Unmarshal(value, target); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, ok := fields["timestamp"]; ok {
		n := int64(timestamp)
		if float64(n) != timestamp {
			return errors.New("timestamp is no integer")
		}
		p.Timestamp = &n
	}
	return nil
}

// only reads an object whose one member is a string of this name.
func only(b []byte, name string, to *string) error {
	fields, err := exactly(b, name)
	if err != nil {
		return err
	}
	return json.Unmarshal(fields[name], to)
}

// exactly reads an object that has these members and no other.
func exactly(b []byte, names ...string) (map[string]json.RawMessage, error) {
	fields, err := members(b)
	if err != nil {
		return nil, err
	}
	for name := range fields {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%q is not known", name)
		}
	}
	for _, name := range names {
		if _, ok := fields[name]; !ok {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	return fields, nil
}

// members reads one JSON object with unique names. json.Unmarshal would take the last of equal names, and names in
// another case.
func members(b []byte) (map[string]json.RawMessage, error) {
	var whole json.RawMessage
	if err := json.Unmarshal(b, &whole); err != nil { // a decoder alone doesn't look at commas
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(whole))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	fields := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string)
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		fields[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the JSON object")
	}
	return fields, nil
}
