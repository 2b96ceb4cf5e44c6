package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Limits of Parse. Readers of trust.yaml and key files should stop there too.
const (
	MaxConfig   = 1 << 20
	MaxKeyFile  = key.MaxFile
	maxCanaries = 64
)

// Parse reads and validates a trust config. Messages have its name. Parse reads key files (spec.keys[].file) with
// read, which takes the path as written; it may be nil without key files.
//
// A *Config is complete and consistent; Files checks whether all readers understand it. The error is Problems: all of
// them, not just the first.
func Parse(name string, data []byte, read func(path string) ([]byte, error)) (*Config, error) {
	p := &parser{walker: walker{file: name}, read: read, cfg: &Config{File: name}}
	if len(data) > MaxConfig {
		p.addf(0, "", "is larger than %d bytes", MaxConfig)
		return nil, p.problems
	}
	if doc := p.document(data); doc != nil {
		p.root(doc)
		p.validate()
	}
	if err := p.problems.err(); err != nil {
		return nil, err
	}
	return p.cfg, nil
}

type parser struct {
	walker
	read func(path string) ([]byte, error)
	cfg  *Config
	// canaryLines are parallel to cfg.Canaries.
	canaryLines []int
}

func (p *parser) root(n *yaml.Node) {
	p.mapping(n, "",
		required("apiVersion", p.exactly(APIVersion)),
		required("kind", p.exactly(ObjectKind)),
		required("metadata", func(n *yaml.Node, at string) {
			p.mapping(n, at, required("name", p.name(&p.cfg.Name)))
		}),
		required("spec", p.spec))
}

func (p *parser) spec(n *yaml.Node, at string) {
	p.mapping(n, at,
		optional("pools", p.pools),
		required("default", func(n *yaml.Node, at string) {
			switch s, ok := p.text(n, at); {
			case !ok:
			case s != "accept" && s != "reject":
				p.addf(n.Line, at, "must be accept or reject, not %q", s)
			default:
				p.cfg.Reject = s == "reject"
			}
		}),
		optional("keys", func(n *yaml.Node, at string) { p.list(n, at, p.key) }),
		optional("registries", func(n *yaml.Node, at string) { p.list(n, at, p.registry) }),
		optional("canaries", func(n *yaml.Node, at string) {
			if len(n.Content) > maxCanaries {
				p.addf(n.Line, at, "has more than %d entries", maxCanaries)
				return
			}
			p.list(n, at, p.canary)
		}))
}

func (p *parser) exactly(want string) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		if s, ok := p.text(n, at); ok && s != want {
			p.addf(n.Line, at, "must be %s, not %q", want, s)
		}
	}
}

// name reads a name that becomes part of the name of a Kubernetes object.
func (p *parser) name(out *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		s, ok := p.text(n, at)
		if ok && !validName(s) {
			p.addf(n.Line, at, "must be a DNS label (lower-case letters, digits and -, at most 63), not %q", s)
			return
		}
		*out = s
	}
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyz0123456789"

func validName(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, alphanumeric+"-") == "" && s[0] != '-' && s[len(s)-1] != '-'
}

func (p *parser) pools(n *yaml.Node, at string) {
	seen := map[string]bool{}
	p.list(n, at, func(n *yaml.Node, at string) {
		var s string
		p.name(&s)(n, at)
		if s == "" {
			return
		}
		if seen[s] {
			p.addf(n.Line, at, "%q is given twice", s)
			return
		}
		seen[s] = true
		p.cfg.Pools = append(p.cfg.Pools, s)
	})
}

