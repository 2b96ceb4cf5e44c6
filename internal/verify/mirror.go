package verify

import (
	"net/url"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/verify/fetch"
)

// pullSources are the places that registries.conf makes a runtime try for the image, in order: mirrors, then the
// location itself. Policy goes by the name asked for, but lookaside and attachments by the place that served the
// manifest.
func (e *evaluation) pullSources() []types.ImageReference {
	return pullSources(&e.sys, e.target.content)
}

func pullSources(sys *types.SystemContext, image types.ImageReference) []types.ImageReference {
	named := image.DockerReference()
	if named == nil {
		return nil
	}
	registry, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil || registry == nil {
		return nil
	}
	sources, err := registry.PullSourcesFromReference(named)
	if err != nil {
		return nil
	}
	var out []types.ImageReference
	for _, s := range sources {
		if ref, err := docker.NewReference(s.Reference); err == nil {
			out = append(out, ref)
		}
	}
	return out
}

// hosts are the registries that may be asked for the image.
func (e *evaluation) hosts(sources []types.ImageReference) []string {
	var out []string
	for _, s := range append(sources, e.target.content) {
		if named := s.DockerReference(); named != nil {
			out = append(out, fetch.Host(named))
		}
	}
	return out
}

// chosenSource is the one of several sources whose manifest was asked for last; nil if none was.
func chosenSource(sources []types.ImageReference, asked []*url.URL) types.ImageReference {
	if len(sources) == 1 {
		return sources[0]
	}
	for _, u := range slices.Backward(asked) {
		for _, s := range sources {
			named := s.DockerReference()
			if u.Host == fetch.Host(named) && strings.HasPrefix(u.Path, "/v2/"+reference.Path(named)+"/manifests/") {
				return s
			}
		}
	}
	return nil
}

// servedByRegistry is true if a registry that sends X-Registry-Supports-Signatures was asked for signatures itself; the
// lookaside isn't then.
func servedByRegistry(asked []*url.URL) bool {
	return slices.ContainsFunc(asked, func(u *url.URL) bool { return strings.HasPrefix(u.Path, "/extensions/v2/") })
}
