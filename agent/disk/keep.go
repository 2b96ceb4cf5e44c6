package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Kinds of an Entry.
const (
	Absent    = "absent"
	File      = "file"
	Link      = "symlink"
	Directory = "directory"
)

// Entry is what stands at a path: enough to put it back.
type Entry struct {
	// Kind is one of the constants, or "fifo", "socket", "device".
	Kind  string
	Mode  uint32
	UID   uint32
	GID   uint32
	Label string // SELinux context of a file; empty where there is none
	Data  []byte // of a file
	// Large is true for a file that is too large to be read.
	Large  bool
	Target string // of a symlink
	Inode  uint64
}

// Look returns what stands at the absolute path p. It neither follows a symlink at p nor opens anything but a file.
func Look(root *os.Root, p string) (Entry, error) {
	e, err := look(root, p)
	if err != nil {
		return Entry{}, fmt.Errorf("looking at %s: %w", p, plain(err))
	}
	return e, nil
}

func look(root *os.Root, p string) (Entry, error) {
	dir, err := openFolder(root, path.Dir(p))
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{Kind: Absent}, nil
	}
	if err != nil {
		return Entry{}, err
	}
	defer dir.close()
	base := path.Base(p)
	at := dir.stat(base)
	got := dir.read(base)
	e := Entry{Kind: got.kind, Mode: got.mode, UID: got.uid, GID: got.gid, Label: got.label, Inode: at.ino}
	switch {
	case got.missing():
		return Entry{Kind: Absent}, nil
	case got.kind == File && errors.Is(got.err, errLarge):
		e.Large = true
	case got.err != nil:
		return Entry{}, got.err
	case got.kind == File:
		e.Inode, e.Data = got.stat.ino, got.data
	case got.kind == Link:
		if e.Target, err = root.Readlink(rel(p)); err != nil {
			return Entry{}, err
		}
	}
	return e, nil
}

// Set puts f at its path as Replace does, with this label and no other; an empty one leaves it to the directory.
func Set(root *os.Root, f trust.File, label string) error {
	_, err := replace(root, f, func(_, dir string) string {
		if label == "" {
			return dir
		}
		return label
	})
	return err
}

// SetLink puts a symlink at the absolute path p in one step.
func SetLink(root *os.Root, p, target string, uid, gid uint32) error {
	tmp := path.Join(path.Dir(p), "."+path.Base(p)+strconv.Itoa(os.Getpid())) // a name that Sweep knows
	err := root.Remove(rel(tmp))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = root.Symlink(target, rel(tmp))
	}
	if err == nil {
		err = root.Lchown(rel(tmp), int(uid), int(gid))
	}
	if err == nil {
		err = root.Rename(rel(tmp), rel(p))
	}
	if err == nil {
		err = syncDir(root, path.Dir(p))
	}
	if err != nil {
		return fmt.Errorf("linking %s: %w", p, plain(err))
	}
	return nil
}

// LinkAside gives the thing at the absolute path p, which is no directory, a second name in its directory.
func LinkAside(root *os.Root, p, name string) error {
	dir, err := openFolder(root, path.Dir(p))
	if err == nil {
		defer dir.close()
		fd := int(dir.f.Fd())
		if err = unix.Linkat(fd, path.Base(p), fd, name, 0); err == nil {
			err = dir.f.Sync()
		}
	}
	if err != nil {
		return fmt.Errorf("keeping %s as %s: %w", p, name, plain(err))
	}
	return nil
}

// Rename renames what is at the absolute path p within its directory.
func Rename(root *os.Root, p, name string) error {
	err := root.Rename(rel(p), rel(path.Join(path.Dir(p), name)))
	if err == nil {
		err = syncDir(root, path.Dir(p))
	}
	if err != nil {
		return fmt.Errorf("renaming %s to %s: %w", p, name, plain(err))
	}
	return nil
}

// MissingDirs returns the directories that have to be made before a file can be at the absolute path p, outermost
// first.
func MissingDirs(root *os.Root, p string) []string {
	var out []string
	at := "/"
	for _, name := range split(path.Dir(p)) {
		at = path.Join(at, name)
		if _, err := root.Lstat(rel(at)); errors.Is(err, fs.ErrNotExist) {
			out = append(out, at)
		}
	}
	return out
}

// RemoveDir removes the empty directory at the absolute path p. It reports whether p is gone.
func RemoveDir(root *os.Root, p string) (bool, error) {
	info, err := root.Lstat(rel(p))
	if err == nil && !info.IsDir() {
		return false, nil
	}
	if err == nil {
		err = root.Remove(rel(p))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return true, nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EBUSY):
		return false, nil // EBUSY: something is mounted there
	case err == nil:
		err = syncDir(root, path.Dir(p))
	}
	if err != nil {
		return false, fmt.Errorf("removing directory %s: %w", p, plain(err))
	}
	return true, nil
}

// Collides reports whether two registries.d files define a scope in common, which fails every pull.
func Collides(x, y []byte) bool {
	if len(x) == 0 || len(y) == 0 {
		return false
	}
	a, b := parseRegistries(registriesd.File{Data: x}), parseRegistries(registriesd.File{Data: y})
	for _, s := range a.scopes {
		for _, t := range b.scopes {
			if s == t {
				return true
			}
		}
	}
	return false
}

// IsRegistries reports whether p is a registries.d file.
func IsRegistries(p string) bool {
	return slices.ContainsFunc(registriesd.Dirs(), func(dir string) bool { return registriesd.Is(p, dir) })
}

// Accepts reports whether a policy.json accepts the image of the docker transport without a signature.
func Accepts(data []byte, image string) bool {
	doc, err := policy.Read(data)
	if err != nil {
		return false
	}
	rs, _ := doc.At(policy.Place{Transport: policy.Docker, Scope: image})
	return len(rs) > 0 && !slices.ContainsFunc(rs, func(r policy.Requirement) bool {
		return r.Type != policy.InsecureAcceptAnything
	})
}
