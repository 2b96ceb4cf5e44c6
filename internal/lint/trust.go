package lint

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/source"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// trustConfig lints a trust.yaml. Its key files are read relative to it.
func (r *runner) trustConfig(name string, data []byte) {
	cfg, err := source.ParseTrust(name, data)
	if err != nil {
		r.problems(name, err)
		r.loadables = append(r.loadables, loadable{name: name, problem: problemText(err)})
		return
	}
	for _, k := range cfg.Keys {
		at := place{name, k.Line, "key " + k.Name}
		if k.File != nil {
			r.shipped(k, at)
			continue
		}
		gpg := len(k.Fingerprints) > 0 || usedByGPG(cfg, k.Name)
		r.addIf(gpg && len(k.Fingerprints) == 0, "key-not-pinned", at,
			"has a path and no fingerprints: whatever an update of the OS puts there is trusted").Hint = "write fingerprints: with what gpg --show-keys says of " + k.Path
		if r.Root != "" {
			r.policyKeys(&policyFacts{keys: []policyKey{{place: at, path: k.Path, gpg: gpg}}}, keysOfHost(r.Root))
			r.pinned(k, at)
		}
	}
	r.trustMeaning(cfg)
	files, err := cfg.Files(r.readers)
	if err != nil {
		r.problems(name, err)
	}
	l := loadable{name: name, config: cfg}
	if files == nil {
		if files, err = cfg.Files(nil); err != nil {
			l.problem = problemText(err)
			r.loadables = append(r.loadables, l)
			return
		}
	}
	r.rendered(&l, files)
	r.trustScopes(cfg, l)
	r.loadables = append(r.loadables, l)
}

// trustScopes tells of entries of cfg what is only known of the rendered files: l.
func (r *runner) trustScopes(cfg *trust.Config, l loadable) {
	if l.policy.broken || l.registries.broken {
		return
	}
	entries := map[string]int{}
	for i, reg := range cfg.Registries {
		entries[reg.Scope] = i
	}
	quiet := &runner{}
	quiet.lookups(l.policy, l.registries)
	missing := map[int]bool{}
	for _, f := range quiet.findings {
		missing[f.Line] = f.Code == "no-lookaside"
	}
	for _, s := range l.policy.scopes {
		i, ok := entries[s.name]
		if !ok {
			continue // a canary's
		}
		at := place{cfg.File, cfg.Registries[i].Line, fmt.Sprintf("spec.registries[%d]", i)}
		r.addIf(missing[s.line], "no-lookaside", at,
			"asks for GPG signatures, and nothing names a lookaside for it: they are looked for in /var/lib/containers/sigstore of the node only").Hint = "write lookaside:"
		r.official(s.name, at)
	}
}

// shipped lints a key that is rendered into policy.json: of OpenPGP only the keys that GnuPG 2.2 can load are.
func (r *runner) shipped(k trust.Key, at place) {
	if k.File.Kind != key.OpenPGP {
		r.key(k.File.Binary, at)
		return
	}
	var written []byte
	for _, one := range k.File.Keys {
		if one.Version == 4 {
			written = append(written, one.Data...)
			continue
		}
		code := Code("key-v3")
		if one.Version == 6 {
			code = "key-v6"
		}
		r.add(code, at, "key %s (%s) is an OpenPGP v%d key: it is left out of what is rendered, GnuPG 2.2 would lose others with it", one.Fingerprint, one.Algorithm, one.Version).Severity = Warning
	}
	r.key(written, at)
}

func usedByGPG(cfg *trust.Config, name string) bool {
	return slices.ContainsFunc(cfg.Registries, func(reg trust.Registry) bool {
		return slices.ContainsFunc(reg.Requirements,
			func(r trust.Requirement) bool { return slices.Contains(r.SignedBy, name) })
	})
}

// pinned compares a key file of the host with its fingerprints. A file that can't be read is told of elsewhere.
func (r *runner) pinned(k trust.Key, at place) {
	if len(k.Fingerprints) == 0 {
		return
	}
	data, err := keysOfHost(r.Root).ReadFile(k.Path, maxKeyFile)
	if err != nil {
		return
	}
	f, err := key.Read(data)
	if err != nil {
		return
	}
	var found []string
	for _, have := range f.Keys {
		found = append(found, have.Fingerprint)
		r.addIf(!slices.Contains(k.Fingerprints, have.Fingerprint), "key-not-pinned", at,
			"%s holds the key %s too, which is not among the fingerprints: readers trust it all the same", k.Path, have.Fingerprint).Hint = "pin it as well, or ship the one key with file:"
	}
	for _, want := range k.Fingerprints {
		r.addIf(!slices.Contains(found, want), "key-pin-missing", at, "%s lacks %s", k.Path, want)
	}
}

