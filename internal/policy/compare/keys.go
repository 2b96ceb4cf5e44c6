package compare

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
)

// source is a key file, or inline key data.
type source struct {
	path string
	data []byte // nil if the content is not known
	sum  string
}

// keySet is what one requirement accepts signatures of.
type keySet struct {
	sources []source
	// ids name the keys that count, and where they are from: fingerprints of OpenPGP keys and subkeys, digests of
	// anything else.
	ids []keyID
	// dead are OpenPGP keys that don't count, by fingerprint.
	dead map[string]key.State
	// unclear says why it is not known what the content of the sources amounts to.
	unclear string
}

// keyID is a key, and the paths of the files that hold it.
type keyID struct {
	id    string
	paths []string
}

// set gathers keys each of which counts.
func (k keys) set(named policy.KeySource) (s keySet) {
	for _, p := range named.Files() {
		if p != "" {
			s.sources = append(s.sources, k.file(p))
		}
	}
	for _, d := range named.Inline() {
		if len(d) > 0 {
			s.sources = append(s.sources, source{data: d, sum: sum(d)})
		}
	}
	for _, src := range s.sources {
		if src.data != nil {
			s.ids = append(s.ids, keyID{src.first(), src.paths()})
		}
	}
	return s
}

func (k keys) file(path string) source {
	if s, ok := k.files[path]; ok {
		return s
	}
	s := source{path: path}
	if k.read != nil {
		if b, err := k.read(path); err == nil {
			s.data, s.sum = append([]byte{}, b...), sum(b)
		}
	}
	k.files[path] = s
	return s
}

func (s source) paths() []string {
	if s.path == "" {
		return nil
	}
	return []string{s.path}
}

// first names the key of a PEM file: readers take the first. Anything else is named by its content: two certificates
// of one key may be worth different things.
func (s source) first() string {
	if f, err := key.Read(s.data); err == nil && f.Kind == key.PublicKey {
		return f.Keys[0].Fingerprint
	}
	return "sha256:" + s.sum
}

// sum is the digest of what readers take of a file: of an OpenPGP key without its armor, of a PEM file without the
// white space around.
func sum(data []byte) string {
	switch f, err := key.Read(data); {
	case err != nil:
	case f.Kind != key.OpenPGP:
		data = bytes.TrimSpace(data)
	case f.Plain:
		data = f.Binary
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// judge takes the sources for OpenPGP key files, which are read together: those keys count whose signatures GnuPG
// takes at a time. Without a time it is not known which.
func (s *keySet) judge(at time.Time) {
	s.ids = nil
	var files [][]byte
	for _, src := range s.sources {
		if src.data != nil {
			files = append(files, src.data)
		}
	}
	if len(files) == 0 {
		return
	}
	if at.IsZero() {
		s.unclear = "the time is not known"
		return
	}
	signers, err := key.Signers(files, at)
	if err != nil {
		s.unclear = err.Error()
		return
	}
	s.dead = map[string]key.State{}
	for _, k := range signers {
		if k.State != key.Usable {
			s.dead[k.Fingerprint] = k.State
			continue
		}
		s.ids = append(s.ids, keyID{k.Fingerprint, s.holding(k.Primary)})
	}
}

// holding are the paths of the files that hold an OpenPGP key.
func (s *keySet) holding(fingerprint string) (paths []string) {
	for _, src := range s.sources {
		if f, err := key.Read(src.data); err == nil && src.path != "" {
			if _, ok := f.Find(fingerprint); ok {
				paths = append(paths, src.path)
			}
		}
	}
	return paths
}

// empty says that nobody can sign.
func (s keySet) empty() bool {
	return s.unclear == "" && len(s.ids) == 0 && !s.unread()
}

// unread reports whether the content of a file is not known.
func (s keySet) unread() bool {
	return slices.ContainsFunc(s.sources, func(src source) bool { return src.data == nil })
}

// names reports whether a file of the path is one of the sources whose content is not known.
func (s keySet) names(path string) bool {
	return slices.ContainsFunc(s.sources, func(src source) bool { return src.data == nil && src.path == path })
}

// same reports whether both sets are made of the same sources. Key files of one path are taken to be the same only
// where the content of one of them isn't known.
func (s keySet) same(t keySet) bool {
	return slices.EqualFunc(s.sources, t.sources, func(x, y source) bool {
		if x.data != nil && y.data != nil {
			return x.sum == y.sum
		}
		return x.path == y.path
	})
}

// lacks returns the keys of s, of policy b, that t, of policy a, surely or possibly doesn't have.
func (s keySet) lacks(t keySet, a, b string) gap {
	if s.same(t) || s.empty() {
		return gap{}
	}
	for _, side := range []struct{ unclear, name string }{{s.unclear, b}, {t.unclear, a}} {
		if side.unclear != "" {
			return gap{fmt.Sprintf("it can't be told which keys count in %s (%s)", side.name, side.unclear), true}
		}
	}
	var out []string
	onlyDead := true
	for _, src := range s.sources {
		if src.data == nil && !slices.ContainsFunc(t.sources, func(u source) bool { return u.path == src.path }) {
			out, onlyDead = append(out, src.path), false
		}
	}
	for _, k := range s.ids {
		has := slices.ContainsFunc(t.ids, func(u keyID) bool { return u.id == k.id })
		if has || slices.ContainsFunc(k.paths, t.names) {
			continue
		}
		state, dead := t.dead[k.id]
		if dead {
			out = append(out, fmt.Sprintf("%s, which is %s in %s", k.id, state, a))
			continue
		}
		out, onlyDead = append(out, k.id), false
	}
	switch {
	case len(out) == 0:
		return gap{}
	case onlyDead:
		return gap{why: fmt.Sprintf("%s accepts key %s", b, strings.Join(out, " and key "))}
	}
	note := ""
	if s.unread() != t.unread() {
		note = " (the content of a key file is not known)"
	}
	return gap{why: fmt.Sprintf("%s accepts keys that %s does not have: %s%s", b, a, strings.Join(out, ", "), note)}
}

// String names the sources: a file by its path, other keys by their fingerprints.
func (s keySet) String() string {
	var out []string
	for _, src := range s.sources {
		switch {
		case src.path != "":
			out = append(out, src.path)
		default:
			out = append(out, src.keyNames()...)
		}
	}
	return strings.Join(out, "|")
}

func (s source) keyNames() (out []string) {
	f, err := key.Read(s.data)
	if err != nil || f.Kind == key.Certificate {
		return []string{"sha256:" + s.sum}
	}
	for _, k := range f.Keys {
		out = append(out, k.Fingerprint)
	}
	if f.Kind == key.PublicKey {
		out = out[:1]
	}
	return out
}
