// Package requirement finds the section of a policy.json that counts for an image, reads its keys, and has the image
// library evaluate each requirement of the section.
package requirement

import (
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/configuration"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// Policy is a configuration whose requirements are evaluated. It may be used by several goroutines.
type Policy struct {
	*configuration.Configuration
	// Keyrings are the keys that were imported for signatures to come.
	Keyrings *mechanism.Keyrings
	// KeyringDir is where the library makes its gpg keyrings, if the process has a directory for them.
	KeyringDir string
	// Late is true once something goes on that was not waited for.
	Late atomic.Bool

	mu       sync.Mutex
	sections map[string][]*Requirement // by transport and scope
}

// New returns the policy of a configuration, without any keyring.
func New(c *configuration.Configuration) *Policy {
	p := &Policy{Configuration: c, sections: map[string][]*Requirement{}}
	p.Keyrings = mechanism.NewKeyrings(func() (stop func()) { return mechanism.WithoutAgents(p.KeyringDir) })
	return p
}

// lookup finds the section that the library uses alone for ref, and names the more general ones that it hides, in the
// order in which they would be next.
func (p *Policy) lookup(ref types.ImageReference) (s *Section, reqs []policy.Requirement) {
	transport := ref.Transport().Name()
	take := func(name, matched string, r []policy.Requirement) {
		scope := verdict.Scope{Transport: transport, Name: name, Matched: matched}
		if s == nil {
			s, reqs = &Section{Scope: scope}, r
		} else {
			s.Hides = append(s.Hides, scope)
		}
	}
	sections := p.Document.Transports[transport]
	for i, name := range append(library.Scopes(ref), "") {
		if r, ok := sections[name]; ok {
			take(name, matchKind(ref, i, name), r)
		}
	}
	take("", "default", p.Document.Default)
	return s, reqs
}

// matchKind says how the i-th scope that is tried matches.
func matchKind(ref types.ImageReference, i int, name string) string {
	switch {
	case name == "":
		return "transport-default"
	case i == 0:
		return "exact"
	case strings.HasPrefix(name, "*."):
		return "wildcard"
	case ref.DockerReference() != nil && name == ref.DockerReference().Name():
		return "repository"
	case strings.Contains(name, "/"):
		return "namespace"
	}
	return "host"
}

// Section is a list of requirements ready to be evaluated, with all keys read.
type Section struct {
	Scope verdict.Scope
	// Hides are the sections that would apply if this one were not there, the next one first.
	Hides        []verdict.Scope
	Requirements []*Requirement
}

// DemandsSignature reports whether a requirement of the section wants a signature.
func (s *Section) DemandsSignature() bool {
	for _, r := range s.Requirements {
		if policy.VerifiesSignatures(r.Type) {
			return true
		}
	}
	return false
}

// Requirement is one entry of a section. Its keys have been read.
type Requirement struct {
	policy.Requirement
	// GPG are the keys of a signedBy requirement, and Verifiers the public keys of a sigstoreSigned one, PEM; none where
	// certificates name the keys.
	GPG       key.Index
	Verifiers [][]byte
	// RingData is the content of the one key file of a signedBy requirement; nil if there are several.
	RingData []byte
	// Reason is set if the requirement can't be evaluated because of its configuration: KeyMissing, KeyUnreadable or
	// WeakOrUnsupported. Message says it in a sentence.
	Reason  verdict.Reason
	Message string

	library  signature.PolicyRequirement // the entry with the keys in it; nil with a Reason
	keyFiles []string                    // reported instead of fingerprints when the files couldn't be read
}

// Section returns the section for ref, whose requirements are prepared once.
func (p *Policy) Section(ref types.ImageReference) (*Section, error) {
	s, reqs := p.lookup(ref)
	id := s.Scope.Transport + "\x00" + s.Scope.Matched + "\x00" + s.Scope.Name
	p.mu.Lock()
	defer p.mu.Unlock()
	if ready, ok := p.sections[id]; ok {
		s.Requirements = ready
		return s, nil
	}
	for _, req := range reqs {
		r, err := p.prepare(req)
		if err != nil {
			return nil, err
		}
		s.Requirements = append(s.Requirements, r)
	}
	p.sections[id] = s.Requirements
	return s, nil
}

// unusable returns the requirement as one that can't be evaluated.
func (r *Requirement) unusable(reason verdict.Reason, format string, args ...any) (*Requirement, error) {
	r.Reason, r.Message = reason, fmt.Sprintf(format, args...)
	return r, nil
}

// prepare reads the keys of a requirement and makes the library's form of it.
func (p *Policy) prepare(req policy.Requirement) (*Requirement, error) {
	r := &Requirement{Requirement: req}
	switch {
	case r.Type == policy.SignedBaseLayer:
		return r.unusable(verdict.WeakOrUnsupported,
			"requirements of type signedBaseLayer were never implemented and refuse every image")
	case r.Type == policy.SignedBy && r.KeyType != policy.GPGKeys:
		return r.unusable(verdict.WeakOrUnsupported, "keyType %q was never implemented and refuses every image", r.KeyType)
	}
	blobs, err := p.inlineKeys(&req)
	if bad, ok := errors.AsType[*failure.Error](err); ok {
		r.keyFiles = r.Keys().Files()
		return r.unusable(bad.Reason, "%v", bad)
	}
	if err != nil {
		return nil, err
	}
	switch r.Type {
	case policy.SignedBy:
		if len(r.KeyData) > 0 {
			blobs = [][]byte{key.Public(r.KeyData)}
			req.KeyData = blobs[0]
		}
		r.GPG, err = mechanism.Keys(blobs)
		if len(r.GPG.Primary) == 0 && err == nil { // else the library is to say what is wrong with the mechanism
			return r.unusable(verdict.KeyUnreadable, "no public key inside %s", r.keySource())
		}
		if len(blobs) == 1 {
			r.RingData = blobs[0]
		}
	case policy.SigstoreSigned:
		r.Verifiers = append(blobs, r.Keys().Inline()...)
		r.keyFiles = r.Keys().Files()
		for _, b := range blobs {
			if block, _ := pem.Decode(b); block == nil {
				return r.unusable(verdict.KeyUnreadable, "no PEM public key inside %s", r.keySource())
			}
		}
	}
	b, err := json.Marshal(policy.Document[policy.Requirement]{Default: []policy.Requirement{req}})
	if err != nil {
		return nil, err
	}
	one, err := signature.NewPolicyFromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("reading a requirement back: %w", err)
	}
	r.library = one.Default[0]
	return r, nil
}

