package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/nodetrust/nodetrust/internal/registriesd"
)

// maxRegistriesFile bounds a registries.d file and a registries.conf, in bytes.
const maxRegistriesFile = 4 << 20

// RegistriesD returns the effective registries.d files of dirs, as DropIns has those ending in .yaml. Dangling links
// are skipped, as the image library skips them.
func (r Root) RegistriesD(dirs []string) ([]registriesd.File, error) {
	paths, unread := r.list(dirs, "")
	if len(unread) > 0 {
		return nil, unread[0].Err
	}
	var files []registriesd.File
	for _, p := range DropIns(dirs, ".yaml", paths) {
		data, err := r.ReadFile(p, maxRegistriesFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", p, err)
		}
		files = append(files, registriesd.File{Path: p, Data: data})
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
