// Package found keeps what a host had at the paths of nodetrust before the first write, and puts it back.
//
// What was found is written and synced before anything is replaced, and never changed again: an interrupted Keep or
// Restore is repeated from the beginning.
package found

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	index = "index.json"

	version    = 1
	maxIndex   = 8 << 20
	maxEntries = 4096
	maxKept    = 32 << 20 // bytes of all contents; what is beyond gets a second name instead of a copy
	maxOurs    = 16

	// asideSuffix ends the second name of what is not copied: no reader takes up a file with it.
	asideSuffix = ".nodetrust-found"

	// lost is the kind of an entry whose content was replaced by a version without this package.
	lost = "lost"
)

// entry is what was found at a path.
type entry struct {
	Path   string `json:"path"`
	Kind   string `json:"kind"`
	Mode   uint32 `json:"mode,omitempty"`
	UID    uint32 `json:"uid,omitempty"`
	GID    uint32 `json:"gid,omitempty"`
	Label  string `json:"label,omitempty"`
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // of a file that was copied: the name of the copy
	Target string `json:"target,omitempty"`
	// Aside is the name in the same directory of what could not be copied; Inode tells it from what came later.
	Aside string `json:"aside,omitempty"`
	Inode uint64 `json:"inode,omitempty"`
	// Ours are the digests of what was written to the path since.
	Ours []string `json:"ours,omitempty"`
}

type document struct {
	Version int     `json:"version"`
	Entries []entry `json:"entries"`
	// Made are the directories that were missing, outermost first.
	Made []string `json:"made,omitempty"`
}

// Store is what was found, in a directory of the host. It is not safe for concurrent use.
type Store struct {
	root *os.Root
	dir  string
	doc  document
}

