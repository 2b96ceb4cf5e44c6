// Package sources lists images that are in use or cached: of a cluster, a node's CRI runtime, static pods' files,
// podman's stores, and a catalog of operators.
package sources

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/outside"
)

// Names of sources, as in --images-from. Catalog is followed by a directory.
const (
	Cluster    = "cluster"
	CRI        = "cri"
	StaticPods = "static-pods"
	Podman     = "podman"
	Catalog    = "catalog:"
)

// Names returns the names of sources, as in --images-from.
func Names() []string { return []string{Cluster, CRI, StaticPods, Podman, Catalog} }

// IsFile reports whether a name is none of Names, but that of a file of references, or - for standard input.
func IsFile(name string) bool {
	return !strings.HasPrefix(name, Catalog) && !slices.Contains(Names(), name)
}

// Limits of the input. Beyond them a listing ends with an error, never with a part.
const (
	maxReference = 1024     // bytes of one reference
	maxManifest  = 4 << 20  // bytes of a static pod's file
	maxManifests = 1000     // files of static pods
	maxListing   = 64 << 20 // bytes of one answer of a runtime
	maxDocument  = 16 << 20 // bytes of one document of a catalog
)

// Options of sources. The zero value means this machine, and kubectl's cluster.
type Options struct {
	Cluster cluster.Config
	// Root is the host's root directory with the static pods; "" means "/".
	Root string
	// CRISocket is a path or unix:///path; "" means CRI-O's.
	CRISocket string
	// Environ is podman's environment; nil means this process's.
	Environ []string
	// Stdin is read for the name -.
	Stdin io.Reader
	// Check returns why a reference of a file is unusable.
	Check func(image string) error
	// Node names this machine in By of uses; "" means its host name.
	Node string
}

// Open makes the source of a name, without looking for images. An error means that the name or an option is unusable.
func Open(name string, o Options) (audit.Source, error) {
	if o.Node == "" {
		o.Node, _ = os.Hostname() // stays empty without a host name
	}
	var s audit.Source
	switch dir, catalog := strings.CutPrefix(name, Catalog); {
	case catalog && dir == "":
		return nil, fmt.Errorf("%s needs a directory: %sDIR", name, Catalog)
	case catalog:
		s = catalogSource{dir: dir}
	case name == Cluster:
		client, err := cluster.New(o.Cluster)
		if err != nil {
			return nil, err
		}
		s = clusterSource{client}
	case name == CRI:
		s = criSource{address: o.CRISocket, node: o.Node}
	case name == StaticPods:
		root := o.Root
		if root == "" {
			root = "/"
		}
		s = staticSource{root: root, node: o.Node}
	case name == Podman:
		s = podmanSource{environ: o.Environ, host: o.Node}
	default:
		return nil, fmt.Errorf("%q: must be %s, %s, %s, %s or %sDIR", name, Cluster, CRI, StaticPods, Podman, Catalog)
	}
	return checked{name, s}, nil
}

// OpenNamed makes the source of a name, which may be a file of references too, or - for standard input.
func OpenNamed(name string, o Options) (audit.Named, error) {
	dir, catalog := strings.CutPrefix(name, Catalog)
	switch {
	case name == "-":
		return audit.Named{Name: "stdin", Source: audit.List{Name: "stdin", Reader: o.Stdin, Check: o.Check}}, nil
	case IsFile(name):
		f, err := os.Open(name)
		return audit.Named{Name: name, Source: listFile{audit.List{Name: name, Reader: f, Check: o.Check}, f}}, err
	case name == StaticPods && o.Root != "":
		dir = o.Root
	case !catalog:
		dir = ""
	}
	if dir != "" {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is no directory", dir)
		}
		if err != nil {
			return audit.Named{}, err
		}
	}
	s, err := Open(name, o)
	return audit.Named{Name: name, Source: s}, err
}

type listFile struct {
	audit.List
	file *os.File
}

func (l listFile) Uses(ctx context.Context, yield func(audit.Use) error) error {
	defer l.file.Close()
	return l.List.Uses(ctx, yield)
}

// checked bounds a source's uses to what a report can show: whoever may create pods chooses their names.
type checked struct {
	name string
	audit.Source
}

func (c checked) Uses(ctx context.Context, yield func(audit.Use) error) error {
	return c.Source.Uses(ctx, func(u audit.Use) error {
		if u.Image == "" {
			return nil
		}
		if len(u.Image) > maxReference {
			return fmt.Errorf("%s: the image reference of %s is longer than %d bytes", c.name, outside.Text(u.By), maxReference)
		}
		u.Image, u.By = outside.Printable(u.Image), outside.Name(u.By)
		return yield(u)
	})
}
