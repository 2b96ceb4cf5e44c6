package trust

import (
	"path"
	"slices"
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

// RootHomes returns the home directories of root's processes, by the content of /etc/passwd: /root, and others that
// it names for root or uid 0, each once, in order. Which of them a process has is known to whoever starts it.
func RootHomes(passwd string) []string {
	out := []string{"/root"}
	for line := range strings.SplitSeq(passwd, "\n") {
		f := strings.Split(line, ":")
		if len(f) < 6 || (f[0] != "root" && f[2] != "0") || !path.IsAbs(f[5]) {
			continue
		}
		if h := path.Clean(f[5]); h != "/" && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}
