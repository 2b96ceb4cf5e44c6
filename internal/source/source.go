// Package source tells what an input is that a user names, and reads it: a file, a pipe as in "lint <(oc get …)", or
// - for standard input. Inputs are read once. What a host or a directory holds is read by package hostfs, which waits
// for no pipe.
package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// MaxObject bounds everything but a dump of a cluster, in bytes.
const MaxObject = 4 << 20

// Input is what a file, a pipe or standard input holds.
type Input struct {
	Name string
	Kind Kind
	Data []byte
}

// Read reads an input and tells its kind.
func Read(name string, stdin io.Reader) (Input, error) {
	data, err := read(name, stdin, mco.MaxDump)
	if err != nil {
		return Input{}, err
	}
	in := Input{name, KindOf(name, data), data}
	if len(data) > MaxObject && in.Kind != Dump {
		return Input{}, fmt.Errorf("%s: %w", name, &bounded.TooLargeError{Limit: MaxObject})
	}
	return in, nil
}

func read(name string, stdin io.Reader, limit int64) ([]byte, error) {
	if name == "-" && stdin != nil {
		return bounded.Read(stdin, limit)
	}
	return bounded.ReadFile(name, limit)
}

// ReadTrust reads a trust config and the key files that it names.
func ReadTrust(name string, stdin io.Reader) (*trust.Config, error) {
	data, err := read(name, stdin, trust.MaxConfig)
	if large, ok := errors.AsType[*bounded.TooLargeError](err); ok {
		return nil, fmt.Errorf("%s: %w", name, large)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the trust config: %w", err)
	}
	return ParseTrust(name, data)
}

// ParseTrust takes a trust config out of data. Key files are read relative to the file of this name.
func ParseTrust(name string, data []byte) (*trust.Config, error) {
	return trust.Parse(name, data, func(path string) ([]byte, error) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(name), path)
		}
		return bounded.ReadFile(path, trust.MaxKeyFile)
	})
}

// ReadDesired reads what render wrote: a file or pipe of one config, or a directory with desired.ign.
func ReadDesired(name string) (*desired.State, error) {
	info, err := os.Stat(name)
	if err != nil || info.IsDir() || info.Mode().IsRegular() {
		return desired.Load(name)
	}
	data, err := bounded.ReadFile(name, MaxObject)
	if err != nil {
		return nil, fmt.Errorf("reading desired state: %w", err)
	}
	state, err := desired.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return state, nil
}
