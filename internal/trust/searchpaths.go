package trust

import (
	"path"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
)

// Places are the paths on a host that a root process reads, the highest priority first.
type Places struct {
	// Since is the first version of the library with these places.
	Since string `json:"since"`
	// Policy are the places of policy.json: only the first file that exists is read.
	Policy []string `json:"policy"`
	// Registries are the directories of registries.d. If Merges, all count, and a file hides files of the same name in
	// later ones; else only the first that exists is read.
	Registries []string `json:"registries"`
	Merges     bool     `json:"merges"`
}

// SearchPaths lists the places by versions of the library, the oldest first. hack/readers records what each version
// does.
func SearchPaths() []Places {
	const (
		userPolicy     = "/root/" + policy.HomeFile
		userRegistries = "/root/" + registriesd.HomeDir
	)
	return []Places{
		{Since: "5.0.0", Policy: []string{PolicyPath}, Registries: []string{RegistriesDir}},
		{Since: "5.5.0", Policy: []string{userPolicy, PolicyPath}, Registries: []string{RegistriesDir}},
		{
			Since: "5.6.0", Policy: []string{userPolicy, PolicyPath},
			Registries: []string{userRegistries, RegistriesDir},
		},
		{
			Since:      "5.40.0",
			Policy:     []string{userPolicy, PolicyPath, "/usr/share/containers/policy.json"},
			Registries: append([]string{userRegistries}, registriesd.Dirs()...),
			Merges:     true,
		},
	}
}

// Places returns the reader's places for root.
func (r Reader) Places() Places {
	var found Places
	for _, p := range SearchPaths() {
		if found.Since == "" || !r.Library.Less(version(p.Since)) {
			found = p
		}
	}
	return found
}

// SkipsDangling reports whether the reader ignores a link to nothing in registries.d, as a file that was just removed.
// Older ones fail to read their configuration, and pull nothing. The limit is from the source of 5.33.1 and 5.34.0,
// and was seen with skopeo 1.9.3.
func (r Reader) SkipsDangling() bool { return !r.Library.Less(Version{5, 34, 0}) }

// LookasideKey returns the key of registries.d under which the reader looks for signatures. Readers that know
// lookaside fall back to sigstore.
func (r Reader) LookasideKey() string {
	if r.Supports(FeatureLookaside) {
		return "lookaside"
	}
	return "sigstore"
}

// Of returns the places of a process with another home than /root.
func (p Places) Of(home string) Places {
	move := func(paths []string) (out []string) {
		for _, q := range paths {
			if rest, ok := strings.CutPrefix(q, "/root/"); ok {
				q = path.Join(home, rest)
			}
			out = append(out, q)
		}
		return out
	}
	p.Policy, p.Registries = move(p.Policy), move(p.Registries)
	return p
}
