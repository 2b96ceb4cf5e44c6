// Package library asks the image library about registries.d: whether files load, and which scopes it looks up.
package library

import (
	"net/url"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/registriesd"
)

// Load asks the image library whether registries.d files with this content load together. They must have
// different base names. An error means that every pull of a docker image fails, and names the files by their paths.
func Load(files []registriesd.File) error {
	tmp, err := os.MkdirTemp("", "nodetrust-registries.d-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	return LoadIn(tmp, files)
}

// LoadIn does what Load does with copies in a directory, which must be empty; they stay there.
func LoadIn(dir string, files []registriesd.File) error {
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), f.Data, 0o600); err != nil {
			return err
		}
	}
	// Any reference does: the library has no other public door to its parser than asking for one image's lookaside.
	ref, err := docker.ParseReference("//registry.example.com/image:tag")
	if err != nil {
		return err
	}
	_, err = docker.SignatureStorageBaseURL(&types.SystemContext{RegistriesDirPath: dir}, ref, false)
	if err != nil {
		if merged, bad := registriesd.Merge(files); bad == nil {
			err = merged.Redact(err)
		}
		var originals []string
		for _, f := range files {
			originals = append(originals, filepath.Join(dir, filepath.Base(f.Path)), f.Path)
		}
		return registriesd.Replace(err, originals...)
	}
	return nil
}

// Scopes are those that the library tries for an image, in its order.
func Scopes(ref types.ImageReference) []string {
	return append([]string{ref.PolicyConfigurationIdentity()}, ref.PolicyConfigurationNamespaces()...)
}

// Lookaside is where the signatures of an image are looked up, as the host sees it, and the file that names it. The
// URL may be none, and may hold a password: see registriesd.WithoutPassword.
func Lookaside(c registriesd.Config, ref types.ImageReference) (at, file string) {
	base, file, _ := c.Lookup(Scopes(ref))
	repo := "/" + reference.Path(ref.DockerReference())
	u, err := url.Parse(base)
	if err != nil {
		return base + repo, file
	}
	u.Path += repo // put together as the library does it
	return u.String(), file
}
