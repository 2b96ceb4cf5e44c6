// Package library knows where the image library looks and what it loads: registries.d, scopes, lookasides, the tags of
// attachments, and images in directories.
package library

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/signature"
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

// LoadPolicy asks the image library whether a policy.json with this content loads. No error means that a runtime with
// this library reads the file; it says nothing of the keys that the policy names. file is named in the error.
func LoadPolicy(data []byte, file string) error {
	_, err := ParsePolicy(data, file)
	return err
}

// ParsePolicy is LoadPolicy, and returns the library's form of the policy.
func ParsePolicy(data []byte, file string) (*signature.Policy, error) {
	loaded, err := signature.NewPolicyFromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("invalid policy in %q: %w", file, err)
	}
	return loaded, nil
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

// Attachment is a sigstore signature in the form in which the library stores one in a directory.
type Attachment struct {
	MIMEType    string            `json:"mimeType"`
	Payload     []byte            `json:"payload"`
	Annotations map[string]string `json:"annotations"`
}

// AttachmentTag returns the tag under which runtimes look for the sigstore signatures of a manifest.
func AttachmentTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

// SignatureURL returns where a lookaside has the n-th signature of a manifest, from 1.
func SignatureURL(lookaside, digest string, n int) string {
	return fmt.Sprintf("%s@%s/signature-%d", lookaside, strings.Replace(digest, ":", "=", 1), n)
}

// File returns the signature as a file of a directory image.
func (a Attachment) File() ([]byte, error) {
	b, err := json.Marshal(a)
	return append([]byte("\x00sigstore-json\n"), b...), err
}

// WriteDir makes a directory image below temp. The library takes sigstore signatures from such an image, and from
// registries.
func WriteDir(temp string, manifest []byte, signatures [][]byte) (types.ImageReference, error) {
	dir, err := os.MkdirTemp(temp, "image-")
	if err != nil {
		return nil, err
	}
	err = os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o600)
	for i, s := range signatures {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprintf("signature-%d", i+1)), s, 0o600))
	}
	if err != nil {
		return nil, err
	}
	return directory.NewReference(dir)
}
