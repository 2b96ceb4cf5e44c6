package trust

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/templates"
)

// Where the files of a FileSet lie.
const (
	PolicyPath    = "/etc/containers/policy.json"
	RegistriesDir = "/etc/containers/registries.d"
)

// Files returns the files that the config puts on nodes, sorted by path: policy.json and one registries.d file per
// host. The same config and readers always give the same bytes. It returns Problems if one of the readers can't load a
// part of the config or would silently ignore it.
func (c *Config) Files(readers []Reader) (FileSet, error) {
	if err := c.check(readers); err != nil {
		return nil, err
	}
	b, err := c.policy()
	if err != nil {
		return nil, fmt.Errorf("writing policy.json: %w", err)
	}
	files := FileSet{{Path: PolicyPath, Mode: 0o644, Data: b}}
	for host, scopes := range c.locations() {
		b, err := registriesD(c.Name, scopes, readers)
		if err != nil {
			return nil, fmt.Errorf("writing registries.d of %s: %w", host, err)
		}
		files = append(files, File{Path: RegistriesDir + "/" + fileName(host), Mode: 0o644, Data: b})
	}
	return files.Sorted(), nil
}

// fileName returns the base name of a host's file. For Red Hat's hosts it is the vendor's, so that our file replaces
// the vendor's instead of defining its scope twice. No host starts with "_", so a wildcard's file is unique.
func fileName(host string) string {
	if domain, ok := strings.CutPrefix(host, "*."); ok {
		host = "_." + domain
	}
	return strings.ReplaceAll(host, ":", "_") + ".yaml"
}

// locations returns the sections of registries.d by host and scope, without empty ones.
func (c *Config) locations() map[string]map[string]Location {
	hosts := map[string]map[string]Location{}
	add := func(scope string, l Location) {
		if l.Lookaside == "" && l.Attachments == nil {
			return
		}
		host := ref.Host(scope)
		if hosts[host] == nil {
			hosts[host] = map[string]Location{}
		}
		hosts[host][scope] = l
	}
	for _, r := range c.Registries {
		add(r.Scope, r.Location)
		for _, m := range r.Mirrors {
			add(m.Scope, r.mirror(m))
		}
	}
	return hosts
}

// registriesD writes a registries.d file. For readers that don't know lookaside it adds the old name, sigstore.
func registriesD(source string, scopes map[string]Location, readers []Reader) ([]byte, error) {
	old := slices.ContainsFunc(readers, func(r Reader) bool { return !r.Supports(FeatureLookaside) })
	docker := make(map[string]registriesd.Entry, len(scopes))
	for scope, l := range scopes {
		e := registriesd.Entry{Lookaside: l.Lookaside, Attachments: l.Attachments}
		if old {
			e.SigStore = l.Lookaside
		}
		docker[scope] = e
	}
	b, err := registriesd.Config{Docker: docker}.YAML()
	return append([]byte(templates.Comment(source)+"\n"), b...), err
}

// check compares what the config uses with what each reader supports.
func (c *Config) check(readers []Reader) error {
	var problems Problems
	use := func(line int, at string, f Feature) {
		for _, r := range readers {
			if !r.Supports(f) {
				problems = append(problems, Problem{
					File: c.File, Line: line, Path: at,
					Message: fmt.Sprintf("reader %s does not support %s", r.Name, f),
				})
			}
		}
	}
	for i, r := range c.Registries {
		at := fmt.Sprintf("spec.registries[%d]", i)
		if strings.HasPrefix(r.Scope, "*.") {
			use(r.Line, at+".scope", FeatureWildcard)
		}
		if r.Attachments != nil && *r.Attachments {
			use(r.attachAt, at+".attachments", FeatureSigstore)
		}
		for j, q := range r.Requirements {
			c.checkFeatures(q, fmt.Sprintf("%s.require[%d]", at, j), use)
		}
		for j, m := range r.Mirrors {
			if m.Attachments != nil && *m.Attachments {
				use(m.attachAt, fmt.Sprintf("%s.mirrors[%d].attachments", at, j), FeatureSigstore)
			}
		}
	}
	return problems.err()
}

func (c *Config) checkFeatures(q Requirement, at string, use func(int, string, Feature)) {
	if q.Identity.Type == policy.RemapIdentity {
		use(q.Line, at+".identity", FeatureRemapIdentity)
	}
	if len(c.paths(q.SignedBy)) > 1 {
		use(q.Line, at+".signedBy", FeatureKeyPaths)
	}
	s := q.Sigstore
	if s == nil {
		return
	}
	at += ".sigstore"
	for _, part := range []struct {
		used    bool
		path    string
		feature Feature
	}{
		{true, "", FeatureSigstore},
		{s.Fulcio != nil, ".fulcio", FeatureFulcio},
		{s.PKI != nil, ".pki", FeaturePKI},
		{len(s.Rekor) > 0, ".rekor", FeatureRekor},
		{len(s.Keys) > 1, ".keys", FeatureSigstoreKeys},
		{len(s.Rekor) > 1, ".rekor", FeatureSigstoreKeys},
	} {
		if part.used {
			use(q.Line, at+part.path, part.feature)
		}
	}
}
