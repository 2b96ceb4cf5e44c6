package verify

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// lookup finds the section that the library uses alone for ref, and names the more general ones that it hides, in the
// order in which they would be next.
func (p *Policy) lookup(ref types.ImageReference) (scope verdict.Scope, reqs []policy.Requirement,
	hidden []verdict.Scope,
) {
	transport := ref.Transport().Name()
	found := false
	take := func(name, matched string, r []policy.Requirement) {
		s := verdict.Scope{Transport: transport, Name: name, Matched: matched}
		if found {
			hidden = append(hidden, s)
			return
		}
		scope, reqs, found = s, r, true
	}
	if sections, ok := p.doc.Transports[transport]; ok {
		for i, name := range append(library.Scopes(ref), "") {
			if r, ok := sections[name]; ok {
				take(name, matchKind(ref, i, name), r)
			}
		}
	}
	take("", "default", p.doc.Default)
	return scope, reqs, hidden
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

// section is a list of requirements ready to be evaluated, with all keys read.
type section struct {
	scope        verdict.Scope
	hidden       []verdict.Scope
	requirements []*requirement
}

// requirement is one entry of a section. Its keys have been read; library is the entry with the keys in it, nil if a
// key is missing or unusable.
type requirement struct {
	policy.Requirement
	library signature.PolicyRequirement
	keys    key.Index
	// keyFiles are reported instead of fingerprints when the files couldn't be read.
	keyFiles []string
	// verifiers are the public keys of a sigstoreSigned requirement, PEM; none where certificates name the keys.
	verifiers [][]byte
	// ringData is the content of the one key file of a signedBy requirement; nil if there are several.
	ringData []byte
	// reason is set if the requirement can't be evaluated because of its configuration: KeyMissing, KeyUnreadable or
	// WeakOrUnsupported.
	reason  verdict.Reason
	message string
}

// section returns the section for ref, prepared once.
func (p *Policy) section(ref types.ImageReference) (*section, error) {
	scope, reqs, hidden := p.lookup(ref)
	key := scope.Transport + "\x00" + scope.Matched + "\x00" + scope.Name
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.sections[key]; ok {
		// What is hidden depends on the image: "hidden" must not be taken from another one.
		return &section{scope: scope, hidden: hidden, requirements: s.requirements}, nil
	}
	s := &section{scope: scope, hidden: hidden}
	for _, req := range reqs {
		r, err := p.prepare(req)
		if err != nil {
			return nil, err
		}
		s.requirements = append(s.requirements, r)
	}
	p.sections[key] = s
	return s, nil
}

// prepare reads the keys of a requirement and makes the library's form of it.
func (p *Policy) prepare(req policy.Requirement) (*requirement, error) {
	r := &requirement{Requirement: req}
	switch {
	case r.Type == policy.SignedBaseLayer:
		r.reason, r.message = verdict.WeakOrUnsupported,
			"requirements of type signedBaseLayer were never implemented and refuse every image"
		return r, nil
	case r.Type == policy.SignedBy && r.KeyType != policy.GPGKeys:
		r.reason, r.message = verdict.WeakOrUnsupported,
			fmt.Sprintf("keyType %q was never implemented and refuses every image", r.KeyType)
		return r, nil
	}
	blobs, err := p.inlineKeys(&req)
	var bad *keyError
	switch {
	case errors.As(err, &bad):
		r.reason, r.message = bad.reason, bad.Error()
		r.keyFiles = r.Keys().Files()
		return r, nil
	case err != nil:
		return nil, err
	}
	if r.Type == policy.SignedBy {
		if len(r.KeyData) > 0 {
			blobs = [][]byte{key.Public(r.KeyData)}
			req.KeyData = blobs[0]
		}
		if r.readKeys(blobs); r.reason != "" {
			return r, nil
		}
	}
	if r.Type == policy.SigstoreSigned {
		r.verifiers = append(blobs, r.Keys().Inline()...)
		r.keyFiles = r.Keys().Files()
		for _, b := range blobs {
			if block, _ := pem.Decode(b); block == nil {
				r.reason, r.message = verdict.KeyUnreadable, "no PEM public key inside "+r.keySource()
				return r, nil
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

// readKeys says which keys are in the key files of a signedBy requirement.
func (r *requirement) readKeys(blobs [][]byte) {
	var err error
	r.keys, err = mechanism.Keys(blobs)
	if len(r.keys.Primary) == 0 && err == nil { // else the library is to say what is wrong with the mechanism
		r.reason, r.message = verdict.KeyUnreadable, "no public key inside "+r.keySource()
		return
	}
	if len(blobs) == 1 {
		r.ringData = blobs[0]
	}
}

// keyNames are the fingerprints, or the paths where no fingerprint is known.
func (r *requirement) keyNames() []string {
	if len(r.keys.Primary) > 0 {
		return r.keys.Primary
	}
	return r.keyFiles
}

func (r *requirement) keySource() string {
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

// keyError says that a key file can't be used: KeyMissing (not there, or this process may not read it) or
// KeyUnreadable (no runtime can read it).
type keyError struct {
	reason verdict.Reason
	err    error
}

func (e *keyError) Error() string { return e.err.Error() }

// inlineKeys replaces every path in a requirement by what the file holds, and returns the contents of keyPath or
// keyPaths. The library would open the paths as they are written, which is wrong for a host whose root is elsewhere.
func (p *Policy) inlineKeys(r *policy.Requirement) (keys [][]byte, err error) {
	if r.Fulcio != nil { // which the policy's own requirement points to as well
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
			data, err := p.readKey(path)
			if err != nil {
				return nil, err
			}
			contents = append(contents, append([]byte{}, data...))
		}
		switch {
		case len(contents) == 0:
		case *s.Path != "":
			*s.Path, *s.Data = "", contents[0]
		case r.Type == policy.SignedBy: // it knows no keyDatas
			if *s.Paths, err = p.copyKeys(contents); err != nil {
				return nil, err
			}
		default:
			*s.Paths, *s.Datas = nil, contents
		}
		if i == 0 {
			keys = contents
		}
	}
	return keys, nil
}

// copyKeys writes key files below the policy's temporary directory.
func (p *Policy) copyKeys(contents [][]byte) (paths []string, err error) {
	for _, data := range contents {
		f, err := os.CreateTemp(p.tmp, "key-")
		if err != nil {
			return nil, err
		}
		_, err = f.Write(data)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		paths = append(paths, f.Name())
	}
	return paths, nil
}

// readKey reads a key file, once: what a fingerprint was made of is what judges.
func (p *Policy) readKey(path string) ([]byte, error) {
	p.keyFilesMu.Lock()
	defer p.keyFilesMu.Unlock()
	k, ok := p.keyFiles[path]
	if !ok {
		k.data, k.err = p.readKeyFile(path)
		p.keyFiles[path] = k
	}
	return k.data, k.err
}

func (p *Policy) readKeyFile(path string) ([]byte, error) {
	host, name := p.host, path
	if other, ok := p.source.Keys[path]; ok {
		host, name = hostfs.ThisMachine, other
	}
	data, err := host.ReadFile(name, maxConfigFile)
	switch {
	case err == nil:
		return key.Public(data), nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, &keyError{verdict.KeyMissing, fmt.Errorf("key file %s does not exist", name)}
	case errors.Is(err, fs.ErrPermission):
		return nil, &keyError{verdict.KeyMissing, fmt.Errorf("key file %s cannot be read by this process: %w", name, err)}
	}
	return nil, &keyError{verdict.KeyUnreadable, fmt.Errorf("key file: %w", err)}
}

// with returns a policy in which the section that the library uses for ref holds just these requirements. The library
// still looks the section up by itself.
func (p *Policy) with(scope verdict.Scope, reqs ...signature.PolicyRequirement) *signature.Policy {
	out := *p.library
	if scope.Matched == "default" {
		out.Default = reqs
		return &out
	}
	out.Transports = make(map[string]signature.PolicyTransportScopes, len(p.library.Transports))
	for t, sections := range p.library.Transports {
		if t == scope.Transport {
			c := make(signature.PolicyTransportScopes, len(sections))
			for name, r := range sections {
				c[name] = r
			}
			c[scope.Name] = reqs
			sections = c
		}
		out.Transports[t] = sections
	}
	return &out
}
