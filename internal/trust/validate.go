package trust

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// lookaside reads a lookaside URL without a single trailing slash, which would make readers ask for "//repository".
func (p *parser) lookaside(l *Location) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		l.lookasideAt = n.Line
		s, ok := p.text(n, at)
		if !ok {
			return
		}
		if err := checkLookaside(s); err != nil {
			p.addf(n.Line, at, "%v", err)
			return
		}
		l.Lookaside = strings.TrimSuffix(s, "/")
	}
}

func checkLookaside(s string) error {
	u, err := url.Parse(s)
	switch {
	// The text before an @ may be a password: never show it, whatever else is wrong with the URL.
	case strings.Contains(s, "@") && (err != nil || u.User != nil || u.Opaque != "" || !printable(s)):
		return fmt.Errorf("must not hold credentials: every user of a node can read it")
	case err != nil || !printable(s):
		return fmt.Errorf("%q is no URL", s)
	case u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "file":
		return fmt.Errorf("must be an https, http or file URL, not %q", s)
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return fmt.Errorf("must have no query and no fragment: readers append the path of the signature to it")
	case u.Scheme == "file" && (u.Host != "" || len(u.Path) < 2 || u.Path[0] != '/'):
		return fmt.Errorf("must be file:/// and an absolute path, not %q", s)
	case u.Scheme != "file" && (u.Hostname() == "" || u.Opaque != ""):
		return fmt.Errorf("%q has no host", s)
	case strings.Contains(u.Path, "//") || strings.Contains(u.Path+"/", "/../") || strings.Contains(u.Path+"/", "/./"):
		return fmt.Errorf("must have a clean path, not %q", u.Path)
	}
	return nil
}

