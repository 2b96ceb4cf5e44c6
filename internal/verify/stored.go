package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"
)

// storagePrefix is the transport of images in a node's own storage, as CRI-O and Podman keep them.
const storagePrefix = "containers-storage:"

// defaultGraphRoot is where root's images are unless storage.conf says otherwise.
const defaultGraphRoot = "/var/lib/containers/storage"

// maxImagesJSON bounds the list of stored images, in bytes; an image takes two or three KiB there.
const maxImagesJSON = 64 << 20

// storedImage is an entry of images.json, as far as it is read here.
type storedImage struct {
	ID       string        `json:"id"`
	Digest   digest.Digest `json:"digest"`
	Names    []string      `json:"names"`
	Metadata string        `json:"metadata"` // JSON of the image library

	dir string // of its files, as the host sees it
}

// find returns an image as it is judged; judged names what is judged in its place, if that is something else.
//
// An image in the storage of the host below root is only read, and without a lock: its list is replaced as a whole.
// It is named by one of its names, its ID or the beginning of it (12 digits or more). One that is stored with
// signatures is judged by these and the stored manifest, under the name; any other by its digest, as the registry of
// its name has it. As replaces the name.
func (p *Policy) find(i Image) (_ Image, judged string, err error) {
	if i.stored == "" {
		return i, "", nil
	}
	image, err := p.findStored(i.stored, i.logical.DockerReference().String())
	if err != nil {
		i.broken = err
		return i, "", nil
	}
	as := i.as
	if as == "" && image.named(i.logical.DockerReference().String()) {
		as = i.stored
	}
	if as == "" && len(image.Names) > 0 {
		as = image.Names[0]
	}
	if as == "" {
		return i, "", fmt.Errorf("image %q has no name in the storage: name the reference that it is judged as", i.name)
	}
	logical, err := parseDocker(strings.TrimPrefix(as, "docker://"))
	if err != nil {
		return i, "", fmt.Errorf("reference %q: %w", as, err)
	}
	manifestBlob, signatures, err := p.readStored(image)
	if err != nil {
		i.broken = err
		return i, "", nil
	}
	d := digest.FromBytes(manifestBlob)
	digested, byDigest := logical.DockerReference().(reference.Digested)
	if len(signatures) == 0 || byDigest && digested.Digest() != d {
		named, err := reference.WithDigest(reference.TrimNamed(logical.DockerReference()), d)
		if err != nil {
			return i, "", err
		}
		if i.logical, err = docker.NewReference(named); err != nil {
			return i, "", err
		}
		i.content = i.logical
		return i, "docker://" + named.String(), nil
	}
	dir, err := os.MkdirTemp(p.tmp, "stored-")
	if err != nil {
		return i, "", err
	}
	err = os.WriteFile(filepath.Join(dir, "manifest.json"), manifestBlob, 0o600)
	for n, s := range signatures {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprintf("signature-%d", n+1)), s, 0o600))
	}
	if err != nil {
		return i, "", err
	}
	i.dir, i.logical, i.storedID = dir, logical, image.ID
	if i.content, err = directory.NewReference(dir); err != nil {
		return i, "", err
	}
	return i, storagePrefix + "@" + image.ID, nil
}

// parseStored reads the name of a stored image. That of an ID is only good for looking up what isn't there.
func parseStored(name string) (types.ImageReference, error) {
	id := strings.TrimPrefix(name, "@")
	if len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
		id = id[:12]
	}
	return parseDocker(id)
}

func (i storedImage) named(name string) bool { return slices.Contains(i.Names, name) }

// findStored looks an image up. An error says that the storage can't be read, or has no such image.
func (p *Policy) findStored(name, normalized string) (storedImage, error) {
	root := p.graphRoot()
	entries, err := p.host.ReadDir(root)
	if err != nil {
		return storedImage{}, fmt.Errorf("reading the storage: %w", err)
	}
	id := strings.TrimPrefix(name, "@")
	var found []storedImage
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "-images") {
			continue
		}
		dir := filepath.Join(root, e.Name())
		images, err := p.storedImages(dir)
		if err != nil {
			return storedImage{}, fmt.Errorf("reading the storage: %w", err)
		}
		for _, i := range images {
			if i.dir = filepath.Join(dir, i.ID); i.named(normalized) {
				return i, nil
			}
			if len(id) >= 12 && strings.HasPrefix(i.ID, id) {
				found = append(found, i)
			}
		}
	}
	switch len(found) {
	case 0:
		return storedImage{}, &notThereError{fmt.Errorf("no image %s in the storage at %s", name, root)}
	case 1:
		return found[0], nil
	}
	return storedImage{}, &notThereError{fmt.Errorf("%d images in the storage at %s have an ID that begins with %s",
		len(found), root, id)}
}

func (p *Policy) storedImages(dir string) (images []storedImage, err error) {
	b, err := p.host.ReadFile(filepath.Join(dir, "images.json"), maxImagesJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &images); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, "images.json"), err)
	}
	for _, i := range images {
		if !filepath.IsLocal(i.ID) || strings.Contains(i.ID, "/") {
			return nil, fmt.Errorf("reading %s: an image has the ID %q", filepath.Join(dir, "images.json"), i.ID)
		}
	}
	return images, nil
}

// graphRoot is where storage.conf has root's images.
func (p *Policy) graphRoot() string {
	for _, path := range []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"} {
		b, err := p.host.ReadFile(path, maxConfigFile)
		if err != nil {
			continue
		}
		var conf struct {
			Storage struct {
				GraphRoot string `toml:"graphroot"`
			} `toml:"storage"`
		}
		if toml.Unmarshal(b, &conf) == nil && filepath.IsAbs(conf.Storage.GraphRoot) {
			return conf.Storage.GraphRoot
		}
		break
	}
	return defaultGraphRoot
}

// readStored reads manifest and signatures of a stored image.
func (p *Policy) readStored(i storedImage) (manifestBlob []byte, signatures [][]byte, err error) {
	if manifestBlob, err = p.host.ReadFile(filepath.Join(i.dir, "manifest"), maxManifest); err != nil {
		return nil, nil, fmt.Errorf("reading the storage: %w", err)
	}
	var meta struct {
		SignatureSizes []int `json:"signature-sizes"`
	}
	if i.Metadata != "" {
		if err := json.Unmarshal([]byte(i.Metadata), &meta); err != nil {
			return nil, nil, fmt.Errorf("reading the storage: metadata of image %s: %w", i.ID, err)
		}
	}
	if len(meta.SignatureSizes) == 0 {
		return manifestBlob, nil, nil
	}
	all, err := p.host.ReadFile(filepath.Join(i.dir, "signatures"), MaxSignatures*LibrarySignatureSize)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the storage: %w", err)
	}
	for _, n := range meta.SignatureSizes {
		if n < 0 || n > len(all) {
			return nil, nil, fmt.Errorf("reading the storage: image %s has fewer bytes of signatures than it says", i.ID)
		}
		signatures = append(signatures, all[:n])
		all = all[n:]
	}
	if len(all) > 0 {
		return nil, nil, fmt.Errorf("reading the storage: image %s has more bytes of signatures than it says", i.ID)
	}
	return manifestBlob, signatures, nil
}
