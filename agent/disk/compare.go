package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Compare reports how the effective files below root differ from want:
// - files of want (bytes, mode, owner, type, label);
// - files that are read instead of them or collide with them;
// - key files that the desired policy.json names and readers can't use.
// An empty result holds for the time of reading. It says nothing of other files or of a runtime's own configuration.
func Compare(root *os.Root, want trust.FileSet) []judge.Difference {
	return new(Comparer).Compare(root, want, nil)
}

// Comparer is Compare with a cache of parsed files. It is not safe for concurrent use.
type Comparer struct {
	parsed map[string]parsedFile // by path: a registries.d file as of its last read
	wanted map[*byte]registries  // by the address of the desired bytes, which never change
	policy struct {              // what the desired policy.json names
		data *byte
		keys []string
	}
	right map[string]right // by path: files that were as wanted at their last read
}

type right struct {
	want *byte // the address of the wanted bytes
	stat stat
}

// Compare does what the function Compare does. Files at the paths of obsolete are about to be removed: they collide
// with nothing.
func (c *Comparer) Compare(root *os.Root, want trust.FileSet, obsolete []string) []judge.Difference {
	c.right = nil
	return c.CompareChanged(root, want, obsolete)
}

// CompareChanged is ten times as fast as Compare: it doesn't read files of want again that were right and have the
// same inode, size, mode, owner and times. It misses changes that leave all these alone (a write through a memory map)
// until the next Compare.
func (c *Comparer) CompareChanged(root *os.Root, want trust.FileSet, obsolete []string) []judge.Difference {
	ds := c.files(root, want)
	ds = append(ds, c.masks(root, want, obsolete)...)
	ds = append(ds, c.registries(root, want, obsolete)...)
	return append(ds, c.keys(root, want)...)
}

// Files reads and compares only the files of want.
func (c *Comparer) Files(root *os.Root, want trust.FileSet) []judge.Difference {
	return new(Comparer).files(root, want)
}

func (c *Comparer) files(root *os.Root, want trust.FileSet) []judge.Difference {
	var ds []judge.Difference
	if c.right == nil {
		c.right = map[string]right{}
	}
	folders := map[string]*folder{}
	failed := map[string]error{}
	defer func() {
		for _, d := range folders {
			d.close()
		}
	}()
	for _, w := range want {
		name := path.Dir(w.Path)
		dir, err := folders[name], failed[name]
		if dir == nil && err == nil {
			if dir, err = openFolder(root, name); err != nil {
				failed[name] = err
			} else {
				folders[name] = dir
			}
		}
		if err != nil {
			ds = append(ds, compareFile(w, found{err: err}, "")...)
			continue
		}
		if len(w.Data) > 0 && c.right[w.Path] == (right{&w.Data[0], dir.stat(path.Base(w.Path))}) {
			continue
		}
		delete(c.right, w.Path)
		got := dir.read(path.Base(w.Path))
		wrong := compareFile(w, got, dir.label)
		if len(wrong) == 0 && len(w.Data) > 0 && got.stat.settled() {
			c.right[w.Path] = right{&w.Data[0], got.stat}
		}
		ds = append(ds, wrong...)
	}
	return ds
}

func compareFile(w trust.File, got found, dirLabel string) []judge.Difference {
	diff := func(k judge.Kind, want, got string) judge.Difference {
		return judge.Difference{Path: w.Path, Kind: k, Want: want, Got: got}
	}
	switch {
	case got.missing(), errors.Is(got.err, unix.ENOTDIR):
		return []judge.Difference{diff(judge.Missing, trust.ContentDigest(w.Data), "")}
	case got.kind != "" && got.kind != "file":
		return []judge.Difference{diff(judge.Type, "file", got.kind)}
	case got.err != nil:
		return []judge.Difference{diff(judge.Unreadable, trust.ContentDigest(w.Data), cause(got.err))}
	}
	var ds []judge.Difference
	if !bytes.Equal(got.data, w.Data) {
		ds = append(ds, diff(judge.Content, trust.ContentDigest(w.Data), trust.ContentDigest(got.data)))
	}
	if got.mode != w.Mode {
		ds = append(ds, diff(judge.Mode, fmt.Sprintf("%04o", w.Mode), fmt.Sprintf("%04o", got.mode)))
	}
	if got.uid != w.UID || got.gid != w.GID {
		ds = append(ds, diff(judge.Owner, fmt.Sprintf("%d:%d", w.UID, w.GID), fmt.Sprintf("%d:%d", got.uid, got.gid)))
	}
	if !sameType(got.label, dirLabel) {
		ds = append(ds, diff(judge.Label, dirLabel, got.label))
	}
	return ds
}

// sameType reports whether a file's SELinux context has the type of its directory's. The user part may differ: it says
// who made the file. A missing context on either side counts as the same.
func sameType(file, dir string) bool {
	if file == "" || dir == "" {
		return true
	}
	return contextType(file) == contextType(dir)
}

func contextType(context string) string {
	parts := strings.SplitN(context, ":", 4)
	if len(parts) < 3 {
		return context
	}
	return parts[2]
}

// Found returns the readable regular files at the paths of want, with their actual mode, owner and bytes.
func Found(root *os.Root, want trust.FileSet) trust.FileSet {
	var out trust.FileSet
	for _, w := range want {
		dir, err := openFolder(root, path.Dir(w.Path))
		if err != nil {
			continue
		}
		got := dir.read(path.Base(w.Path))
		dir.close()
		if got.err == nil && got.kind == "file" {
			out = append(out, trust.File{Path: w.Path, Mode: got.mode, UID: got.uid, GID: got.gid, Data: got.data})
		}
	}
	return out
}
