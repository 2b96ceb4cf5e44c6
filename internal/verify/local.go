package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/oci/layout"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// checkLocal bounds what the library reads of an image on this machine, which it would read whole, and refuses pipes.
func (e *evaluation) checkLocal() error {
	switch {
	case e.target.dir != "":
		if err := e.checkFile("version", 1<<10); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return e.checkFile("manifest.json", maxManifest)
	case e.target.layout != "":
		return e.checkLayout()
	}
	return nil
}

// checkLayout also compares the manifest with its digest in index.json: the library reads the file of that name,
// whatever is inside.
func (e *evaluation) checkLayout() error {
	if err := checkRegular(filepath.Join(e.target.layout, "index.json"), maxManifest); err != nil {
		return err
	}
	d, err := layout.LoadManifestDescriptor(e.target.content)
	if err != nil {
		return err
	}
	if err := e.checkInstance(d.Digest); err != nil {
		return err
	}
	blob, err := os.ReadFile(e.blob(d.Digest))
	if err != nil {
		return err
	}
	if err := e.refusedForm(blob, d.Digest.String()); err != nil {
		return err
	}
	if _, err := digestOf(blob); err != nil {
		return err
	}
	if !digestMatches(blob, d.Digest.String()) {
		return &notThereError{fmt.Errorf("%s holds another manifest than its name says", e.blob(d.Digest))}
	}
	return nil
}

// localReason says why checkLocal failed.
func localReason(err error) verdict.Reason {
	var missing *notThereError
	var none layout.ImageNotFoundError
	if errors.As(err, &missing) || errors.As(err, &none) || errors.Is(err, layout.ErrMoreThanOneImage) {
		return verdict.ImageNotFound
	}
	return registryReason(err)
}

// checkInstance is checkLocal for an instance of a manifest list.
func (e *evaluation) checkInstance(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return err
	}
	if e.target.layout != "" {
		return checkRegular(e.blob(d), maxManifest)
	}
	return e.checkFile(d.Encoded()+".manifest.json", maxManifest)
}

// blob is the file of a manifest in an OCI layout.
func (e *evaluation) blob(d digest.Digest) string {
	return filepath.Join(e.target.layout, "blobs", d.Algorithm().String(), d.Encoded())
}

func (e *evaluation) checkFile(name string, limit int64) error {
	return checkRegular(filepath.Join(e.target.dir, name), limit)
}
