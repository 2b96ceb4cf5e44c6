package verify

import (
	"errors"

	"github.com/opencontainers/go-digest"
)

// Canonical completes a docker reference as podman and CRI-O do: the host docker.io, the tag latest; of a tag together
// with a digest the tag is dropped. Two references with the same canonical form are judged, and pulled, as the same. An
// error means that it isn't a docker reference; a docker:// in front is none, and an image ID isn't one either.
func Canonical(image string) (string, error) {
	// The library takes sha256:HEX for an image named sha256.
	if digest.Digest(image).Validate() == nil {
		return "", errors.New("is the ID of an image, not a reference")
	}
	ref, err := parseDocker(image)
	if err != nil {
		return "", err
	}
	return ref.DockerReference().String(), nil
}
