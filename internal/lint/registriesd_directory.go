package lint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/nodetrust/nodetrust/internal/hostfs"
)

var errDirectory = errors.New("it is a directory")

// readable reports whether it is known what readers find there if they don't fail: a link to nothing is an empty file.
func (e file) readable() bool { return e.err == nil || errors.Is(e.err, fs.ErrNotExist) }

// registriesEntries reads what has the name of a file of a registries.d directory of the host below root. Files that
// look as if they were meant to be read, and are not, are findings.
func (r *runner) registriesEntries(root, dir string, entries []fs.DirEntry) []file {
	var out []file
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		switch {
		case !strings.HasSuffix(e.Name(), ".yaml"):
			if !e.IsDir() {
				r.ignored(p)
			}
		case e.IsDir():
			out = append(out, file{path: p, err: errDirectory})
		case nulled(root, p):
			out = append(out, file{path: p})
		default:
			data, err := hostfs.Root(root).ReadFile(p, MaxPolicy)
			out = append(out, file{p, data, err})
		}
	}
	return out
}

// nulled reports whether a file is a link to /dev/null: readers find an empty file, with which people mask one of a
// vendor. Below a root that is no running host there is no device.
func nulled(root, p string) bool {
	to, err := os.Readlink(filepath.Join(root, p))
	return err == nil && to == os.DevNull
}

// unread adds to l what the readers of v make of an entry that has an error, if they mind, and returns why they load
// nothing at all, nil if they skip it.
func (v *view) unread(l *linter, e file) error {
	at := place{file: e.path}
	const hint = "every pull on the node fails; remove it"
	switch {
	case errors.Is(e.err, errDirectory) && v.places.Merges:
		return nil
	case errors.Is(e.err, errDirectory):
		l.add("unreadable", at, "is a directory: readers before containers-image 5.40 fail at it").Hint = hint
		return fmt.Errorf("reading %s: %w", e.path, e.err)
	case errors.Is(e.err, fs.ErrNotExist) && v.skipsDangling:
		l.add("dangling-link", at, "is a link to nothing: readers skip it").Severity = Warning
		return nil
	case errors.Is(e.err, fs.ErrNotExist):
		l.add("dangling-link", at, "is a link to nothing: readers before containers-image 5.34 fail at it").Hint = hint
		return fmt.Errorf("reading %s: it is a link to nothing", e.path)
	}
	cause := e.err
	if pathErr, ok := errors.AsType[*fs.PathError](cause); ok {
		cause = pathErr.Err // the path is said anyway
	}
	l.add("unreadable", at, "can't be read: %v", cause).Hint = hint
	return fmt.Errorf("reading %s: %w", e.path, cause)
}

// ignored adds a finding for a file in registries.d that looks as if it was meant to be read.
func (l *linter) ignored(p string) {
	if ext := path.Ext(p); ext == ".yaml" || !strings.EqualFold(ext, ".yml") && !strings.EqualFold(ext, ".yaml") {
		return
	}
	l.add("ignored-file", place{file: p}, "only names that end in .yaml are read: this file has no effect")
}

// registriesDir takes a directory that was named as a path for a registries.d, and reports whether it looks like one.
func (r *runner) registriesDir(dir string, entries []fs.DirEntry) bool {
	files, findings := len(r.registryFiles), len(r.findings)+r.dropped
	views := r.views()
	seen := make([]linter, len(views))
	for _, e := range r.registriesEntries("", dir, entries) {
		if e.readable() {
			r.registryFiles = append(r.registryFiles, e)
		}
		if e.err == nil {
			continue
		}
		r.unread = r.unread || !e.readable() && !errors.Is(e.err, errDirectory)
		for i, v := range views {
			if err := v.unread(&seen[i], e); err != nil {
				r.loadables = append(r.loadables, loadable{name: dir, problem: err.Error(), readers: v.readers})
			}
		}
	}
	r.asSeen(views, seen)
	return len(r.registryFiles) > files || len(r.findings)+r.dropped > findings
}
