package library

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"

	"github.com/nodetrust/nodetrust/internal/verify/failure"
)

// guarded makes an error of a panic of the image library while it reads a manifest. libtrust takes for granted what the
// manifest's own signature says of its length, and a negative one ends the program.
func guarded[T any](read func() (T, error)) (out T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = failure.Unusable(fmt.Errorf("the image library falls over the manifest: %v", r))
		}
	}()
	return read()
}

// Digest returns a manifest's digest as the image library has it.
func Digest(blob []byte) (digest.Digest, error) {
	d, err := guarded(func() (digest.Digest, error) { return manifest.Digest(blob) })
	if err != nil {
		return "", failure.Unusable(err)
	}
	return d, nil
}

// DigestMatches reports whether a digest is that of the manifest.
func DigestMatches(blob []byte, d string) bool {
	parsed, err := digest.Parse(d)
	if err != nil {
		return false
	}
	ok, err := guarded(func() (bool, error) { return manifest.MatchesDigest(blob, parsed) })
	return err == nil && ok
}

// Manifest returns the manifest of an image, which has the digest that the image was asked for by.
func Manifest(ctx context.Context, un *image.UnparsedImage) (blob []byte, mime string, err error) {
	blob, err = guarded(func() (b []byte, err error) {
		b, mime, err = un.Manifest(ctx)
		return b, err
	})
	return blob, mime, err
}
