package verify

import (
	"errors"
	"fmt"
	"strings"

	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/types"
)

// target is an image and the name it is judged under.
type target struct {
	name string // as asked for, without docker://
	// content is where manifest and signatures are read; logical is whose scope and identity count. They are the same
	// but for local content judged as a docker reference.
	content, logical types.ImageReference
	dir              string // of a dir: image
	layout           string // of an oci: image: the layout's directory
	broken           error  // of an image in storage: why it can't be read
	storedID         string // of an image that is judged as it is stored; dir is a copy then
}

// local is true if the content is on this machine, so that neither registry nor lookaside are asked.
func (t target) local() bool { return t.dir != "" || t.layout != "" }

// parseTarget reads an IMAGE argument: docker://REF or REF; or dir:PATH or oci:PATH[:NAME|:@N], which may be
// judged as a docker reference.
func parseTarget(image, as string) (target, error) {
	t := target{name: strings.TrimPrefix(image, "docker://")}
	if path, ok := strings.CutPrefix(image, "dir:"); ok {
		if path == "" {
			return t, fmt.Errorf("image %q: dir: needs a path", image)
		}
		ref, err := directory.NewReference(path)
		if err != nil {
			return t, fmt.Errorf("image %q: %w", image, err)
		}
		t.dir, t.content = path, ref
		return t.as(as)
	}
	if path, ok := strings.CutPrefix(image, "oci:"); ok {
		dir, _, _ := strings.Cut(path, ":")
		if dir == "" {
			return t, fmt.Errorf("image %q: oci: needs a path", image)
		}
		ref, err := layout.ParseReference(path)
		if err != nil {
			return t, fmt.Errorf("image %q: %w", image, err)
		}
		t.layout, t.content = dir, ref
		return t.as(as)
	}
	if as != "" {
		return t, errors.New("a docker image is judged as itself: another reference goes with dir:PATH and oci:PATH only")
	}
	for _, transport := range []string{"oci-archive:", "docker-archive:", "docker-daemon:", "ostree:", "sif:"} {
		if strings.HasPrefix(image, transport) {
			return t, fmt.Errorf("image %q: transport %s is not supported; use docker://REFERENCE, dir:PATH, oci:PATH or containers-storage:NAME", image, strings.TrimSuffix(transport, ":"))
		}
	}
	ref, err := parseDocker(t.name)
	if err != nil {
		return t, fmt.Errorf("image %q: %w", image, err)
	}
	t.content, t.logical = ref, ref
	return t, nil
}

// as is a local target that is judged as a docker reference, or as itself.
func (t target) as(reference string) (target, error) {
	t.logical = t.content
	if reference == "" {
		return t, nil
	}
	var err error
	if t.logical, err = parseDocker(strings.TrimPrefix(reference, "docker://")); err != nil {
		return t, fmt.Errorf("reference %q: %w", reference, err)
	}
	return t, nil
}

// parseDocker reads a reference as podman and CRI-O do: of a tag together with a digest the tag is dropped.
func parseDocker(s string) (types.ImageReference, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, err
	}
	_, tagged := named.(reference.Tagged)
	if digested, ok := named.(reference.Digested); ok && tagged {
		if named, err = reference.WithDigest(reference.TrimNamed(named), digested.Digest()); err != nil {
			return nil, err
		}
	}
	return docker.NewReference(reference.TagNameOnly(named))
}

// CheckImage reports whether Image would take this IMAGE argument together with Options.As.
func CheckImage(image, as string) error {
	if name, ok := strings.CutPrefix(image, storagePrefix); ok {
		if _, err := parseStored(name); err != nil {
			return fmt.Errorf("image %q: must be the name of an image or its ID: %w", image, err)
		}
		if as == "" {
			return nil
		}
		if _, err := parseDocker(strings.TrimPrefix(as, "docker://")); err != nil {
			return fmt.Errorf("reference %q: %w", as, err)
		}
		return nil
	}
	_, err := parseTarget(image, as)
	return err
}
