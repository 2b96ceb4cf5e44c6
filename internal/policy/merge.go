package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// ErrBothKinds means that a merge would ask for a GPG and a sigstore signature of one image, which hardly any image
// has.
var ErrBothKinds = errors.New("both a GPG and a sigstore signature would be needed")

// Merge returns the policy that demands what a and b demand: it refuses every image that one of them refuses. Both
// must load in the image library; then the result does. Requirements keep their text.
//
// An ErrBothKinds error names the scope. A scope that one policy rejects and the other signs stays rejected.
func Merge(a, b []byte) ([]byte, error) {
	var da, db, out Document[written]
	for _, in := range []struct {
		data []byte
		d    *Document[written]
	}{{a, &da}, {b, &db}} {
		if _, err := Read(in.data); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(in.data, in.d); err != nil {
			return nil, fmt.Errorf("parsing policy.json: %w", err)
		}
	}
	for _, p := range AllPlaces(&da, &db) {
		ra, _ := da.At(p)
		rb, _ := db.At(p)
		both, err := join(ra, rb)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", p.Transport, p.Scope, err)
		}
		out.Set(p, both)
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

type written struct {
	kind string
	text json.RawMessage
}

func (w *written) UnmarshalJSON(data []byte) error {
	var r Requirement
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return err
	}
	w.kind, w.text = r.Type, b.Bytes()
	return nil
}

func (w written) MarshalJSON() ([]byte, error) { return w.text, nil }

// join joins two lists of requirements that all must hold, without redundant ones.
func join(a, b []written) ([]written, error) {
	var out, accepts []written
	for _, r := range slices.Concat(a, b) {
		switch {
		case r.kind == Reject:
			return []written{r}, nil
		case r.kind == InsecureAcceptAnything:
			accepts = []written{r}
		case !slices.ContainsFunc(out, func(o written) bool { return bytes.Equal(o.text, r.text) }):
			out = append(out, r)
		}
	}
	if asksForBoth(out) && !asksForBoth(a) && !asksForBoth(b) {
		return nil, ErrBothKinds
	}
	if len(out) == 0 {
		return accepts, nil
	}
	return out, nil
}

func asksForBoth(list []written) bool {
	asks := func(kind string) bool {
		return slices.ContainsFunc(list, func(r written) bool { return r.kind == kind })
	}
	return asks(SignedBy) && asks(SigstoreSigned)
}
