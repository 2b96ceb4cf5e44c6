package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/verify/hostfs"
)

// LoadPolicy asks the image library whether a policy.json with this content loads. Nil means that a runtime with this
// library reads the file; it says nothing of the keys that the policy names. file is named in the error.
func LoadPolicy(data []byte, file string) error {
	if _, err := signature.NewPolicyFromBytes(data); err != nil {
		return fmt.Errorf("invalid policy in %q: %w", file, err)
	}
	return nil
}

// LoadRegistriesD asks the image library whether the registries.d directories load together. The first directory is of
// the highest priority: its files hide those of the same base name in later ones, as a runtime with this library does
// it; a directory that doesn't exist is empty. An error means that every pull of a docker image fails, and names the
// files as they are below dirs.
func LoadRegistriesD(dirs ...string) error {
	files, err := readRegistriesD(hostfs.ThisMachine, dirs)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "nodetrust-registries.d-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	return loadRegistriesD(files, tmp)
}

// LoadRegistries asks the image library whether registries.d files with this content load together. They must have
// different base names. An error means that every pull of a docker image fails, and names the files by their paths.
func LoadRegistries(files []File) error {
	tmp, err := os.MkdirTemp("", "nodetrust-registries.d-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	in := make([]configFile, len(files))
	for i, f := range files {
		in[i] = configFile{path: f.Path, data: f.Data}
	}
	return loadRegistriesD(in, tmp)
}

// loadRegistriesD writes files into the empty directory dir and has the library load it.
func loadRegistriesD(files []configFile, dir string) error {
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.path)), f.data, 0o600); err != nil {
			return err
		}
	}
	// Any reference does: the library has no other public door to its parser than asking for one image's lookaside.
	ref, err := docker.ParseReference("//registry.example.com/image:tag")
	if err != nil {
		return err
	}
	_, err = docker.SignatureStorageBaseURL(&types.SystemContext{RegistriesDirPath: dir}, ref, false)
	if err != nil {
		if merged, bad := mergeRegistriesD(files); bad == nil {
			err = merged.discreet(err)
		}
		var originals []string
		for _, f := range files {
			originals = append(originals, filepath.Join(dir, filepath.Base(f.path)), f.path)
		}
		return &loadError{err: err, originals: originals}
	}
	return nil
}

// loadError is the library's error with the paths of the copies that it read replaced by those of the originals.
type loadError struct {
	err       error
	originals []string // pairs of a copy and its original; of copies that begin alike the longer one first
}

func (e *loadError) Error() string { return strings.NewReplacer(e.originals...).Replace(e.err.Error()) }

func (e *loadError) Unwrap() error { return e.err }

// maxConfigFile bounds policy.json, a registries.d file, registries.conf and a key file, in bytes.
const maxConfigFile = 4 << 20

// configFile is a configuration file as it was read once.
type configFile struct {
	path string // as seen on the host
	data []byte
}

// readRegistriesD returns the effective registries.d files of dirs, sorted by base name: those ending in .yaml, a file
// of an earlier directory instead of one of the same base name in a later one. Dangling links are skipped, as the
// library skips them.
func readRegistriesD(host hostfs.Root, dirs []string) ([]configFile, error) {
	byName := map[string]string{}
	var names []string
	for _, dir := range dirs {
		entries, err := host.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", dir, err)
		}
		for _, e := range entries {
			if e.IsDir() || !strings.HasSuffix(e.Name(), ".yaml") {
				continue
			}
			if _, masked := byName[e.Name()]; !masked {
				byName[e.Name()] = filepath.Join(dir, e.Name())
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	var files []configFile
	for _, name := range names {
		data, err := host.ReadFile(byName[name], maxConfigFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", byName[name], err)
		}
		files = append(files, configFile{path: byName[name], data: data})
	}
	return files, nil
}
