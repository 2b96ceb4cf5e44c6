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

type source struct {
	path string
	data []byte // nil if unknown
	sum  string
}

// keySet is the keys of one requirement.
type keySet struct {
	sources []source
	// ids name the valid keys and their files: fingerprints of OpenPGP keys and subkeys, digests of anything else.
	ids []keyID
	// dead are invalid OpenPGP keys, by fingerprint.
	dead map[string]key.State
	// unclear is the reason why the content of the sources is unknown.
	unclear string
}

type keyID struct {
	id    string
	paths []string
}

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

// first returns the first key of a PEM file, the one that readers use, and other files by their content: two
// certificates of one key may differ in worth.
func (s source) first() string {
	if f, err := key.Read(s.data); err == nil && f.Kind == key.PublicKey {
		return f.Keys[0].Fingerprint
	}
	return "sha256:" + s.sum
}

// sum returns the digest of what readers use of a file: an OpenPGP key without its armor, a PEM file without
// surrounding white space.
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

// judge reads the sources as OpenPGP key files, which are read together. Valid are the keys whose signatures GnuPG
// accepts at the time. Without a time the valid keys are unknown.
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

// empty reports whether nobody can sign.
func (s keySet) empty() bool {
	return s.unclear == "" && len(s.ids) == 0 && !s.unread()
}

func (s keySet) unread() bool {
	return slices.ContainsFunc(s.sources, func(src source) bool { return src.data == nil })
}

// names reports whether a source with unknown content has the path.
func (s keySet) names(path string) bool {
	return slices.ContainsFunc(s.sources, func(src source) bool { return src.data == nil && src.path == path })
}

// same reports whether both sets have the same sources, by content, or by path if the content of one is unknown.
func (s keySet) same(t keySet) bool {
	return slices.EqualFunc(s.sources, t.sources, func(x, y source) bool {
		if x.data != nil && y.data != nil {
			return x.sum == y.sum
		}
		return x.path == y.path
	})
}

// lacks returns the keys of s, of policy b, that t, of policy a, lacks or may lack.
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
