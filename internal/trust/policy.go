package trust

import (
	"encoding/json"
	"fmt"

	"github.com/nodetrust/nodetrust/internal/verdict"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/templates"
)

func plain(reject bool) []policy.Requirement {
	if reject {
		return []policy.Requirement{{Type: policy.Reject}}
	}
	return []policy.Requirement{{Type: policy.InsecureAcceptAnything}}
}

// policy returns policy.json.
//
// It always accepts docker-daemon, the local daemon's storage, as every vendor's policy does. With default: reject it
// also accepts other local places: containers-storage (podman save and image scanners read it), directories and
// archives. The default is about registries, and whoever can make root's tools read a local file can also edit the
// policy.
func (c *Config) policy() ([]byte, error) {
	p := &policy.Document[policy.Requirement]{Default: plain(c.Reject)}
	p.Set(policy.Place{Transport: policy.DockerDaemon}, plain(false))
	if c.Reject {
		for _, local := range []string{policy.ContainersStorage, "dir", "docker-archive", "oci", "oci-archive"} {
			p.Set(policy.Place{Transport: local}, plain(false))
		}
	}
	for _, r := range c.Registries {
		p.Set(policy.Place{Transport: policy.Docker, Scope: r.Scope}, c.requirements(r))
	}
	if err := c.addCanaryScopes(p); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// addCanaryScopes gives each refuse-canary a scope of its own, which demands a signature by the key that never signs.
func (c *Config) addCanaryScopes(p *policy.Document[policy.Requirement]) error {
	f, err := key.Parse(templates.CanaryKey)
	if err != nil {
		return fmt.Errorf("parsing the canary key: %w", err)
	}
	for _, canary := range c.Canaries {
		if canary.Expect != verdict.Refuse {
			continue
		}
		p.Set(policy.Place{Transport: policy.Docker, Scope: canary.Image}, []policy.Requirement{{
			Type:           policy.SignedBy,
			KeyType:        policy.GPGKeys,
			KeyData:        f.Binary,
			SignedIdentity: &policy.Identity{Type: policy.MatchRepository},
		}})
	}
	return nil
}

func (c *Config) requirements(r Registry) []policy.Requirement {
	if r.Rule != RuleSigned {
		return plain(r.Rule == RuleReject)
	}
	var out []policy.Requirement
	for _, q := range r.Requirements {
		out = append(out, c.requirement(q))
	}
	return out
}

func (c *Config) requirement(q Requirement) policy.Requirement {
	if s := q.Sigstore; s != nil {
		return c.sigstoreSigned(s, &q.Identity)
	}
	out := policy.Requirement{Type: policy.SignedBy, KeyType: policy.GPGKeys, SignedIdentity: &q.Identity}
	out.KeyPath, out.KeyPaths = oneOrMore(c.paths(q.SignedBy))
	for _, name := range q.SignedBy {
		out.KeyData = append(out.KeyData, inline(c.key(name))...)
	}
	return out
}

func (c *Config) sigstoreSigned(s *Sigstore, id *policy.Identity) policy.Requirement {
	out := policy.Requirement{Type: policy.SigstoreSigned, SignedIdentity: id}
	out.KeyPath, out.KeyPaths = oneOrMore(c.paths(s.Keys))
	out.KeyData, out.KeyDatas = oneOrMore(c.contents(s.Keys))
	out.RekorPublicKeyPath, out.RekorPublicKeyPaths = oneOrMore(c.paths(s.Rekor))
	out.RekorPublicKeyData, out.RekorPublicKeyDatas = oneOrMore(c.contents(s.Rekor))
	if f := s.Fulcio; f != nil {
		out.Fulcio = &policy.Fulcio{
			CAPath: c.key(f.CA).Path, CAData: inline(c.key(f.CA)), OIDCIssuer: f.OIDCIssuer, SubjectEmail: f.SubjectEmail,
		}
	}
	if p := s.PKI; p != nil {
		roots, more := c.key(p.Roots), c.key(p.Intermediates)
		out.PKI = &policy.PKI{
			CARootsPath: roots.Path, CARootsData: inline(roots),
			CAIntermediatesPath: more.Path, CAIntermediatesData: inline(more),
			SubjectEmail: p.SubjectEmail, SubjectHostname: p.SubjectHostname,
		}
	}
	return out
}

// paths and contents: of the keys of one any-of either all have a path or none.
func (c *Config) paths(names []string) (out []string) {
	for _, name := range names {
		if k := c.key(name); k.Path != "" {
			out = append(out, k.Path)
		}
	}
	return out
}

func (c *Config) contents(names []string) (out [][]byte) {
	for _, name := range names {
		if b := inline(c.key(name)); b != nil {
			out = append(out, b)
		}
	}
	return out
}

// oneOrMore uses the singular field for one key: older readers know no other.
func oneOrMore[T any](all []T) (one T, more []T) {
	if len(all) == 1 {
		return all[0], nil
	}
	return one, all
}

// inline returns keyData: PEM as it is, of OpenPGP the keys that gpg 2.2 can load. It would lose others along with one
// that it can't.
func inline(k Key) []byte {
	if k.File == nil {
		return nil
	}
	if k.File.Kind != key.OpenPGP {
		return k.File.Binary
	}
	var out []byte
	for _, kk := range k.File.Keys {
		if kk.Version == 4 {
			out = append(out, kk.Data...)
		}
	}
	return out
}
