package found

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Left is a path that Restore did not touch.
type Left struct {
	Path string
	Why  string
}

func (l Left) String() string { return l.Path + " " + l.Why }

// Restore puts back what was found: bytes, mode, owner, label or absence. Directories that had to be made are removed
// if they are empty. It leaves and returns paths that somebody else has changed since. After an error, or the end of
// the process, it can be called again.
//
// Order: what was found of policy.json first, while our registries.d files are still there, then registries.d so that
// no scope is ever in two files. If no policy.json was found, ours goes last. Key files that were not there before go
// after the policy that names them, others are put back before it.
func (s *Store) Restore() ([]Left, error) {
	var paths []string
	for _, e := range s.doc.Entries {
		paths = append(paths, e.Path)
	}
	errs := []error{disk.Sweep(s.root, paths)}
	var left []Left
	var keys, policies, registries, policy, newKeys []*entry
	for i := range s.doc.Entries {
		e := &s.doc.Entries[i]
		done, why, err := s.done(e)
		json := path.Ext(e.Path) == ".json"
		switch {
		case err != nil:
			errs = append(errs, err)
		case why != "":
			left = append(left, Left{e.Path, why})
		case done:
		case disk.IsRegistries(e.Path):
			registries = append(registries, e)
		case json && e.Kind == disk.Absent && path.Base(e.Path) == "policy.json":
			policy = append(policy, e)
		case json:
			policies = append(policies, e)
		case e.Kind == disk.Absent:
			newKeys = append(newKeys, e)
		default:
			keys = append(keys, e)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return left, err
	}
	for _, step := range []func() error{
		s.all(keys), s.all(policies), func() error { return s.restoreRegistries(registries) }, s.all(policy),
		s.all(newKeys),
	} {
		if err := step(); err != nil {
			return left, err
		}
	}
	for _, d := range slices.Backward(s.doc.Made) {
		if _, err := disk.RemoveDir(s.root, d); err != nil {
			return left, err
		}
	}
	return left, nil
}

func (s *Store) all(es []*entry) func() error {
	return func() error {
		for _, e := range es {
			if err := s.putBack(e); err != nil {
				return err
			}
		}
		return nil
	}
}

// done reports whether p is as it was found, or why it is to be left as it is.
func (s *Store) done(e *entry) (done bool, why string, err error) {
	at, err := disk.Look(s.root, e.Path)
	if err != nil {
		return false, "", err
	}
	ours := at.Kind == disk.File && !at.Large && slices.Contains(e.Ours, digest(at.Data))
	switch {
	case e.Kind == lost && ours:
		return false, "is nodetrust's: a version that kept no original has written it", nil
	case e.Kind == lost:
		return true, "", nil
	case s.same(e, at):
		return true, "", nil
	case ours, at.Kind == disk.Absent:
		return false, "", nil
	}
	return false, "was changed by somebody else after nodetrust wrote it; " + s.original(e), nil
}

func (s *Store) original(e *entry) string {
	switch {
	case e.SHA256 != "":
		return "what it was before is in " + path.Join(s.dir, e.SHA256)
	case e.Aside != "":
		return "what it was before is beside it, as " + e.Aside
	case e.Target != "":
		return "before it was a symlink to " + e.Target
	}
	return "before there was nothing"
}

func (s *Store) same(e *entry, at disk.Entry) bool {
	if e.Aside != "" {
		return at.Inode == e.Inode && at.Kind == e.Kind && !s.twice(e)
	}
	if at.Kind != e.Kind {
		return false
	}
	switch e.Kind {
	case disk.Absent:
		return true
	case disk.Link:
		return at.Target == e.Target && at.UID == e.UID && at.GID == e.GID
	}
	return !at.Large && digest(at.Data) == e.SHA256 && at.Mode == e.Mode && at.UID == e.UID && at.GID == e.GID &&
		at.Label == e.Label
}

// twice reports whether the second name of what was found is there.
func (s *Store) twice(e *entry) bool {
	at, err := disk.Look(s.root, path.Join(path.Dir(e.Path), e.Aside))
	return err != nil || at.Inode == e.Inode && at.Kind == e.Kind
}

// restoreRegistries never puts a scope into two files: it puts back a file that collides with none of ours that is
// still to go, or takes one of ours away if there is no such file.
func (s *Store) restoreRegistries(todo []*entry) error {
	for _, e := range todo {
		if e.Kind == disk.Absent {
			if err := s.putBack(e); err != nil {
				return err
			}
		}
	}
	todo = slices.DeleteFunc(slices.Clone(todo), func(e *entry) bool { return e.Kind == disk.Absent })
	for len(todo) > 0 {
		next := slices.IndexFunc(todo, func(e *entry) bool { return !s.collides(e, todo) })
		if next < 0 {
			if err := disk.Remove(s.root, todo[0].Path); err != nil {
				return err
			}
			continue
		}
		if err := s.putBack(todo[next]); err != nil {
			return err
		}
		todo = slices.Delete(todo, next, next+1)
	}
	return nil
}

func (s *Store) collides(e *entry, todo []*entry) bool {
	data, err := s.copyOf(e)
	if err != nil || e.SHA256 == "" {
		return false
	}
	for _, o := range todo {
		if o == e {
			continue
		}
		if at, err := disk.Look(s.root, o.Path); err == nil && disk.Collides(data, at.Data) {
			return true
		}
	}
	return false
}

func (s *Store) copyOf(e *entry) ([]byte, error) {
	if e.SHA256 == "" {
		return nil, nil
	}
	p := path.Join(s.dir, e.SHA256)
	b, err := bounded.ReadRegular(s.root.OpenFile, p[1:], e.Size)
	if err == nil && digest(b) != e.SHA256 {
		err = errors.New("is damaged")
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s, what was found at %s: %w", p, e.Path, err)
	}
	return b, nil
}

func (s *Store) putBack(e *entry) error {
	switch {
	case e.Kind == disk.Absent:
		return disk.Remove(s.root, e.Path)
	case e.Kind == disk.Link:
		return disk.SetLink(s.root, e.Path, e.Target, e.UID, e.GID)
	case e.Aside != "":
		return s.putBackAside(e)
	}
	b, err := s.copyOf(e)
	if err != nil {
		return err
	}
	return disk.Set(s.root, trust.File{Path: e.Path, Mode: e.Mode, UID: e.UID, GID: e.GID, Data: b}, e.Label)
}

func (s *Store) putBackAside(e *entry) error {
	aside := path.Join(path.Dir(e.Path), e.Aside)
	at, err := disk.Look(s.root, aside)
	if err != nil {
		return err
	}
	if at.Inode != e.Inode || at.Kind != e.Kind {
		return fmt.Errorf("what was found at %s is not at %s any more", e.Path, aside)
	}
	there, err := disk.Look(s.root, e.Path)
	if err != nil {
		return err
	}
	switch {
	case there.Inode == e.Inode && there.Kind == e.Kind: // two names of one thing
		return disk.Remove(s.root, aside)
	case e.Kind == disk.Directory: // no directory can be renamed over a file
		if err := disk.Remove(s.root, e.Path); err != nil {
			return err
		}
	}
	return disk.Rename(s.root, aside, path.Base(e.Path))
}

// Forget removes what was kept, and at last the directory.
func (s *Store) Forget() error {
	for _, e := range s.doc.Entries {
		if e.SHA256 == "" {
			continue
		}
		if err := disk.Remove(s.root, path.Join(s.dir, e.SHA256)); err != nil {
			return err
		}
	}
	s.doc = document{Version: version}
	if err := s.Sweep(); err != nil {
		return err
	}
	if err := disk.Remove(s.root, path.Join(s.dir, index)); err != nil {
		return err
	}
	_, err := disk.RemoveDir(s.root, s.dir)
	return err
}