// KeyNames returns the fingerprints, or the paths where no fingerprint is known.
func (r *Requirement) KeyNames() []string {
	if len(r.GPG.Primary) > 0 {
		return r.GPG.Primary
	}
	return r.keyFiles
}

// keySource says where the keys are from.
func (r *Requirement) keySource() string {
	switch {
	case r.KeyPath != "":
		return "key file " + r.KeyPath
	case len(r.KeyPaths) > 0:
		return "key files " + strings.Join(r.KeyPaths, ", ")
	case r.Type == policy.SignedBy && len(r.KeyData) == 0:
		return "an empty list of key files"
	}
	return policy.FieldKeyData
}

// inlineKeys replaces every path in a requirement by what the file holds, and returns the contents of keyPath or
// keyPaths. The library would open the paths as they are written, which is wrong for a host whose root is elsewhere.
func (p *Policy) inlineKeys(r *policy.Requirement) (keys [][]byte, err error) {
	if r.Fulcio != nil { // the policy's own requirement points to the same value
		own := *r.Fulcio
		r.Fulcio = &own
	}
	if r.PKI != nil {
		own := *r.PKI
		r.PKI = &own
	}
	for i, s := range r.KeySources() {
		var contents [][]byte
		for _, path := range s.Files() {
			data, err := p.ReadKey(path)
			if err != nil {
				return nil, err
			}
			contents = append(contents, append([]byte{}, data...))
		}
		switch {
		case len(contents) == 0:
		case *s.Path != "":
			*s.Path, *s.Data = "", contents[0]
		case r.Type == policy.SignedBy: // which knows no keyDatas: copies are read
			var paths []string // not those of the policy's own requirement
			for _, data := range contents {
				path := filepath.Join(p.Temp, fmt.Sprintf("key-%x", sha256.Sum256(data)))
				if err := os.WriteFile(path, data, 0o600); err != nil {
					return nil, err
				}
				paths = append(paths, path)
			}
			*s.Paths = paths
		default:
			*s.Paths, *s.Datas = nil, contents
		}
		if i == 0 {
			keys = contents
		}
	}
	return keys, nil
}
