package registriesd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/hostfs"
)

// LoadDirs asks the image library whether the registries.d directories load together. The first directory is of
// the highest priority: its files hide those of the same base name in later ones, as a runtime with this library does
// it; a directory that doesn't exist is empty. An error means that every pull of a docker image fails, and names the
// files as they are below dirs.
func LoadDirs(dirs ...string) error {
	files, err := Read(hostfs.ThisMachine, dirs)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "nodetrust-registries.d-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	return LoadIn(tmp, files)
}

// Load asks the image library whether registries.d files with this content load together. They must have
// different base names. An error means that every pull of a docker image fails, and names the files by their paths.
func Load(files []File) error {
	tmp, err := os.MkdirTemp("", "nodetrust-registries.d-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	return LoadIn(tmp, files)
}

// LoadIn does what Load does with copies in a directory, which must be empty; they stay there.
func LoadIn(dir string, files []File) error {
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), f.Data, 0o600); err != nil {
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
		if merged, bad := Merge(files); bad == nil {
			err = merged.Discreet(err)
		}
		var originals []string
		for _, f := range files {
			originals = append(originals, filepath.Join(dir, filepath.Base(f.Path)), f.Path)
		}
		return Reworded(err, originals...)
	}
	return nil
}

// Reworded is an error with another text: of pairs of texts the first is replaced by the second, as
// strings.NewReplacer does it.
func Reworded(err error, pairs ...string) error {
	text := strings.NewReplacer(pairs...).Replace(err.Error())
	if text == err.Error() {
		return err
	}
	return &rewordedError{text, err}
}

type rewordedError struct {
	text string
	err  error
}

func (e *rewordedError) Error() string { return e.text }
func (e *rewordedError) Unwrap() error { return e.err }

// maxFile bounds a registries.d file, in bytes.
const maxFile = 4 << 20

// File is a registries.d file as it was read once.
type File struct {
	Path string // as seen on the host
	Data []byte
}

// Read returns the effective registries.d files of dirs, sorted by base name: those ending in .yaml, a file
// of an earlier directory instead of one of the same base name in a later one. Dangling links are skipped, as the
// library skips them.
func Read(host hostfs.Root, dirs []string) ([]File, error) {
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
	var files []File
	for _, name := range names {
		data, err := host.ReadFile(byName[name], maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", byName[name], err)
		}
		files = append(files, File{Path: byName[name], Data: data})
	}
	return files, nil
}