func (p *parser) key(n *yaml.Node, at string) {
	k := Key{Line: n.Line}
	var sources []string
	var content []byte
	p.mapping(n, at,
		required("name", func(n *yaml.Node, at string) {
			k.Name = p.keyName(n, at)
			for _, other := range p.cfg.Keys {
				if k.Name != "" && other.Name == k.Name {
					p.addf(n.Line, at, "%q is the name of another key, in line %d", k.Name, other.Line)
				}
			}
		}),
		optional("path", func(n *yaml.Node, at string) {
			sources = append(sources, "path")
			s, ok := p.text(n, at)
			if ok && (!path.IsAbs(s) || path.Clean(s) != s || s == "/" || !printable(s)) {
				p.addf(n.Line, at, "must be the absolute, clean path of a file on the nodes, not %q", s)
			}
			k.Path = s
		}),
		optional("file", func(n *yaml.Node, at string) {
			sources = append(sources, "file")
			if s, ok := p.text(n, at); ok {
				content = p.keyFile(s, n.Line, at)
				k.File = p.keyContent(content, n.Line, at, fmt.Sprintf("%s: ", s))
			}
		}),
		optional("data", func(n *yaml.Node, at string) {
			sources = append(sources, "data")
			if s, ok := p.text(n, at); ok {
				k.File = p.keyContent([]byte(s), n.Line, at, "")
			}
		}),
		optional("fingerprints", func(n *yaml.Node, at string) {
			p.list(n, at, func(n *yaml.Node, at string) { p.fingerprint(&k, n, at) })
		}))
	if len(sources) != 1 {
		p.addf(n.Line, at, "must have exactly one of path, file and data, not %s", countOf(sources))
	}
	p.pinned(k, at)
	p.cfg.Keys = append(p.cfg.Keys, k)
}

// keyName reads a name that stands only in the config itself.
func (p *parser) keyName(n *yaml.Node, at string) string {
	s, ok := p.text(n, at)
	if ok && (len(s) > 63 || strings.Trim(strings.ToLower(s), alphanumeric+"._-") != "") {
		p.addf(n.Line, at, "must consist of at most 63 letters, digits, '.', '_' and '-', not %q", s)
		return ""
	}
	return s
}

func countOf(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " and ")
}

// keyFile returns nil after it added a problem.
func (p *parser) keyFile(name string, line int, at string) []byte {
	if p.read == nil {
		p.addf(line, at, "key files can't be read here; use data")
		return nil
	}
	b, err := p.read(name)
	if large := (*bounded.TooLargeError)(nil); errors.As(err, &large) {
		p.addf(line, at, "%v", err)
		return nil
	}
	if err != nil {
		p.addf(line, at, "reading the key file: %v", err)
		return nil
	}
	if b == nil {
		b = []byte{}
	}
	return b
}

func (p *parser) keyContent(b []byte, line int, at, prefix string) *key.File {
	if b == nil {
		return nil
	}
	f, err := key.Parse(b)
	if err != nil {
		p.addf(line, at, "%s%v", prefix, err)
		return nil
	}
	return f
}

func (p *parser) fingerprint(k *Key, n *yaml.Node, at string) {
	if !p.kind(n, at, yaml.ScalarNode, "a fingerprint") {
		return
	}
	// YAML may take 40 digits for a number: use the text.
	s := strings.ToUpper(strings.NewReplacer(" ", "", ":", "").Replace(n.Value))
	if (len(s) != 40 && len(s) != 64) || strings.Trim(s, "0123456789ABCDEF") != "" {
		p.addf(n.Line, at, "must be a full fingerprint (40 or 64 hex digits), not %q", n.Value)
		return
	}
	k.Fingerprints = append(k.Fingerprints, s)
}

// pinned checks that a shipped key file holds the keys that it should.
func (p *parser) pinned(k Key, at string) {
	if k.File == nil {
		return
	}
	for _, want := range k.Fingerprints {
		var have []string
		for _, kk := range k.File.Keys {
			have = append(have, kk.Fingerprint)
		}
		if !slices.Contains(have, want) {
			p.addf(k.Line, at+".fingerprints", "the key file lacks %s (it holds %s)", want, strings.Join(have, ", "))
		}
	}
}

