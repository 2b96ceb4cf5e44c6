// Package compare compares two policies: for which images does one demand less than the other? It is pure and links no
// image library.
package compare

import (
	"fmt"
	"time"

	"github.com/nodetrust/nodetrust/internal/policy"
)

const maxRequirements = 64

// Policy is what a policy.json demands. Scopes that accept everything have no requirements.
type Policy struct{ policy.Document[requirement] }

// requirements must all hold: a formula in conjunctive form. A requirement that is never true stands for reject.
type requirements []requirement

// ReadKey returns the content of a key file that a policy names. After an error the content is unknown: the file
// equals only files of the same path.
type ReadKey func(path string) ([]byte, error)

// Parse reads a policy.json that the image library loads; the result for another one is undefined. read may be nil.
// OpenPGP keys that are revoked or expired at the time don't count. With a zero time a key file equals only itself.
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
