// Package strength compares two policies: for which images does one demand less than the other? It is pure, and knows
// what policy.json means without the image library.
package strength

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// maxRequirements bounds the work of comparing one scope with another.
const maxRequirements = 64

// Policy is what a policy.json demands.
type Policy struct {
	// Default is what images get that no scope covers.
	Default requirements
	scopes  map[place]requirements
}

// place is a scope of a transport. The empty scope is the whole transport, the empty place the policy's default.
type place struct{ transport, scope string }

// requirements all must hold: a formula in conjunctive form. One that is never true stands for a policy that refuses.
type requirements []requirement

// ReadKey returns the content of a key file that a policy names. An error says that the content is not known: then the
// file is taken to be the same as one of the same path, and another than any other.
type ReadKey func(path string) ([]byte, error)

// Parse reads a policy.json which the image library loads: of one that it doesn't load the result may say anything.
// read may be nil. OpenPGP keys are those that they are at a time: revoked and expired ones don't count. Of the zero
// time nothing is known of them, but that a key file is equal to itself.
func Parse(data []byte, read ReadKey, at time.Time) (*Policy, error) {
	var in struct {
		Default    []rawRequirement                       `json:"default"`
		Transports map[string]map[string][]rawRequirement `json:"transports"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("parsing policy.json: %w", err)
	}
	if len(in.Default) == 0 {
		return nil, fmt.Errorf("parsing policy.json: it has no default")
	}
	k := keys{read: read, at: at, files: map[string]source{}}
	p := &Policy{scopes: map[place]requirements{}}
	var err error
	if p.Default, err = k.requirements(in.Default); err != nil {
		return nil, fmt.Errorf("parsing policy.json: default: %w", err)
	}
	for transport, scopes := range in.Transports {
		for scope, raw := range scopes {
			if p.scopes[place{transport, scope}], err = k.requirements(raw); err != nil {
				return nil, fmt.Errorf("parsing policy.json: %s %q: %w", transport, scope, err)
			}
		}
	}
	return p, nil
}

// at returns what the policy demands at a place, and where it says so. The most specific scope is used alone.
func (p *Policy) at(at place) (requirements, place) {
	if at.transport == "" {
		return p.Default, place{}
	}
	for _, scope := range chain(at) {
		if r, ok := p.scopes[place{at.transport, scope}]; ok {
			return r, place{at.transport, scope}
		}
	}
	return p.Default, place{}
}

// places are all that one of the policies names, sorted, the default first.
func places(a, b *Policy) []place {
	all := map[place]bool{{}: true}
	for at := range a.scopes {
		all[at] = true
	}
	for at := range b.scopes {
		all[at] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(x, y place) int {
		if c := strings.Compare(x.transport, y.transport); c != 0 {
			return c
		}
		return strings.Compare(x.scope, y.scope)
	})
}

// chain lists the scopes that are looked up for a scope, the most specific first, up to the transport's own, "". The
// scopes that are looked up for an image are those of the first one that exists: so it is enough to compare at the
// scopes that one of two policies has.
func chain(at place) []string {
	out := []string{at.scope}
	switch at.transport {
	case "docker", "docker-daemon", "atomic":
		if at.scope != "" {
			out = trust.Chain(at.scope)
		}
	case "containers-storage":
		out = append(out, storage(at.scope)...)
	default: // paths, of oci with ":" and a name behind
		for s := at.scope; strings.HasPrefix(s, "/"); {
			i := max(strings.LastIndex(s, "/"), strings.LastIndex(s, ":"))
			if s = s[:i]; s != "" {
				out = append(out, s)
			}
		}
	}
	if at.scope != "" {
		out = append(out, "")
	}
	return out
}

// storage: scopes of containers-storage are "[driver@root]name", and "[root]" alone.
func storage(scope string) []string {
	i := strings.Index(scope, "]")
	if !strings.HasPrefix(scope, "[") || i < 0 {
		return nil
	}
	store, name := scope[:i+1], scope[i+1:]
	var out []string
	for _, n := range trust.Chain(name) {
		if n != name && !strings.HasPrefix(n, "*.") {
			out = append(out, store+n)
		}
	}
	if name != "" {
		out = append(out, store)
	}
	if _, root, ok := strings.Cut(store, "@"); ok {
		out = append(out, "["+root)
	}
	return out
}