// transport allows plain http to loopback only, unless the config insists. Signatures can't be forged on their way,
// but removed or replaced by old ones.
func (p *parser) transport(l Location, insecure bool, at string) {
	u, err := url.Parse(l.Lookaside)
	if err != nil || u.Scheme != "http" || insecure || loopback(u.Hostname()) {
		return
	}
	p.addf(l.lookasideAt, at+".lookaside", "must be https or file: http is allowed only to loopback, or with insecure: true")
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (p *parser) validate() {
	byScope := map[string]int{}
	for i, r := range p.cfg.Registries {
		at := fmt.Sprintf("spec.registries[%d]", i)
		if j, ok := byScope[r.Scope]; ok && r.Scope != "" {
			p.addf(r.Line, at+".scope", "%q is also the scope of spec.registries[%d], in line %d", r.Scope, j,
				p.cfg.Registries[j].Line)
		} else {
			byScope[r.Scope] = i
		}
		for j, q := range r.Requirements {
			p.checkRequirement(q, fmt.Sprintf("%s.require[%d]", at, j))
		}
	}
	p.checkLocations()
	for i, r := range p.cfg.Registries {
		p.checkAttachments(r, byScope, fmt.Sprintf("spec.registries[%d]", i))
	}
	p.checkCanaries(byScope)
}

func (p *parser) checkRequirement(q Requirement, at string) {
	p.sameSource(q.SignedBy, key.OpenPGP, q.Line, at+".signedBy")
	s := q.Sigstore
	if s == nil {
		return
	}
	at += ".sigstore"
	p.sameSource(s.Keys, key.PublicKey, q.Line, at+".keys")
	p.sameSource(s.Rekor, key.PublicKey, q.Line, at+".rekor")
	authority := func(name, at string) {
		if name != "" {
			p.sameSource([]string{name}, key.Certificate, q.Line, at)
		}
	}
	if s.Fulcio != nil {
		authority(s.Fulcio.CA, at+".fulcio.ca")
	}
	if s.PKI != nil {
		authority(s.PKI.Roots, at+".pki.roots")
		authority(s.PKI.Intermediates, at+".pki.intermediates")
	}
}

// sameSource checks an any-of of keys: all known, all of the right kind, and all paths or all shipped, because
// policy.json takes either paths or data.
func (p *parser) sameSource(names []string, want key.Kind, line int, at string) {
	var paths, shipped string
	for _, name := range names {
		k := p.cfg.key(name)
		if k.Name == "" {
			p.addf(line, at, "%q is no name in spec.keys", name)
			continue
		}
		if k.Path != "" {
			paths = name
			continue
		}
		shipped = name
		switch f := k.File; {
		case f == nil: // a problem of its own
		case f.Kind != want:
			p.addf(line, at, "%q is a key file of kind %s, not %s", name, f.Kind, want)
		case want == key.PublicKey && len(f.Keys) > 1:
			p.addf(line, at, "%q holds %d public keys, readers take the first only; give each a name of its own", name,
				len(f.Keys))
		case want == key.OpenPGP:
			p.checkVersions(k, line, at)
		}
	}
	if paths != "" && shipped != "" {
		p.addf(line, at, "%q is a path and %q is shipped: policy.json takes either paths or data for one requirement",
			paths, shipped)
	}
}

// checkVersions checks for keys that inline leaves out: they must not be all of a file, or pinned. gpg 2.2, the
// verifier of most readers, stops at the first key of an unknown version and forgets the key before.
func (p *parser) checkVersions(k Key, line int, at string) {
	usable := false
	for _, kk := range k.File.Keys {
		usable = usable || kk.Version == 4
		for _, pin := range k.Fingerprints {
			if pin == kk.Fingerprint && kk.Version != 4 {
				p.addf(line, at, "%q pins %s, an OpenPGP v%d key, which readers that use gpg can't load", k.Name, pin, kk.Version)
			}
		}
	}
	if !usable {
		p.addf(line, at, "%q holds only OpenPGP keys of versions that readers which use gpg can't load", k.Name)
	}
}

// checkLocations checks that each scope, registry or mirror, has one place of signatures only.
func (p *parser) checkLocations() {
	type place struct {
		Location
		at   string
		line int
	}
	seen := map[string]place{}
	note := func(scope string, l Location, line int, at string) {
		if scope == "" {
			return
		}
		old, ok := seen[scope]
		if ok && (old.Lookaside != l.Lookaside || !equal(old.Attachments, l.Attachments)) {
			p.addf(line, at, "%q has another lookaside or attachments than in %s, in line %d", scope, old.at, old.line)
			return
		}
		seen[scope] = place{l, at, line}
	}
	for i, r := range p.cfg.Registries {
		if r.Lookaside != "" || r.Attachments != nil {
			note(r.Scope, r.Location, r.Line, fmt.Sprintf("spec.registries[%d]", i))
		}
	}
	for i, r := range p.cfg.Registries {
		for j, m := range r.Mirrors {
			at := fmt.Sprintf("spec.registries[%d].mirrors[%d]", i, j)
			l := r.mirror(m)
			if l.Lookaside == "" && l.Attachments == nil && l.lookasideAt == 0 {
				p.addf(m.Line, at, "has neither lookaside nor attachments: what is pulled from it would have no signatures")
				continue
			}
			note(m.Scope, l, m.Line, at)
		}
	}
}

// mirror returns where signatures lie in a mirror. Attachments are copied along with the images, so by default the
// mirror has them if the registry has.
func (r Registry) mirror(m Mirror) Location {
	l := m.Location
	if l.Attachments == nil {
		l.Attachments = r.Attachments
	}
	return l
}

func equal(a, b *bool) bool { return a == b || a != nil && b != nil && *a == *b }

// checkAttachments checks scopes for use-sigstore-attachments: without it readers don't look for sigstore signatures,
// and refuse every image.
func (p *parser) checkAttachments(r Registry, byScope map[string]int, at string) {
	sigstore := -1
	for i, q := range r.Requirements {
		if q.Sigstore != nil {
			sigstore = i
		}
	}
	if sigstore < 0 {
		return
	}
	for _, scope := range policy.Chain(policy.Docker, r.Scope) {
		if i, ok := byScope[scope]; ok && p.cfg.Registries[i].Attachments != nil {
			if *p.cfg.Registries[i].Attachments {
				return
			}
			break
		}
	}
	p.addf(r.Requirements[sigstore].Line, at, "sigstore needs attachments: true, else readers don't look for such signatures")
}

func (p *parser) checkCanaries(byScope map[string]int) {
	seen := map[string]int{}
	for i, c := range p.cfg.Canaries {
		at, line := fmt.Sprintf("spec.canaries[%d].image", i), p.canaryLines[i]
		if c.Image == "" || c.Expect == "" {
			continue
		}
		if j, ok := seen[c.Image]; ok {
			if p.cfg.Canaries[j].Expect != c.Expect {
				p.addf(line, at, "%s can't be expected to be accepted and refused (line %d)", c.Image, p.canaryLines[j])
			} else {
				p.addf(line, at, "%s is given twice (line %d)", c.Image, p.canaryLines[j])
			}
			continue
		}
		seen[c.Image] = i
		if c.Expect == verdict.Refuse {
			if j, ok := byScope[c.Image]; ok {
				p.addf(line, at, "is also the scope of spec.registries[%d], in line %d: a refuse-canary gets a scope of its own", j,
					p.cfg.Registries[j].Line)
			}
			continue
		}
		p.checkAcceptCanary(c.Image, byScope, line, at)
	}
}

// checkAcceptCanary checks that the config has an entry that makes the canary accepted. An entry without signatures
// will do: under default: reject, or below a signed scope, it is worth a proof.
func (p *parser) checkAcceptCanary(image string, byScope map[string]int, line int, at string) {
	for _, scope := range policy.Chain(policy.Docker, image) {
		i, ok := byScope[scope]
		if !ok {
			continue
		}
		if r := p.cfg.Registries[i]; r.Rule == RuleReject {
			p.addf(line, at, "would be refused: spec.registries[%d], in line %d, rejects it", i, r.Line)
		}
		return
	}
	if p.cfg.Reject {
		p.addf(line, at, "would be refused: no entry of spec.registries covers it, and spec.default is reject")
		return
	}
	// Valid, as long as default accepts. See Config.Idle.
	p.cfg.idle = append(p.cfg.idle, Problem{
		p.file, line, at,
		"proves nothing: no entry of spec.registries covers it, so every node accepts it",
	})
}
