package verify

import (
	"fmt"
	"net/url"

	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// usableLookaside is false if registries.d gives the image a lookaside that is no URL, wherever the image is read:
// the library parses the lookaside before it asks anybody, so that every pull fails. The verdict says so then, unless
// the policy has refused the image already.
func (e *evaluation) usableLookaside() bool {
	if e.target.local() {
		return true
	}
	places := e.pullSources()
	if len(places) == 0 {
		places = []types.ImageReference{e.target.content}
	}
	var bad error
	for _, ref := range places {
		base, file, _ := e.policy.registries.Lookup(library.Scopes(ref))
		if _, err := url.Parse(base); err == nil {
			return true
		}
		bad = fmt.Errorf("lookaside %q of %s is no URL", registriesd.WithoutPassword(base), file)
	}
	e.stop(verdict.RegistriesDInvalid, "%v: a runtime can pull no image of this scope", bad)
	return false
}
