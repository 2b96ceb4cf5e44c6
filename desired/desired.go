// Package desired reads back what render wrote: the files a node should have and its canaries.
package desired

import "github.com/nodetrust/nodetrust/trust"

// State is a desired state of a node.
type State struct {
	// Name is the MachineConfig's name, empty for a bare Ignition config.
	Name string
	// Pool is the MachineConfig's role label, empty for a bare Ignition config.
	Pool     string
	Files    trust.FileSet
	Canaries []trust.Canary
}
