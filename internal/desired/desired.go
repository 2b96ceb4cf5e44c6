// Package desired reads back what render wrote: the files of a node and its canaries.
package desired

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Names of the files in a desired directory, which are the data keys of the ConfigMap.
const (
	IgnitionFile = "desired.ign"
	CanariesFile = "canaries.json"
)

// Annotations of a rendered MachineConfig.
const (
	CanariesAnnotation = "nodetrust.io/canaries"
	DigestAnnotation   = "nodetrust.io/digest"
)

// RoleLabel names the pool of a MachineConfig.
const RoleLabel = "machineconfiguration.openshift.io/role"

// Limits of the input. The MCO takes at most 1.5 MiB of MachineConfig, a ConfigMap holds at most 1 MiB.
const (
	maxInput = 4 << 20
	maxFile  = 1 << 20
	maxTotal = 8 << 20
	maxFiles = 1024
)

// State is a desired state of a node.
type State struct {
	// Name is the MachineConfig's name, empty for a bare Ignition config.
	Name string
	// Pool is the MachineConfig's role label, empty for a bare Ignition config.
	Pool     string
	Files    trust.FileSet
	Canaries []trust.Canary
}

// Load reads a desired state from an Ignition config, a MachineConfig (YAML or JSON), or a directory with desired.ign
// and optionally canaries.json. It reads a mounted ConfigMap at one revision, even while the kubelet replaces it.
func Load(path string) (*State, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading desired state: %w", err)
	}
	if !info.IsDir() {
		b, err := readFile(path)
		if err != nil {
			return nil, err
		}
		return parse(path, b)
	}
	dir, err := revision(path)
	if err != nil {
		return nil, err
	}
	ign, err := readFile(filepath.Join(dir, IgnitionFile))
	if err != nil {
		return nil, err
	}
	s, err := parse(filepath.Join(path, IgnitionFile), ign)
	if err != nil {
		return nil, err
	}
	canaries, err := readFile(filepath.Join(dir, CanariesFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, err
	}
	if s.Canaries, err = trust.ParseCanaries(canaries); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(path, CanariesFile), err)
	}
	return s, nil
}

func parse(path string, b []byte) (*State, error) {
	s, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return s, nil
}

// revision resolves the symlink ..data, through which the kubelet swaps all files of a volume at once.
func revision(dir string) (string, error) {
	target, err := os.Readlink(filepath.Join(dir, "..data"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return dir, nil
	case err != nil:
		return "", fmt.Errorf("reading desired state: %w", err)
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	return target, nil
}

func readFile(path string) ([]byte, error) {
	b, err := bounded.ReadRegular(os.OpenFile, path, maxInput)
	if err != nil {
		return nil, fmt.Errorf("reading desired state: %w", err)
	}
	return b, nil
}

// Parse reads an Ignition config or a MachineConfig. Anything that the agent could not or should not put on a node is
// an error, so a result is all that the input asks for.
func Parse(data []byte) (*State, error) {
	if len(data) > maxInput {
		return nil, fmt.Errorf("is larger than %d bytes", maxInput)
	}
	data, err := toJSON(data)
	if err != nil {
		return nil, err
	}
	if !isMachineConfig(data) {
		files, err := ignition(data)
		if err != nil {
			return nil, err
		}
		return &State{Files: files}, nil
	}
	return machineConfig(data)
}

var errNotObject = errors.New("is neither an Ignition config nor a MachineConfig")
