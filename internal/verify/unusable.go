package verify

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
)

// unusableError says that what was read is no manifest that the image library, and so a runtime, could use.
type unusableError struct{ error }

func (e *unusableError) Unwrap() error { return e.error }

// guarded makes an error of a panic of the image library while it reads a manifest. libtrust takes for granted what the
// manifest's own signature says of its length, and a negative one ends the program.
func guarded[T any](read func() (T, error)) (out T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &unusableError{fmt.Errorf("the image library falls over the manifest: %v", r)}
		}
	}()
	return read()
}

// digestOf is a manifest's digest as the image library has it.
func digestOf(blob []byte) (digest.Digest, error) {
	d, err := guarded(func() (digest.Digest, error) { return manifest.Digest(blob) })
	if err != nil {
		return "", &unusableError{err}
	}
	return d, nil
}

// readManifest returns the manifest of an image, which has the digest that it was asked for by.
func readManifest(ctx context.Context, un *image.UnparsedImage) (blob []byte, mime string, err error) {
	blob, err = guarded(func() (b []byte, err error) {
		b, mime, err = un.Manifest(ctx)
		return b, err
	})
	return blob, mime, err
}