func (p *parser) registry(n *yaml.Node, at string) {
	r := Registry{Line: n.Line}
	insecure, attachments := false, false
	p.mapping(n, at,
		required("scope", func(n *yaml.Node, at string) { r.Scope = p.scope(n, at, policy.CheckScope) }),
		required("require", func(n *yaml.Node, at string) { p.require(&r, n, at) }),
		optional("lookaside", p.lookaside(&r.Location)),
		optional("insecure", p.bool(&insecure)),
		optional("attachments", func(n *yaml.Node, at string) {
			p.bool(&attachments)(n, at)
			r.Attachments, r.attachAt = &attachments, n.Line
		}),
		optional("mirrors", func(n *yaml.Node, at string) {
			p.list(n, at, func(n *yaml.Node, at string) { p.mirror(&r, n, at) })
		}),
		optional("because", p.string(&r.Because)))
	p.transport(r.Location, insecure, at)
	p.cfg.Registries = append(p.cfg.Registries, r)
}

func (p *parser) mirror(r *Registry, n *yaml.Node, at string) {
	m := Mirror{Line: n.Line}
	insecure, attachments := false, false
	p.mapping(n, at,
		required("location", func(n *yaml.Node, at string) { m.Scope = p.scope(n, at, policy.CheckRepository) }),
		optional("lookaside", p.lookaside(&m.Location)),
		optional("insecure", p.bool(&insecure)),
		optional("attachments", func(n *yaml.Node, at string) {
			p.bool(&attachments)(n, at)
			m.Attachments, m.attachAt = &attachments, n.Line
		}))
	p.transport(m.Location, insecure, at)
	r.Mirrors = append(r.Mirrors, m)
}

// scope returns a scope, or "" after it added a problem.
func (p *parser) scope(n *yaml.Node, at string, check func(string) error) string {
	s, ok := p.text(n, at)
	if !ok {
		return ""
	}
	if err := check(s); err != nil {
		p.addf(n.Line, at, "%q: %v", s, err)
		return ""
	}
	return s
}

func (p *parser) require(r *Registry, n *yaml.Node, at string) {
	switch n.Kind {
	case yaml.SequenceNode:
		r.Rule = RuleSigned
		p.list(n, at, func(n *yaml.Node, at string) { p.requirement(r, n, at) })
	case yaml.ScalarNode:
		if s, ok := p.text(n, at); ok && s != string(RuleAccept) && s != string(RuleReject) {
			p.addf(n.Line, at, "must be accept, reject or a list of requirements, not %q", s)
		}
		r.Rule = Rule(n.Value)
	default:
		p.addf(n.Line, at, "must be accept, reject or a list of requirements")
	}
}

func (p *parser) requirement(r *Registry, n *yaml.Node, at string) {
	q := Requirement{Line: n.Line, Identity: policy.Identity{Type: policy.MatchRepoDigestOrExact}}
	var kinds []string
	p.mapping(n, at,
		optional("signedBy", func(n *yaml.Node, at string) {
			kinds = append(kinds, "signedBy")
			p.strings(&q.SignedBy)(n, at)
		}),
		optional("sigstore", func(n *yaml.Node, at string) {
			kinds = append(kinds, "sigstore")
			q.Sigstore = p.sigstore(n, at)
		}),
		optional("identity", func(n *yaml.Node, at string) { p.identity(&q.Identity, n, at) }))
	if len(kinds) != 1 {
		p.addf(n.Line, at, "must have exactly one of signedBy and sigstore, not %s", countOf(kinds))
	}
	r.Requirements = append(r.Requirements, q)
}

