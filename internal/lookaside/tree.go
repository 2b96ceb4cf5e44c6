// Package lookaside collects detached signatures into a directory that nodes without a web server of signatures use as
// a file:// lookaside, and proves that it satisfies a policy.
package lookaside

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// stateDir holds what a later run need not read again. No repository can have this name.
const stateDir = ".nodetrust"

// maxState bounds a file in stateDir, in bytes: manifests of an image for many platforms.
const maxState = 64 << 20

// Tree is a lookaside in a directory: REPOSITORY@sha256=HEX/signature-N. It reads and writes nothing outside of the
// directory, whatever links it holds. It is safe for concurrent use on different directories.
type Tree struct {
	root *os.Root
}

// OpenTree opens a tree, and makes its directory if it is missing.
func OpenTree(dir string) (*Tree, error) {
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755))
	}
	if err != nil {
		return nil, fmt.Errorf("opening the lookaside: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the lookaside: %w", err)
	}
	return &Tree{root}, nil
}

// Close closes the tree.
func (t *Tree) Close() error { return t.root.Close() }

// directory returns where the signatures of a manifest lie. The repository is without host.
func directory(repository, d string) (string, error) {
	parsed, err := digest.Parse(d)
	if err != nil {
		return "", fmt.Errorf("digest %q: %w", d, err)
	}
	if !fs.ValidPath(repository) || repository == "." {
		return "", fmt.Errorf("repository %q: is no path below the lookaside", repository)
	}
	for name := range strings.SplitSeq(repository, "/") {
		if name[0] == '.' || strings.ContainsAny(name, "@=:\\") {
			return "", fmt.Errorf("repository %q: is no path below the lookaside", repository)
		}
	}
	return fmt.Sprintf("%s@%s=%s", repository, parsed.Algorithm(), parsed.Encoded()), nil
}

// Signatures returns the tree's signatures of a manifest, as a runtime would read them.
func (t *Tree) Signatures(repository, d string) ([][]byte, error) {
	dir, err := directory(repository, d)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for n := 1; n <= verify.MaxSignatures; n++ {
		b, err := bounded.ReadRegular(t.root.OpenFile, path.Join(dir, fmt.Sprintf("signature-%d", n)),
			verify.MaxSignatureSize)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// Put adds missing signatures of a manifest, and returns how many were missing. A reader sees each file whole, and the
// first ones of a manifest all at once.
func (t *Tree) Put(repository, d string, signatures [][]byte) (added int, err error) {
	if len(signatures) == 0 {
		return 0, nil
	}
	dir, err := directory(repository, d)
	if err != nil {
		return 0, err
	}
	have, err := t.Signatures(repository, d)
	if err != nil {
		return 0, err
	}
	missing := without(signatures, have)
	if len(have)+len(missing) > verify.MaxSignatures {
		return 0, fmt.Errorf("writing signatures of %s: more than %d", dir, verify.MaxSignatures)
	}
	if len(missing) == 0 {
		return 0, nil
	}
	if err := t.put(dir, len(have), missing); err != nil {
		return 0, fmt.Errorf("writing signatures of %s: %w", dir, err)
	}
	return len(missing), nil
}

func (t *Tree) put(dir string, have int, missing [][]byte) error {
	if have == 0 {
		tmp := path.Join(stateDir, "tmp-"+rand.Text())
		if err := t.root.MkdirAll(tmp, 0o755); err != nil {
			return err
		}
		defer t.root.RemoveAll(tmp)
		for i, b := range missing {
			if err := t.create(path.Join(tmp, fmt.Sprintf("signature-%d", i+1)), b); err != nil {
				return err
			}
		}
		if err := errors.Join(t.root.Chmod(tmp, 0o755), t.parents(dir)); err != nil {
			return err
		}
		err := t.root.Rename(tmp, dir)
		if err == nil {
			return t.sync(path.Dir(dir))
		}
		if _, statErr := t.root.Stat(dir); statErr != nil {
			return err
		}
		// An empty or foreign directory is there: file by file.
	}
	for i, b := range missing {
		if err := t.write(path.Join(dir, fmt.Sprintf("signature-%d", have+i+1)), b); err != nil {
			return err
		}
	}
	return t.sync(dir)
}

// without returns the entries of list that are not in have, each once.
func without(list, have [][]byte) (out [][]byte) {
	for _, b := range list {
		if !slices.ContainsFunc(slices.Concat(have, out), func(h []byte) bool { return bytes.Equal(h, b) }) {
			out = append(out, b)
		}
	}
	return out
}

func (t *Tree) write(name string, b []byte) error {
	if err := t.root.MkdirAll(stateDir, 0o755); err != nil {
		return err
	}
	tmp := path.Join(stateDir, "tmp-"+rand.Text())
	defer func() { _ = t.root.Remove(tmp) }()
	if err := t.create(tmp, b); err != nil {
		return err
	}
	return t.root.Rename(tmp, name)
}

// create writes and syncs a new file, readable for everybody: runtimes of other users read the tree.
func (t *Tree) create(name string, b []byte) error {
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
}

// parents makes the directories above dir, readable for everybody whatever the umask is.
func (t *Tree) parents(dir string) error {
	for i, c := range dir {
		if c != '/' {
			continue
		}
		err := t.root.Mkdir(dir[:i], 0o755)
		if err == nil {
			err = t.root.Chmod(dir[:i], 0o755)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func (t *Tree) sync(dir string) error {
	d, err := t.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// record is the content of an image that is named by digest, and so can't change.
type record struct {
	Image      string          `json:"image"`
	Repository string          `json:"repository"`
	Digest     string          `json:"digest"`
	Manifests  []verify.Signed `json:"manifests"`
}

func recordName(image string) string {
	return path.Join(stateDir, digest.FromString(image).Encoded()+".json")
}

func (t *Tree) recorded(image string) (r record, ok bool) {
	b, err := bounded.ReadRegular(t.root.OpenFile, recordName(image), maxState)
	if err != nil || json.Unmarshal(b, &r) != nil || r.Image != image || len(r.Manifests) == 0 {
		return record{}, false
	}
	want := ref.Digest(image)
	if r.Digest != want || r.Manifests[0].Digest != want {
		return record{}, false
	}
	for _, m := range r.Manifests {
		parsed, err := digest.Parse(m.Digest)
		if err != nil || parsed.Algorithm().FromBytes(m.Manifest) != parsed {
			return record{}, false
		}
	}
	return r, true
}

func (t *Tree) keep(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return t.write(recordName(r.Image), b)
}

// Sweep removes unfinished files of an earlier run. Nobody else may write to the tree.
func (t *Tree) Sweep() error {
	entries, err := fs.ReadDir(t.root.FS(), stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "tmp-") {
			err = errors.Join(err, t.root.RemoveAll(path.Join(stateDir, e.Name())))
		}
	}
	return err
}
