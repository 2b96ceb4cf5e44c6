package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// RegistriesConfMains are where a root process with the home looks for registries.conf: it reads the first that exists.
func RegistriesConfMains(home string) []string {
	return []string{
		path.Join(home, ".config/containers/registries.conf"),
		"/etc/containers/registries.conf",
		"/usr/share/containers/registries.conf",
	}
}

// RegistriesConfDirs are the directories of its drop-ins, which end in .conf and are read as DropIns says. The image
// library looks there from 5.40 on; those before know neither /usr/share nor rootful.
func RegistriesConfDirs(home string) []string {
	return []string{
		path.Join(home, ".config/containers/registries.conf.d"),
		"/etc/containers/registries.rootful.conf.d",
		"/etc/containers/registries.conf.d",
		"/usr/share/containers/registries.rootful.conf.d",
		"/usr/share/containers/registries.conf.d",
	}
}

// DropIns returns the paths that the image library reads of drop-ins, in its order: those that lie in one of dirs and
// end in suffix, a file of an earlier directory instead of one of the same base name in a later one, sorted by base
// name whatever their directory. A later file overrides an earlier one: /etc's 10-a.conf loses to /usr/share's
// 20-a.conf.
func DropIns(dirs []string, suffix string, paths []string) (out []string) {
	byName := map[string]string{}
	for _, p := range paths {
		i := slices.Index(dirs, path.Dir(p))
		if i < 0 || !strings.HasSuffix(p, suffix) {
			continue
		}
		if q, there := byName[path.Base(p)]; !there || i < slices.Index(dirs, path.Dir(q)) {
			byName[path.Base(p)] = p
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

// File is a file of a host: what it holds, or Err, why it can't be read.
type File struct {
	Path string
	Data []byte
	Err  error
}

// RegistriesConf returns the registries.conf that a root process with the home reads, its Path empty if there is none,
// and the drop-ins in the order of reading. A directory that can't be listed is among these. What of the home may not
// be looked into counts as absent: who reads the host's policy too has met the home before.
func (r Root) RegistriesConf(home string) (main File, dropIns []File) {
	mains, dirs := RegistriesConfMains(home), RegistriesConfDirs(home)
	for i, p := range mains {
		data, err := r.ReadFile(p, maxRegistriesFile)
		if errors.Is(err, fs.ErrNotExist) || i == 0 && errors.Is(err, fs.ErrPermission) {
			continue
		}
		main = File{p, data, err}
		break
	}
	names, dropIns := r.list(dirs, dirs[0])
	for _, p := range DropIns(dirs, ".conf", names) {
		data, err := r.ReadFile(p, maxRegistriesFile)
		if !errors.Is(err, fs.ErrNotExist) {
			dropIns = append(dropIns, File{p, data, err})
		}
	}
	return main, dropIns
}

// list returns the paths of what lies in dirs and is no directory, and the directories that can't be listed, but for
// hidden where that may not be looked into.
func (r Root) list(dirs []string, hidden string) (paths []string, unread []File) {
	for _, dir := range dirs {
		entries, err := r.ReadDir(dir)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist), dir == hidden && errors.Is(err, fs.ErrPermission):
		default:
			unread = append(unread, File{Path: dir, Err: fmt.Errorf("reading %s: %w", dir, err)})
		}
		for _, e := range entries {
			if !e.IsDir() {
				paths = append(paths, path.Join(dir, e.Name()))
			}
		}
	}
	return paths, unread
}
