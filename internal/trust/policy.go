package trust

import (
	"encoding/json"
	"fmt"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/templates"
)

// The grammar of policy.json as far as it is written. The structs are nodetrust's own because the image library, which
// defines it, is not linked here; tests hold them against it.
type (
	policy struct {
		Default    []requirement                       `json:"default"`
		Transports map[string]map[string][]requirement `json:"transports"`
	}

	requirement struct {
		Type string `json:"type"`

		KeyType  string   `json:"keyType,omitempty"`
		KeyPath  string   `json:"keyPath,omitempty"`
		KeyPaths []string `json:"keyPaths,omitempty"`
		KeyData  []byte   `json:"keyData,omitempty"`
		KeyDatas [][]byte `json:"keyDatas,omitempty"`

		Fulcio *fulcio `json:"fulcio,omitempty"`
		PKI    *pki    `json:"pki,omitempty"`

		RekorPublicKeyPath  string   `json:"rekorPublicKeyPath,omitempty"`
		RekorPublicKeyPaths []string `json:"rekorPublicKeyPaths,omitempty"`
		RekorPublicKeyData  []byte   `json:"rekorPublicKeyData,omitempty"`
		RekorPublicKeyDatas [][]byte `json:"rekorPublicKeyDatas,omitempty"`

		SignedIdentity *signedIdentity `json:"signedIdentity,omitempty"`
	}

	fulcio struct {
		CAPath       string `json:"caPath,omitempty"`
		CAData       []byte `json:"caData,omitempty"`
		OIDCIssuer   string `json:"oidcIssuer"`
		SubjectEmail string `json:"subjectEmail"`
	}

	pki struct {
		CARootsPath         string `json:"caRootsPath,omitempty"`
		CARootsData         []byte `json:"caRootsData,omitempty"`
		CAIntermediatesPath string `json:"caIntermediatesPath,omitempty"`
		CAIntermediatesData []byte `json:"caIntermediatesData,omitempty"`
		SubjectEmail        string `json:"subjectEmail,omitempty"`
		SubjectHostname     string `json:"subjectHostname,omitempty"`
	}

	signedIdentity struct {
		Type             string `json:"type"`
		DockerReference  string `json:"dockerReference,omitempty"`
		DockerRepository string `json:"dockerRepository,omitempty"`
		Prefix           string `json:"prefix,omitempty"`
		SignedPrefix     string `json:"signedPrefix,omitempty"`
	}
)

func plain(reject bool) []requirement {
	if reject {
		return []requirement{{Type: "reject"}}
	}
	return []requirement{{Type: "insecureAcceptAnything"}}
}

// policy returns policy.json.
//
// The transport docker-daemon is always accepted, as in every vendor's policy: it is the local daemon's storage. With
// default: reject, so are the other places that are local to the node, containers-storage (podman save and image
// scanners read it), directories and archives: the default is about what registries send, and whoever can make root's
// tools read a local file can as well edit the policy.
func (c *Config) policy() ([]byte, error) {
	docker := map[string][]requirement{}
	for _, r := range c.Registries {
		docker[r.Scope] = c.requirements(r)
	}
	if err := c.carve(docker); err != nil {
		return nil, err
	}
	p := policy{
		Default:    plain(c.Reject),
		Transports: map[string]map[string][]requirement{"docker-daemon": {"": plain(false)}},
	}
	if c.Reject {
		for _, local := range []string{"containers-storage", "dir", "docker-archive", "oci", "oci-archive"} {
			p.Transports[local] = map[string][]requirement{"": plain(false)}
		}
	}
	if len(docker) > 0 {
		p.Transports["docker"] = docker
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// carve gives each refuse-canary a scope of its own, which demands a signature by the key that never signs.
func (c *Config) carve(docker map[string][]requirement) error {
	refused := c.refused()
	if len(refused) == 0 {
		return nil
	}
	f, err := key.Parse(templates.CanaryKey)
	if err != nil {
		return fmt.Errorf("parsing the canary key: %w", err)
	}
	for _, canary := range refused {
		docker[canary.Image] = []requirement{{
			Type:           "signedBy",
			KeyType:        "GPGKeys",
			KeyData:        f.Binary,
			SignedIdentity: &signedIdentity{Type: MatchRepository},
		}}
	}
	return nil
}

func (c *Config) requirements(r Registry) []requirement {
	if r.Rule != RuleSigned {
		return plain(r.Rule == RuleReject)
	}
	var out []requirement
	for _, q := range r.Requirements {
		out = append(out, c.requirement(q))
	}
	return out
}

func (c *Config) requirement(q Requirement) requirement {
	id := &signedIdentity{
		q.Identity.Type, q.Identity.Reference, q.Identity.Repository, q.Identity.Prefix,
		q.Identity.SignedPrefix,
	}
	if s := q.Sigstore; s != nil {
		return c.sigstoreSigned(s, id)
	}
	out := requirement{Type: "signedBy", KeyType: "GPGKeys", SignedIdentity: id}
	out.KeyPath, out.KeyPaths = oneOrMore(c.paths(q.SignedBy))
	for _, name := range q.SignedBy {
		out.KeyData = append(out.KeyData, inline(c.key(name))...)
	}
	return out
}

func (c *Config) sigstoreSigned(s *Sigstore, id *signedIdentity) requirement {
	out := requirement{Type: "sigstoreSigned", SignedIdentity: id}
	out.KeyPath, out.KeyPaths = oneOrMore(c.paths(s.Keys))
	out.KeyData, out.KeyDatas = oneOrMore(c.contents(s.Keys))
	out.RekorPublicKeyPath, out.RekorPublicKeyPaths = oneOrMore(c.paths(s.Rekor))
	out.RekorPublicKeyData, out.RekorPublicKeyDatas = oneOrMore(c.contents(s.Rekor))
	if f := s.Fulcio; f != nil {
		out.Fulcio = &fulcio{c.key(f.CA).Path, inline(c.key(f.CA)), f.OIDCIssuer, f.SubjectEmail}
	}
	if p := s.PKI; p != nil {
		roots, more := c.key(p.Roots), c.key(p.Intermediates)
		out.PKI = &pki{roots.Path, inline(roots), more.Path, inline(more), p.SubjectEmail, p.SubjectHostname}
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

// oneOrMore uses the singular field wherever it is enough: older readers know no other.
func oneOrMore[T any](all []T) (one T, more []T) {
	if len(all) == 1 {
		return all[0], nil
	}
	return one, all
}

// inline is what stands in keyData: PEM as it is, of OpenPGP the packets of all keys that gpg 2.2 can load. It would
// lose others along with one that it can't.
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