func (p *parser) sigstore(n *yaml.Node, at string) *Sigstore {
	s := &Sigstore{}
	var kinds []string
	p.mapping(n, at,
		optional("keys", func(n *yaml.Node, at string) {
			kinds = append(kinds, "keys")
			p.strings(&s.Keys)(n, at)
		}),
		optional("fulcio", func(n *yaml.Node, at string) {
			kinds = append(kinds, "fulcio")
			s.Fulcio = &Fulcio{}
			p.mapping(n, at, required("ca", p.string(&s.Fulcio.CA)), required("oidcIssuer", p.string(&s.Fulcio.OIDCIssuer)),
				required("subjectEmail", p.string(&s.Fulcio.SubjectEmail)))
		}),
		optional("pki", func(n *yaml.Node, at string) {
			kinds = append(kinds, "pki")
			s.PKI = &PKI{}
			p.mapping(n, at, required("roots", p.string(&s.PKI.Roots)),
				optional("intermediates", p.string(&s.PKI.Intermediates)),
				optional("subjectEmail", p.string(&s.PKI.SubjectEmail)),
				optional("subjectHostname", p.string(&s.PKI.SubjectHostname)))
			if s.PKI.SubjectEmail == "" && s.PKI.SubjectHostname == "" {
				p.addf(n.Line, at, "must have subjectEmail or subjectHostname")
			}
		}),
		optional("rekor", p.strings(&s.Rekor)))
	if len(kinds) != 1 {
		p.addf(n.Line, at, "must have exactly one of keys, fulcio and pki, not %s", countOf(kinds))
	}
	if s.Fulcio != nil && len(s.Rekor) == 0 {
		p.addf(n.Line, at, "fulcio needs rekor: a short-lived certificate proves nothing without the log's time")
	}
	if s.PKI != nil && len(s.Rekor) > 0 {
		p.addf(n.Line, at, "pki can't be combined with rekor")
	}
	return s
}

// identity reads the name of an identity, or a mapping as in policy.json: {type: exactReference, dockerReference: …}.
func (p *parser) identity(id *policy.Identity, n *yaml.Node, at string) {
	if n.Kind != yaml.MappingNode {
		p.plainIdentity(id, n, at)
		return
	}
	*id = policy.Identity{}
	p.mapping(n, at, required(policy.FieldType, p.string(&id.Type)),
		optional(policy.FieldDockerReference, p.string(&id.DockerReference)),
		optional(policy.FieldDockerRepository, p.string(&id.DockerRepository)),
		optional(policy.FieldPrefix, p.string(&id.Prefix)), optional(policy.FieldSignedPrefix, p.string(&id.SignedPrefix)))
	fields := []struct{ name, value, of string }{
		{policy.FieldDockerReference, id.DockerReference, policy.ExactReference},
		{policy.FieldDockerRepository, id.DockerRepository, policy.ExactRepository},
		{policy.FieldPrefix, id.Prefix, policy.RemapIdentity},
		{policy.FieldSignedPrefix, id.SignedPrefix, policy.RemapIdentity},
	}
	if id.Type != "" && !slices.Contains(policy.IdentityTypes(), id.Type) {
		p.unknownIdentity(id.Type, n, at+"."+policy.FieldType)
		return
	}
	for _, f := range fields {
		switch {
		case id.Type == f.of && f.value == "":
			p.addf(n.Line, at+"."+f.name, "is missing: %s needs it", id.Type)
		case id.Type != "" && id.Type != f.of && f.value != "":
			p.addf(n.Line, at+"."+f.name, "is no field of %s", id.Type)
		case id.Type == f.of && f.name == policy.FieldDockerReference:
			if _, tag, digest, err := policy.SplitReference(f.value); err != nil ||
				policy.CheckScope(f.value) != nil || tag == "" && digest == "" {
				p.addf(n.Line, at+"."+f.name, "must be a full reference with a tag or a digest, not %q", f.value)
			}
		case id.Type == f.of && f.name == policy.FieldDockerRepository:
			if err := policy.CheckRepository(f.value); err != nil || !strings.Contains(f.value, "/") {
				p.addf(n.Line, at+"."+f.name, "must be a full repository without tag and digest, not %q", f.value)
			}
		case id.Type == f.of:
			if err := policy.CheckRepository(f.value); err != nil {
				p.addf(n.Line, at+"."+f.name, "must be a host, or a host and a path, not %q", f.value)
			}
		}
	}
}

