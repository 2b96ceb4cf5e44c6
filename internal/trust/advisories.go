package trust

import (
	"slices"
	"strings"
)

// Advisory is a known hole in the verifier of some versions of the image library. For each, hack/readers has recorded
// an input that fools the last version with the hole and not the first without it.
type Advisory struct {
	// ID names the advisory in reports, metrics and docs: lower case and hyphens, for example "forged-schema1".
	ID string `json:"id"`
	// Title says in one line what a reader with the hole accepts.
	Title string `json:"title"`
	// CVE is the public number of the hole, or "".
	CVE string `json:"cve,omitempty"`
	// Since is the first version of the image library with the hole, "" for all old ones; Fixed is the first from
	// which on no version has it.
	Since string `json:"since,omitempty"`
	Fixed string `json:"fixed"`
	// Backports are the first fixed versions of older lines, the newest first: with 5.29.3, 5.29.4 is fixed too and
	// 5.30.0 is not.
	Backports []string `json:"backports,omitempty"`
	// Build is the build tag that a program needs to have the hole, or "". Reader.Advisories leaves out advisories
	// with a tag: no reader of the table is known to be built with it.
	Build string `json:"build,omitempty"`
}

// Advisories lists the known holes, the newest first.
func Advisories() []Advisory {
	return []Advisory{
		{
			ID:        "forged-schema1",
			Title:     "the digest of a schema-1 manifest is taken from a payload that the server supplies: any signature of a repository vouches for any content",
			Fixed:     "5.42.1",
			Backports: []string{"5.39.4"},
		},
		{
			ID:    "expired-key",
			Title: "a signature by an OpenPGP key that has expired is accepted, by programs that are built without gpgme",
			Build: "containers_image_openpgp",
			Fixed: "5.41.0",
		},
		{
			ID:        "unchecked-digest",
			Title:     "digests are put into URLs as they come: an image, whoever signed it, has other repositories asked with the login of who pulls",
			CVE:       "CVE-2024-3727",
			Fixed:     "5.30.1",
			Backports: []string{"5.29.3", "5.27.1", "5.24.3"},
		},
		{
			ID:    "endless-signatures",
			Title: "signatures are fetched as long as the server has one more: a pull never ends, and takes the memory",
			Fixed: "5.24.0",
		},
		{
			ID:    "ambiguous-manifest",
			Title: "one manifest is an index and an image, whichever type the server gives it: what was signed as one is pulled as the other",
			CVE:   "CVE-2021-41190",
			Fixed: "5.17.0",
		},
		{
			ID:    "huge-manifest",
			Title: "a manifest of any size is read into memory",
			CVE:   "CVE-2020-1702",
			Fixed: "5.2.0",
		},
	}
}

// In reports whether a version of the image library has the hole.
func (a Advisory) In(library Version) bool {
	if library.Less(version(a.Since)) || !library.Less(version(a.Fixed)) {
		return false
	}
	return !slices.ContainsFunc(a.Backports, func(text string) bool {
		v := version(text)
		return v[0] == library[0] && v[1] == library[1] && !library.Less(v)
	})
}

// Advisories lists the holes of the reader's library. An empty list means that none is known, as for versions newer
// than the newest known one, which may have any library.
func (r Reader) Advisories() []Advisory {
	if r.Newer {
		return nil
	}
	var out []Advisory
	for _, a := range Advisories() {
		if a.Build == "" && a.In(r.Library) {
			out = append(out, a)
		}
	}
	return out
}

// IsLibrary reports whether a Go module is the image library, under any of its names.
func IsLibrary(module string) bool {
	return module == "go.podman.io/image/v5" || module == "github.com/containers/image/v5"
}

// ParseLibrary reads the version of the image library from its Go module's version. A commit between two releases
// counts as the earlier one: v5.29.3-0.20240101000000-0123456789ab is 5.29.2.
func ParseLibrary(version string) (Version, bool) {
	number, snapshot, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	v, n, ok := parseVersion(number)
	if !ok || n != len(v) {
		return Version{}, false
	}
	switch {
	case snapshot == "":
	case v[2] > 0:
		v[2]--
	default:
		v[1]--
	}
	return v, v[1] >= 0
}
