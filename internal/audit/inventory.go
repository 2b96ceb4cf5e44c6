// Package audit answers "what would be refused if this policy were in force?" for every image that runs or is cached,
// with its users. It knows neither cluster nor registry: images come from a Source, and verdicts from a Judge.
package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/ref"
)

// Use is one reference to an image by something that runs, may run, or is cached.
type Use struct {
	// Image is the reference as the user wrote it: name:tag, name@digest, with or without a host.
	Image string
	// Digest is what the runtime resolved the reference to, "sha256:…", or "" if unknown.
	Digest string
	// By names the user:
	// - ns/kind/name@node, with kind static-pod for a file of the kubelet;
	// - cached@node, cri@node, podman@host for stores, podman/name@host for containers;
	// - file:LINE, catalog:package/bundle.
	By string
	// Role is what breaks with the image; empty for a workload.
	Role Role
}

// Role is what an image is to the cluster. A refused image with a role is a lockout, and is named first.
type Role string

// The roles.
const (
	Release      Role = "release"       // the payload of an OpenShift release
	Pause        Role = "pause"         // the runtime's pause image: without it no pod starts
	CNI          Role = "cni"           // the network plugin
	Agent        Role = "agent"         // nodetrust's own
	ControlPlane Role = "control-plane" // API server, etcd, scheduler, …
)

// Source lists images in use.
type Source interface {
	// Uses calls yield for each use, one at a time, in any order, with repetitions. It returns an error of yield, and
	// an error if the listing is not complete.
	Uses(ctx context.Context, yield func(Use) error) error
}

// rank orders roles by damage, the worst first; an unknown role is -1.
func (r Role) rank() int {
	return slices.Index([]Role{Release, Pause, CNI, ControlPlane, Agent, ""}, r)
}

const maxUses = 1_000_000

// Named is a source with a name for messages.
type Named struct {
	Name   string
	Source Source
}

// Inventory is the images of some sources, each once.
type Inventory struct {
	images map[string]*listed
	uses   int
	// problems are the reasons why the listing is not complete.
	problems []string
}

type listed struct {
	// image is the first spelling of the reference, name its canonical form.
	image, name string
	usedBy      []string
	role        Role
	// digests are those to which runtimes have resolved the reference.
	digests []string
	// invalid is why the reference can't be pulled.
	invalid error
}

// short reports whether the reference has no registry: nodes complete it by their registries.conf.
func (l *listed) short() bool {
	first, _, several := strings.Cut(l.image, "/")
	return l.invalid == nil && ref.Host(l.name) == "docker.io" && (!several || !strings.Contains(first, "."))
}

// Collect reads all sources. canonical maps references of the same image to one name, or returns an error. A failing
// source makes the inventory incomplete; its uses so far are kept. The error joins those of all sources.
func Collect(ctx context.Context, canonical func(image string) (string, error), sources ...Named) (*Inventory, error) {
	inv := &Inventory{images: map[string]*listed{}}
	var problems []error
	for _, s := range sources {
		seen := map[string]bool{} // uses: sources repeat themselves
		err := s.Source.Uses(ctx, func(u Use) error {
			if inv.uses == maxUses {
				return fmt.Errorf("more than %d uses of images", maxUses)
			}
			inv.add(u, canonical, seen)
			return nil
		})
		if err != nil {
			err = fmt.Errorf("listing images of %s: %w", s.Name, err)
			problems = append(problems, err)
			inv.Lacks(err.Error())
		}
	}
	return inv, errors.Join(problems...)
}

// Lacks makes the inventory incomplete for the reason why.
func (inv *Inventory) Lacks(why string) {
	inv.problems = append(inv.problems, outside.Bounded(why, 2*outside.Most))
}

// Len returns the number of different images.
func (inv *Inventory) Len() int { return len(inv.images) }

func (inv *Inventory) add(u Use, canonical func(string) (string, error), seen map[string]bool) {
	image := outside.Printable(strings.TrimPrefix(u.Image, "docker://"))
	u.By = outside.Name(u.By)
	name, invalid := canonical(image)
	if invalid != nil {
		name = image
	}
	l := inv.images[name]
	if l == nil {
		l = &listed{image: image, name: name, invalid: invalid}
		inv.images[name] = l
	}
	if u.Role.rank() >= 0 && u.Role.rank() < l.role.rank() {
		l.role = u.Role
	}
	if u.Digest != "" && !slices.Contains(l.digests, u.Digest) {
		l.digests = append(l.digests, u.Digest)
	}
	if who := name + "\x00" + u.By; u.By != "" && !seen[who] {
		seen[who] = true
		l.usedBy = append(l.usedBy, u.By)
		inv.uses++
	}
}

func (inv *Inventory) sorted() []*listed {
	out := make([]*listed, 0, len(inv.images))
	for _, l := range inv.images {
		slices.Sort(l.usedBy)
		slices.Sort(l.digests)
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *listed) int { return strings.Compare(a.name, b.name) })
	return out
}
