// Package audit answers "what would be refused if this policy were in force?": every image that runs or is cached,
// judged by a candidate policy, with who uses it. It knows neither cluster nor registry: images come from a Source, and
// answers from a Judge.
package audit

import (
	"context"
	"slices"
)

// Use is one reference to an image by something that runs, may run, or is cached.
type Use struct {
	// Image is the reference as the user wrote it: name:tag, name@digest, with or without a host.
	Image string
	// Digest is what the runtime resolved the reference to, "sha256:…"; empty where nobody knows.
	Digest string
	// By says who: "ns/kind/name@node" (kind static-pod for what a kubelet runs from a file), "cached@node" and
	// "cri@node" for stores, "podman/name@host" and "podman@host", "file:LINE", "catalog:package/bundle".
	By string
	// Role is what breaks with the image; empty for a workload.
	Role Role
}

// Role is what an image is to the cluster. All but the empty one are lockouts when refused: they are named first.
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
	// Uses calls yield for each use, one after the other, in any order and with repetitions; an error of yield ends the
	// listing and is returned. An error means that the listing is not complete.
	Uses(ctx context.Context, yield func(Use) error) error
}

// rank orders roles by what breaks with them, the worst first; -1 is a role that is none.
func (r Role) rank() int {
	return slices.Index([]Role{Release, Pause, CNI, ControlPlane, Agent, ""}, r)
}
