package locate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

const (
	// storagePrefix is the transport of images in a node's own storage, as CRI-O and Podman keep them.
	storagePrefix = "containers-storage:"
	// defaultGraphRoot is where root's images are unless storage.conf names another directory.
	defaultGraphRoot = "/var/lib/containers/storage"
)

// Limits in bytes on what is read of a storage.
const (
	maxManifest   = 4 << 20
	maxSignatures = 128 * 4 << 20 // of the image library: number and size
	maxConfig     = 4 << 20
	maxImagesJSON = 64 << 20 // an image takes two or three KiB
)

// storedImage is an entry of images.json, as far as the entry is read here.
type storedImage struct {
	ID       string        `json:"id"`
	Digest   digest.Digest `json:"digest"`
	Names    []string      `json:"names"`
	Metadata string        `json:"metadata"` // JSON of the image library

	dir string // of its files, as the host sees it
}

// InStorage returns an image as it is judged, found in the storage of the host; judged names what is judged in its
// place, if that is something else. An image that is not named by containers-storage: stays as it is.
//
// The storage is only read, and without a lock: its list is replaced as a whole. An image is named by one of its names,
// its ID or the beginning of its ID (12 digits or more). An image that is stored with signatures is judged by these
// signatures and the stored manifest, copied to a directory below temp, under the name. Any other image is judged by
// its digest, as the registry of its name has it. As replaces the name.
func (i Image) InStorage(host hostfs.Root, temp string) (_ Image, judged string, err error) {
	if i.stored == "" {
		return i, "", nil
	}
	name := i.LogicalName()
	image, err := find(host, i.stored, name)
	if err != nil {
		i.Unread = err
		return i, "", nil
	}
	as := i.as
	switch {
	case as != "":
	case image.named(name):
		as = i.stored
	case len(image.Names) > 0:
		as = image.Names[0]
	default:
		return i, "", fmt.Errorf("image %q has no name in the storage: name the reference that it is judged as", i.Name)
	}
	logical, err := parseDocker(strings.TrimPrefix(as, "docker://"))
	if err != nil {
		return i, "", fmt.Errorf("reference %q: %w", as, err)
	}
	manifest, signatures, err := image.read(host)
	if err != nil {
		i.Unread = err
		return i, "", nil
	}
	d, named := digest.FromBytes(manifest), logical.DockerReference()
	digested, byDigest := named.(reference.Digested)
	if len(signatures) == 0 || byDigest && digested.Digest() != d {
		byStored, err := reference.WithDigest(reference.TrimNamed(named), d)
		if err != nil {
			return i, "", err
		}
		i.Logical, err = docker.NewReference(byStored)
		i.Content = i.Logical
		return i, "docker://" + byStored.String(), err
	}
	if i.Content, err = library.WriteDir(temp, manifest, signatures); err != nil {
		return i, "", err
	}
	i.Dir, i.Logical, i.StoredID = i.Content.StringWithinTransport(), logical, image.ID
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

// find looks an image up. An error says that the storage can't be read, or has no such image.
func find(host hostfs.Root, name, normalized string) (storedImage, error) {
	root := graphRoot(host)
	entries, err := host.ReadDir(root)
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
		images, err := list(host, dir)
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
		return storedImage{}, failure.NotFound("no image %s in the storage at %s", name, root)
	case 1:
		return found[0], nil
	}
	return storedImage{}, failure.NotFound("%d images in the storage at %s have an ID that begins with %s",
		len(found), root, id)
}

// list reads the images of one images directory of the storage.
func list(host hostfs.Root, dir string) (images []storedImage, err error) {
	path := filepath.Join(dir, "images.json")
	b, err := host.ReadFile(path, maxImagesJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &images); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	for _, i := range images {
		if !filepath.IsLocal(i.ID) || strings.Contains(i.ID, "/") {
			return nil, fmt.Errorf("reading %s: an image has the ID %q", path, i.ID)
		}
	}
	return images, nil
}

// graphRoot returns the directory of root's images, which storage.conf may name.
func graphRoot(host hostfs.Root) string {
	for _, path := range []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"} {
		b, err := host.ReadFile(path, maxConfig)
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

// read returns manifest and signatures of a stored image.
func (i storedImage) read(host hostfs.Root) (manifest []byte, signatures [][]byte, err error) {
	if manifest, err = host.ReadFile(filepath.Join(i.dir, "manifest"), maxManifest); err != nil {
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
		return manifest, nil, nil
	}
	all, err := host.ReadFile(filepath.Join(i.dir, "signatures"), maxSignatures)
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
	return manifest, signatures, nil
}
