package strength

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrBothKinds says that a merge would ask for a GPG and a sigstore signature of one image, which hardly any image has.
var ErrBothKinds = errors.New("both a GPG and a sigstore signature would be needed")

// rawPolicy keeps requirements as they are written.
type rawPolicy struct {
	Default    []json.RawMessage                       `json:"default"`
	Transports map[string]map[string][]json.RawMessage `json:"transports,omitempty"`
}

func (p rawPolicy) at(at place) []json.RawMessage {
	if at.transport != "" {
		for _, scope := range chain(at) {
			if r, ok := p.Transports[at.transport][scope]; ok {
				return r
			}
		}
	}
	return p.Default
}

// Meet returns the policy that demands of each image what a and b demand: no image passes that one of them refuses.
// Both must be policies that the image library loads; so is the result.
//
// An ErrBothKinds error names the scope. That some scope is refused by one and signed by the other is no error: it
// stays refused.
func Meet(a, b []byte) ([]byte, error) {
	var ra, rb rawPolicy
	for _, in := range []struct {
		data []byte
		p    *rawPolicy
	}{{a, &ra}, {b, &rb}} {
		if err := json.Unmarshal(in.data, in.p); err != nil {
			return nil, fmt.Errorf("parsing policy.json: %w", err)
		}
	}
	pa, err := Parse(a, nil, time.Time{})
	if err != nil {
		return nil, err
	}
	pb, err := Parse(b, nil, time.Time{})
	if err != nil {
		return nil, err
	}
	out := rawPolicy{Transports: map[string]map[string][]json.RawMessage{}}
	for _, at := range places(pa, pb) {
		both, err := meet(ra.at(at), rb.at(at))
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", at.transport, at.scope, err)
		}
		if at.transport == "" {
			out.Default = both
			continue
		}
		if out.Transports[at.transport] == nil {
			out.Transports[at.transport] = map[string][]json.RawMessage{}
		}
		out.Transports[at.transport][at.scope] = both
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// meet joins two lists all of whose entries must hold, and leaves out what adds nothing.
func meet(a, b []json.RawMessage) ([]json.RawMessage, error) {
	var out []json.RawMessage
	var accept json.RawMessage
	kinds := map[string]bool{}
	for _, raw := range slices.Concat(a, b) {
		var r struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, err
		}
		switch r.Type {
		case "reject":
			return []json.RawMessage{raw}, nil
		case "insecureAcceptAnything":
			accept = raw
			continue
		}
		kinds[r.Type] = true
		if !slices.ContainsFunc(out, func(o json.RawMessage) bool { return compact(o) == compact(raw) }) {
			out = append(out, raw)
		}
	}
	if kinds["signedBy"] && kinds["sigstoreSigned"] && !bothKinds(a) && !bothKinds(b) {
		return nil, ErrBothKinds
	}
	if len(out) == 0 {
		return []json.RawMessage{accept}, nil
	}
	return out, nil
}

// bothKinds reports whether a list asks for both already.
func bothKinds(list []json.RawMessage) bool {
	text := ""
	for _, raw := range list {
		text += compact(raw)
	}
	return strings.Contains(text, `"type":"signedBy"`) && strings.Contains(text, `"type":"sigstoreSigned"`)
}

func compact(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}
