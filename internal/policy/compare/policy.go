// Package compare compares two policies: for which images does one demand less than the other? It is pure, and knows
// what policy.json means without the image library.
package compare

import (
	"fmt"
	"time"

	"github.com/nodetrust/nodetrust/internal/policy"
)

// maxRequirements bounds the work of comparing one scope with another.
const maxRequirements = 64

// Policy is what a policy.json demands. Scopes that accept everything have no requirements.
type Policy struct{ policy.Document[requirement] }

// requirements all must hold: a formula in conjunctive form. One that is never true stands for a policy that refuses.
type requirements []requirement

// ReadKey returns the content of a key file that a policy names. An error says that the content is not known: then the
// file is taken to be the same as one of the same path, and another than any other.
type ReadKey func(path string) ([]byte, error)

// Parse reads a policy.json which the image library loads: of one that it doesn't load the result may say anything.
// read may be nil. OpenPGP keys are those that they are at a time: revoked and expired ones don't count. Of the zero
// time nothing is known of them, but that a key file is equal to itself.
func Parse(data []byte, read ReadKey, at time.Time) (*Policy, error) {
	in, err := policy.Read(data)
	if err != nil {
		return nil, err
	}
	k := keys{read: read, at: at, files: map[string]source{}}
	p := &Policy{}
	for _, place := range in.Places() {
		list, _ := in.At(place)
		if len(list) > maxRequirements {
			return nil, fmt.Errorf("parsing policy.json: %s %q: has more than %d requirements", place.Transport, place.Scope,
				maxRequirements)
		}
		p.Set(place, k.requirements(list))
	}
	return p, nil
}

// at returns what the policy demands at a place, and where it says so.
func (p *Policy) at(place policy.Place) (requirements, policy.Place) { return p.At(place) }
