// Package audit answers "what would be refused if this policy were in force?" for every image that runs or is cached,
// with its users. It knows neither cluster nor registry: images come from a Source, and verdicts from a Judge.
package audit

import (
	"context"
	"slices"
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