// rendered fills l with the rendered files without taking over their findings: trust.yaml has its own.
func (r *runner) rendered(l *loadable, files trust.FileSet) {
	quiet := linter{now: r.now}
	p, _ := files.Get(trust.PolicyPath)
	l.policy = quiet.policy(file{path: p.Path, data: p.Data})
	// What a reader lacks is told by Files, with the line of trust.yaml.
	l.policy.features = nil
	l.registries = quiet.registries(registriesOf(files))
}

func registriesOf(files trust.FileSet) []file {
	var out []file
	for _, f := range files.Sorted() {
		if path.Dir(f.Path) == trust.RegistriesDir && strings.HasSuffix(f.Path, ".yaml") {
			out = append(out, file{path: f.Path, data: f.Data})
		}
	}
	return out
}

func (r *runner) problems(name string, err error) {
	ps, ok := errors.AsType[trust.Problems](err)
	if !ok {
		r.add("trust-config", place{file: name}, "%v", err)
		return
	}
	for _, p := range ps {
		r.add("trust-config", place{p.File, p.Line, p.Path}, "%s", p.Message)
	}
}

// trustMeaning finds what is valid and yet likely not meant.
func (r *runner) trustMeaning(cfg *trust.Config) {
	rules := map[string]trust.Registry{}
	for _, reg := range cfg.Registries {
		rules[reg.Scope] = reg
	}
	asked := payloadScopes(func(scope string) bool { _, ok := rules[scope]; return ok })
	for i, reg := range cfg.Registries {
		at := place{cfg.File, reg.Line, fmt.Sprintf("spec.registries[%d]", i)}
		lookasides := []string{reg.Lookaside}
		for _, m := range reg.Mirrors {
			lookasides = append(lookasides, m.Lookaside)
		}
		for _, l := range lookasides {
			if strings.HasPrefix(l, "http:") {
				r.plainHTTP(at.in(": " + l))
			}
		}
		if byGPG(reg) {
			r.payload(reg.Scope, asked, at.in(".scope"))
		}
		r.trustLookasides(at, reg)
		for j, q := range reg.Requirements {
			if _, _, some := covered(q.Identity.Prefix, reg.Scope); q.Identity.Type == policy.RemapIdentity && !some {
				r.add("remap-is-idle", place{cfg.File, q.Line, fmt.Sprintf("%s.require[%d].identity", at.what, j)},
					"no image of the scope %s begins with the prefix %s: signatures must name what is pulled", reg.Scope,
					q.Identity.Prefix)
			}
		}
		r.scope(reg.Scope, at.in(".scope"))
		r.tag(reg.Scope, at.in(".scope"))
		if reg.Rule == trust.RuleAccept && reg.Because == "" {
			for _, p := range policy.Chain(policy.Docker, reg.Scope)[1:] {
				if parent, ok := rules[p]; ok {
					r.addIf(parent.Rule == trust.RuleSigned, "hole-below-signed", at, "accepts images without signature below the signed scope %s (line %d)",
						parent.Scope, parent.Line).Hint = "say why with because:"
					break
				}
			}
		}
	}
	if !cfg.Reject && !slices.ContainsFunc(cfg.Registries,
		func(reg trust.Registry) bool { return reg.Rule != trust.RuleAccept }) {
		r.add("accepts-everything", place{file: cfg.File},
			"spec.default: accepts every image, and no entry of spec.registries asks for a signature or rejects: nothing is enforced")
	}
	sides := map[string]bool{}
	for _, c := range cfg.Canaries {
		sides[string(c.Expect)] = true
	}
	for _, p := range cfg.Idle() {
		r.add("canary-proves-nothing", place{cfg.File, p.Line, p.Path}, "%s", p.Message)
	}
	r.addIf(len(sides) < 2, "canary-side-missing", place{file: cfg.File},
		"spec.canaries: only an accept-canary and a refuse-canary together prove enforcement: nodes will say Unknown/NoCanary")
}

// byGPG reports whether a GPG signature is asked for.
func byGPG(reg trust.Registry) bool {
	return slices.ContainsFunc(reg.Requirements, func(r trust.Requirement) bool { return len(r.SignedBy) > 0 })
}

// trustLookasides finds mirrors of images that need signatures without a place of these.
func (r *runner) trustLookasides(at place, reg trust.Registry) {
	cosigned := slices.ContainsFunc(reg.Requirements, func(r trust.Requirement) bool { return r.Sigstore != nil })
	for i, m := range reg.Mirrors {
		mirror := place{at.file, m.Line, fmt.Sprintf("%s.mirrors[%d]", at.what, i)}
		r.addIf(cosigned && m.Attachments != nil && !*m.Attachments, "mirror-no-attachments", mirror,
			"has no attachments, and sigstore signatures are asked for: what is pulled from %s is refused", m.Scope)
		r.addIf(byGPG(reg) && m.Lookaside == "", "mirror-no-lookaside", mirror,
			"has no lookaside, and GPG signatures are asked for: what is pulled from %s is refused", m.Scope)
	}
}
