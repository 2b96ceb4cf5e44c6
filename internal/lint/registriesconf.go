package lint

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/policy"
)

// isRegistriesConf reports whether the path is one of those for root's processes with the home.
func isRegistriesConf(p, home string) bool {
	return slices.Contains(hostfs.RegistriesConfMains(home), p) ||
		slices.Contains(hostfs.RegistriesConfDirs(home), path.Dir(p)) && path.Ext(p) == ".conf"
}

// effectiveConfs returns those of a host's files that root's processes with the home read, in the order of reading.
func effectiveConfs(files []file, home string) (out []file) {
	byPath := map[string]file{}
	for _, f := range files {
		byPath[f.path] = f
	}
	for _, p := range hostfs.RegistriesConfMains(home) {
		if f, ok := byPath[p]; ok {
			out = append(out, f)
			break
		}
	}
	for _, p := range hostfs.DropIns(hostfs.RegistriesConfDirs(home), ".conf", slices.Collect(maps.Keys(byPath))) {
		out = append(out, byPath[p])
	}
	return out
}

// registryEndpoint is a place from which images come.
type registryEndpoint struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
}

// registryConf is an entry of registries.conf.
type registryConf struct {
	registryEndpoint
	Prefix  string             `toml:"prefix"`
	Blocked bool               `toml:"blocked"`
	Mirror  []registryEndpoint `toml:"mirror"`

	file string
	data string
}

// registriesConf reads the registries.conf files of the host.
func (r *runner) registriesConf() map[string]registryConf {
	main, read := hostfs.Root(r.Root).RegistriesConf(r.view.homes[0])
	if main.Path != "" {
		read = slices.Insert(read, 0, main)
	}
	var files []file
	for _, f := range read {
		files = append(files, file{f.Path, f.Data, f.Err})
	}
	return r.registryConfs(files)
}

// registryConfs returns the entries of registries.conf files by prefix: those of a later file replace those before.
func (r *runner) registryConfs(files []file) map[string]registryConf {
	out := map[string]registryConf{}
	for _, f := range files {
		var conf struct {
			Registry []registryConf `toml:"registry"`
		}
		if f.err == nil {
			f.err = toml.Unmarshal(f.data, &conf)
		}
		if f.err != nil {
			r.add("registries-conf", place{file: f.path}, "which mirrors it names can't be told: %v", f.err)
			continue
		}
		for _, e := range conf.Registry {
			if prefix := cmp.Or(e.Prefix, e.Location); prefix != "" {
				e.file, e.data = f.path, string(f.data)
				out[prefix] = e
			}
		}
	}
	return out
}

// covered returns how an entry's prefix relates to a scope: some of the scope's images are the entry's, and if all
// are, rest is what the scope's name has behind the prefix.
func covered(prefix, scope string) (rest string, all, some bool) {
	if domain, ok := strings.CutPrefix(prefix, "*."); ok {
		host, _, _ := strings.Cut(scope, "/")
		name, _, _ := strings.Cut(strings.TrimPrefix(host, "*."), ":")
		all = strings.HasSuffix(name, "."+domain) || host == prefix
		return strings.TrimPrefix(scope, host), all, all
	}
	if rest, ok := strings.CutPrefix(scope, prefix); ok && (rest == "" || strings.ContainsAny(rest[:1], "/:@")) {
		return rest, true, true
	}
	return "", false, slices.Contains(policy.Chain(policy.Docker, prefix)[1:], scope)
}

// mirrors finds signed scopes whose images come from elsewhere than their name says: from mirrors that no
// registries.d file knows (signatures are looked for where an image really comes from), over connections that nobody
// checks, or not at all. regs may be nil: then it is not known where signatures are looked for.
func (r *runner) mirrors(p *policyFacts, regs *registries, entries map[string]registryConf) {
	if p == nil || p.broken || regs != nil && regs.broken {
		return
	}
	for _, prefix := range slices.Sorted(maps.Keys(entries)) {
		e := entries[prefix]
		for _, s := range p.scopes {
			if s.name == "" || !s.signed() || p.repeats(s) {
				continue
			}
			rest, all, some := covered(prefix, s.name)
			if !some {
				continue
			}
			at := func(text string) place { return place{file: e.file, line: lineOf(e.data, text)} }
			if e.Blocked {
				if all {
					r.add("registry-blocked", at(prefix),
						"%s is blocked: nothing is pulled from there, and the signed scope %q has no effect", prefix, s.name)
				}
				continue
			}
			for _, place := range append([]registryEndpoint{{e.Location, e.Insecure}}, e.Mirror...) {
				if place.Insecure {
					r.add("registry-insecure", at(place.Location),
						"%s is insecure and holds images of the signed scope %q: neither it nor a lookaside is checked by TLS, so signatures can be hidden on the way", place.Location, s.name)
				}
			}
			if regs == nil {
				continue
			}
			for _, m := range e.Mirror {
				if m.Location != "" {
					r.mirror(s, m.Location+rest, at(m.Location), regs)
				}
			}
		}
	}
}

// repeats reports whether a scope of one digest, as a refuse-canary has it, asks for the kinds of signatures that the
// scope above it asks for: what there is to say of their places is said there.
func (p *policyFacts) repeats(s policyScope) bool {
	if !strings.Contains(s.name, "@") {
		return false
	}
	above := p.decides(policy.Chain(policy.Docker, s.name)[1])
	return above.name != "" && (!s.has(policy.SignedBy) || above.has(policy.SignedBy)) &&
		(!s.has(policy.SigstoreSigned) || above.has(policy.SigstoreSigned))
}

// mirror looks for the places of the signatures of what a mirror has of a scope.
func (r *runner) mirror(s policyScope, physical string, at place, regs *registries) {
	const lacks = "mirror %s of the signed scope %q: no registries.d file %s for it: what is pulled from it is refused"
	lookaside, attachments := regs.serves(physical)
	r.addIf(s.has(policy.SignedBy) && !lookaside, "mirror-no-lookaside", at,
		lacks, physical, s.name, "names a lookaside")
	r.addIf(s.has(policy.SigstoreSigned) && !attachments, "mirror-no-attachments", at,
		lacks, physical, s.name, "has use-sigstore-attachments: true")
}

// lineOf is the line of the quoted text, 0 if it isn't there as such.
func lineOf(data, text string) int {
	for i, line := range strings.Split(data, "\n") {
		if strings.Contains(line, `"`+text+`"`) || strings.Contains(line, "'"+text+"'") {
			return i + 1
		}
	}
	return 0
}