func (p *parser) plainIdentity(id *policy.Identity, n *yaml.Node, at string) {
	s, ok := p.text(n, at)
	if !ok {
		return
	}
	id.Type = s
	switch {
	case !slices.Contains(policy.IdentityTypes(), s):
		p.unknownIdentity(s, n, at)
	case len(policy.IdentityFields(s)) > 1:
		p.addf(n.Line, at, "%s needs more: write it as in policy.json, for example {type: exactReference, dockerReference: registry.example.com/app:v1}", s)
	}
}

func (p *parser) unknownIdentity(s string, n *yaml.Node, at string) {
	p.addf(n.Line, at, "must be one of %s, not %q", strings.Join(policy.IdentityTypes(), ", "), s)
}

func (p *parser) canary(n *yaml.Node, at string) {
	var c Canary
	p.mapping(n, at,
		required("image", func(n *yaml.Node, at string) {
			s, ok := p.text(n, at)
			if !ok {
				return
			}
			if err := checkCanaryImage(s); err != nil {
				p.addf(n.Line, at, "%v", err)
				return
			}
			c.Image = s
		}),
		required("expect", func(n *yaml.Node, at string) {
			s, ok := p.text(n, at)
			if ok && s != string(verdict.Accept) && s != string(verdict.Refuse) {
				p.addf(n.Line, at, "must be accept or refuse, not %q", s)
				return
			}
			c.Expect = verdict.Answer(s)
		}))
	p.cfg.Canaries = append(p.cfg.Canaries, c)
	p.canaryLines = append(p.canaryLines, n.Line)
}

// checkCanaryImage returns why image can't be a canary, or nil.
func checkCanaryImage(image string) error {
	rest, digest, ok := strings.Cut(image, "@")
	if !ok {
		return fmt.Errorf("%q has no digest: a canary is repository@sha256:…, so that it never changes", image)
	}
	if !policy.IsDigest(digest) || !strings.HasPrefix(digest, "sha256:") {
		return fmt.Errorf("%q: %q is no digest (sha256: and 64 lower-case hex digits)", image, digest)
	}
	if _, tag, _, err := policy.SplitReference(rest); err == nil && tag != "" {
		return fmt.Errorf("%q has both tag and digest: leave out :%s", image, tag)
	}
	if !strings.Contains(rest, "/") {
		return fmt.Errorf("%q has no registry host", image)
	}
	if err := policy.CheckScope(image); err != nil {
		return fmt.Errorf("%q is not fully qualified: %w", image, err)
	}
	return nil
}

// ParseCanaries reads canaries as they stand in canaries.json and in the annotation nodetrust.io/canaries.
func ParseCanaries(data []byte) ([]Canary, error) {
	if len(data) > MaxConfig {
		return nil, fmt.Errorf("canaries are larger than %d bytes", MaxConfig)
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	var out []Canary
	if err := dec.Decode(&out); err != nil {
		return nil, fmt.Errorf("parsing canaries: %w", err)
	}
	if dec.More() {
		return nil, fmt.Errorf("parsing canaries: text after the list")
	}
	if len(out) > maxCanaries {
		return nil, fmt.Errorf("more than %d canaries", maxCanaries)
	}
	seen := map[string]bool{}
	for i, c := range out {
		switch err := checkCanaryImage(c.Image); {
		case err != nil:
			return nil, fmt.Errorf("canary %d: %w", i, err)
		case c.Expect != verdict.Accept && c.Expect != verdict.Refuse:
			return nil, fmt.Errorf("canary %d: expect must be accept or refuse, not %q", i, c.Expect)
		case seen[c.Image]:
			return nil, fmt.Errorf("canary %d: %s is given twice", i, c.Image)
		}
		seen[c.Image] = true
	}
	return out, nil
}
