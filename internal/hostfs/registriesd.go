package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/registriesd"
)

// maxRegistriesFile bounds a registries.d file, in bytes.
const maxRegistriesFile = 4 << 20

// RegistriesD returns the effective registries.d files of dirs, sorted by base name: those ending in .yaml, a file of
// an earlier directory instead of one of the same base name in a later one. Dangling links are skipped, as the image
// library skips them.
func (r Root) RegistriesD(dirs []string) ([]registriesd.File, error) {
	byName := map[string]string{}
	var names []string
	for _, dir := range dirs {
		entries, err := r.ReadDir(dir)
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
	var files []registriesd.File
	for _, name := range names {
		data, err := r.ReadFile(byName[name], maxRegistriesFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", byName[name], err)
		}
		files = append(files, registriesd.File{Path: byName[name], Data: data})
	}
	return files, nil
}

// URL moves a file: URL of the host to where its tree lies on this machine. Other URLs stay as they are.
func (r Root) URL(s string) string {
	if r.IsThisMachine() || !strings.HasPrefix(s, "file:") {
		return s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host != "" {
		return s
	}
	path, err := r.Real(u.Path)
	if err != nil {
		return s
	}
	u.Path = path
	return u.String()
}