// Open reads what was found before. A missing directory is an empty Store; one that can't be read is an error, and
// nothing may be replaced then.
func Open(root *os.Root, dir string) (*Store, error) {
	s := &Store{root: root, dir: dir, doc: document{Version: version}}
	b, err := bounded.ReadRegular(root.OpenFile, path.Join(dir, index)[1:], maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	var doc document
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err == nil && doc.Version != version {
		err = fmt.Errorf("is of version %d, this program knows %d", doc.Version, version)
	}
	for _, e := range doc.Entries {
		if err == nil && !path.IsAbs(e.Path) {
			err = fmt.Errorf("holds the path %q", e.Path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path.Join(dir, index), err)
	}
	s.doc = doc
	return s, nil
}

// Empty reports whether nothing was ever kept.
func (s *Store) Empty() bool { return len(s.doc.Entries) == 0 }

// Knows reports whether what was at p is kept, and whether what is written there now is remembered as ours.
func (s *Store) Knows(f trust.File) bool {
	e := s.at(f.Path)
	return e != nil && slices.Contains(e.Ours, digest(f.Data))
}

// File returns the content of the file that was found at p.
func (s *Store) File(p string) ([]byte, bool) {
	e := s.at(p)
	if e == nil || e.SHA256 == "" {
		return nil, false
	}
	b, err := s.copyOf(e)
	return b, err == nil
}

func (s *Store) at(p string) *entry {
	for i := range s.doc.Entries {
		if s.doc.Entries[i].Path == p {
			return &s.doc.Entries[i]
		}
	}
	return nil
}

// Lose notes files that were written before anything was kept: what was there before is not known.
func (s *Store) Lose(files trust.FileSet) error {
	next := s.copy()
	for _, f := range files {
		if s.at(f.Path) == nil {
			next.doc.Entries = append(next.doc.Entries, entry{Path: f.Path, Kind: lost})
		}
		next.own(f)
	}
	return s.commit(next)
}

// Keep keeps what is at the paths of files, unless it did before, and notes that files are going to be there. On nil
// all of it is on stable storage. A path that can't be looked at is left out: it can't be replaced either.
func (s *Store) Keep(files trust.FileSet) error {
	next := s.copy()
	for _, f := range files {
		if next.at(f.Path) == nil {
			e, err := next.take(f.Path)
			if err != nil {
				return err
			}
			if e == nil {
				continue
			}
			for _, d := range disk.MissingDirs(s.root, f.Path) {
				if !slices.Contains(next.doc.Made, d) {
					next.doc.Made = append(next.doc.Made, d)
				}
			}
			next.doc.Entries = append(next.doc.Entries, *e)
		}
		next.own(f)
	}
	if len(next.doc.Entries) > maxEntries {
		return fmt.Errorf("what is found at more than %d paths is not kept", maxEntries)
	}
	return s.commit(next)
}

func (s *Store) own(f trust.File) {
	e := s.at(f.Path)
	d := digest(f.Data)
	if e == nil || slices.Contains(e.Ours, d) {
		return
	}
	e.Ours = append(e.Ours, d)
	if n := len(e.Ours); n > maxOurs {
		e.Ours = e.Ours[n-maxOurs:]
	}
}

// copy returns a Store that can be changed before it is on disk.
func (s *Store) copy() *Store {
	out := *s
	out.doc.Made = slices.Clone(s.doc.Made)
	out.doc.Entries = slices.Clone(s.doc.Entries)
	for i := range out.doc.Entries {
		out.doc.Entries[i].Ours = slices.Clone(out.doc.Entries[i].Ours)
	}
	return &out
}

// commit makes next the content of s, once it is on disk.
func (s *Store) commit(next *Store) error {
	if !s.Empty() && reflect.DeepEqual(s.doc, next.doc) {
		return nil
	}
	after, err := json.MarshalIndent(next.doc, "", " ")
	if err != nil {
		return err
	}
	if err := s.write(index, append(after, '\n')); err != nil {
		return err
	}
	s.doc = next.doc
	return nil
}

func (s *Store) write(name string, data []byte) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	_, err := disk.Replace(s.root, trust.File{
		Path: path.Join(s.dir, name), Mode: 0o600, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Data: data,
	})
	return err
}

func (s *Store) makeDir() error {
	err := s.root.Mkdir(s.dir[1:], 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("making %s: %w", s.dir, err)
	}
	return nil
}

// take copies what is at p, or gives it a second name. The result is nil where nothing can be looked at.
func (s *Store) take(p string) (*entry, error) {
	at, err := disk.Look(s.root, p)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // the write fails for the same reason, and says so
	}
	e := &entry{Path: p, Kind: at.Kind, Mode: at.Mode, UID: at.UID, GID: at.GID, Label: at.Label, Inode: at.Inode}
	switch {
	case at.Kind == disk.Absent:
		return &entry{Path: p, Kind: disk.Absent}, nil
	case at.Kind == disk.Link:
		e.Target = at.Target
	case at.Kind == disk.File && !at.Large && s.kept()+int64(len(at.Data)) <= maxKept:
		e.SHA256, e.Size = digest(at.Data), int64(len(at.Data))
		return e, s.write(e.SHA256, at.Data)
	default:
		if e.Aside, err = s.aside(p, at); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (s *Store) kept() int64 {
	var n int64
	for _, e := range s.doc.Entries {
		n += e.Size
	}
	return n
}

// aside returns the second name of what is at p. Everything but a directory gets it at once; a directory is renamed
// by MakeWay.
func (s *Store) aside(p string, at disk.Entry) (string, error) {
	for i := range 100 {
		name := path.Base(p) + asideSuffix
		if i > 0 {
			name = fmt.Sprintf("%s%d", name, i)
		}
		there, err := disk.Look(s.root, path.Join(path.Dir(p), name))
		switch {
		case err != nil:
			return "", err
		case there.Kind == at.Kind && there.Inode == at.Inode:
			return name, nil
		case there.Kind != disk.Absent:
		case at.Kind == disk.Directory:
			return name, nil
		default:
			return name, disk.LinkAside(s.root, p, name)
		}
	}
	return "", fmt.Errorf("keeping %s: no name is free beside it", p)
}

// MakeWay renames the directory that was found at p, if it is still there.
func (s *Store) MakeWay(p string) error {
	e := s.at(p)
	if e == nil || e.Kind != disk.Directory {
		return nil
	}
	at, err := disk.Look(s.root, p)
	if err != nil || at.Kind != disk.Directory || at.Inode != e.Inode {
		return nil //nolint:nilerr // not what was found
	}
	return disk.Rename(s.root, p, e.Aside)
}

var copied = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Sweep removes what interrupted calls of Keep have left.
func (s *Store) Sweep() error {
	names, err := disk.List(s.root, s.dir)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	paths := []string{path.Join(s.dir, index)}
	for _, e := range s.doc.Entries {
		used[e.SHA256] = true
	}
	var errs []error
	for _, n := range names {
		switch {
		case copied.MatchString(n) && !used[n]:
			errs = append(errs, disk.Remove(s.root, path.Join(s.dir, n)))
		case len(n) > 65 && n[0] == '.' && copied.MatchString(n[1:65]):
			paths = append(paths, path.Join(s.dir, n[1:65]))
		}
	}
	return errors.Join(append(errs, disk.Sweep(s.root, paths))...)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
