package locate

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

// Places returns the places that registries.conf makes a runtime try for the image, in order: mirrors, then the
// location itself; none where registries.conf doesn't name the registry. A policy goes by the logical name, lookaside
// and attachments go by the place that served the manifest.
func (i Image) Places(sys *types.SystemContext) (out []types.ImageReference) {
	named := i.Content.DockerReference()
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
	for _, s := range sources {
		if ref, err := docker.NewReference(s.Reference); err == nil {
			out = append(out, ref)
		}
	}
	return out
}

// Hosts returns the registries that may be asked for the image.
func (i Image) Hosts(places []types.ImageReference) (out []string) {
	for _, s := range append(places, i.Content) {
		if named := s.DockerReference(); named != nil {
			out = append(out, fetch.Host(named))
		}
	}
	return out
}

// Chosen returns the place whose manifest was asked for last; nil if no manifest was.
func Chosen(places []types.ImageReference, asked []*url.URL) types.ImageReference {
	if len(places) == 1 {
		return places[0]
	}
	for _, u := range slices.Backward(asked) {
		for _, s := range places {
			if ManifestOf(s.DockerReference(), u) {
				return s
			}
		}
	}
	return nil
}

// ManifestOf reports whether a request is for a manifest of the repository.
func ManifestOf(named reference.Named, u *url.URL) bool {
	return u.Host == fetch.Host(named) && strings.HasPrefix(u.Path, "/v2/"+reference.Path(named)+"/manifests/")
}
