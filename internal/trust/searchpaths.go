package trust

import (
	"path"
	"strings"
)

// Places are where a root process looks, as paths of the host, the place of the highest priority first.
type Places struct {
	// Since is the first version of the library that looks there.
	Since string `json:"since"`
	// Policy are the places of policy.json: the first file that exists is taken alone.
	Policy []string `json:"policy"`
	// Registries are the directories of registries.d. If Merges, all count, and a file hides those of the same name in
	// later ones; else the first that exists is taken alone.
	Registries []string `json:"registries"`
	Merges     bool     `json:"merges"`
	first      Version
}

// SearchPaths lists the places by versions of the library, the oldest first. hack/readers records what each version
// does.
func SearchPaths() []Places {
	const (
		userPolicy     = "/root/.config/containers/policy.json"
		userRegistries = "/root/.config/containers/registries.d"
	)
	out := []Places{
		{first: Version{5, 0, 0}, Policy: []string{PolicyPath}, Registries: []string{RegistriesDir}},
		{first: Version{5, 5, 0}, Policy: []string{userPolicy, PolicyPath}, Registries: []string{RegistriesDir}},
		{
			first: Version{5, 6, 0}, Policy: []string{userPolicy, PolicyPath},
			Registries: []string{userRegistries, RegistriesDir},
		},
		{
			first:  Version{5, 40, 0},
			Policy: []string{userPolicy, PolicyPath, "/usr/share/containers/policy.json"},
			Registries: []string{
				userRegistries, "/etc/containers/registries.rootful.d", RegistriesDir,
				"/usr/share/containers/registries.rootful.d", "/usr/share/containers/registries.d",
			},
			Merges: true,
		},
	}
	for i := range out {
		out[i].Since = out[i].first.String()
	}
	return out
}

// Places returns where the reader looks, as root.
func (r Reader) Places() Places {
	var found Places
	for _, p := range SearchPaths() {
		if found.Since == "" || !r.Library.Less(p.first) {
			found = p
		}
	}
	return found
}

// VendorDirs reports whether the reader takes files of /usr/share/containers and of registries.rootful.d directories
// too.
func (r Reader) VendorDirs() bool { return r.Places().Merges }

// SkipsDangling reports whether the reader takes a link to nothing in registries.d for a file that was just removed.
// Older ones can't read their configuration, and pull nothing. Read in the source of 5.33.1 and 5.34.0, and seen with
// skopeo 1.9.3.
func (r Reader) SkipsDangling() bool { return !r.Library.Less(Version{5, 34, 0}) }

// LookasideKey is the key of registries.d under which the reader looks for signatures. Readers that know lookaside
// take sigstore where there is no lookaside.
func (r Reader) LookasideKey() string {
	if r.Supports(FeatureLookaside) {
		return "lookaside"
	}
	return "sigstore"
}

// Of returns the places of a process whose home is another than /root.
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
