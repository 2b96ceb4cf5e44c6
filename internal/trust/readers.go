package trust

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Version is a version of the image library that reads policies (github.com/containers/image/v5, later
// go.podman.io/image/v5).
type Version [3]int

// String returns for example "5.42.1".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// Less orders versions.
func (v Version) Less(w Version) bool { return slices.Compare(v[:], w[:]) < 0 }

// library is the image library of this program: the current reader.
var library = Version{5, 42, 1}

// Feature is something that older readers can't do.
type Feature string

// The features that depend on the reader.
const (
	FeatureRemapIdentity Feature = "remapIdentity"
	FeatureWildcard      Feature = "wildcard scopes"
	FeatureLookaside     Feature = "lookaside" // the name; older readers know it as sigstore
	FeatureKeyPaths      Feature = "several key paths in one signedBy"
	FeatureSigstore      Feature = "sigstore"
	FeatureFulcio        Feature = "fulcio"
	FeatureRekor         Feature = "rekor"
	FeatureSigstoreKeys  Feature = "several sigstore keys"
	FeaturePKI           Feature = "pki"
)

// Since describes a feature's requirement.
type Since struct {
	Feature Feature `json:"feature"`
	// Library is the first version of the image library with the feature.
	Library string `json:"library"`
	// Older says what older readers do with it, Loads whether they load it.
	Older string `json:"older"`
	Loads bool   `json:"loads"`
}

// Features lists the features in the order in which they came.
func Features() []Since {
	const reject = "reject the whole file: every pull fails"
	return []Since{
		{Feature: FeatureRemapIdentity, Older: reject, Library: "5.9.0"},
		{Feature: FeatureWildcard, Older: "load it, never match", Loads: true, Library: "5.10.0"},
		{
			Feature: FeatureLookaside, Older: "ignore it; nodetrust writes sigstore: beside it", Loads: true,
			Library: "5.22.0",
		},
		{Feature: FeatureKeyPaths, Older: reject, Library: "5.22.0"},
		{Feature: FeatureSigstore, Older: reject, Library: "5.22.0"},
		{Feature: FeatureFulcio, Older: reject, Library: "5.24.0"},
		{Feature: FeatureRekor, Older: reject, Library: "5.24.0"},
		{Feature: FeatureSigstoreKeys, Older: reject, Library: "5.32.2"},
		{Feature: FeaturePKI, Older: reject, Library: "5.34.1"},
	}
}

// Reader is a reader of the rendered files.
type Reader struct {
	// Name is what LookupReader was given.
	Name string
	// Library is the version of its image library, or an older one if only that is known.
	Library Version
	// OpenShift is the minor version of OpenShift 4; 0 for other readers.
	OpenShift int
	// Note describes the reader, Source is the evidence for its library; both may be empty.
	Note, Source string
	// Newer is true for a version of a product newer than the newest known one, whose library Library is.
	Newer bool
}

// Supports reports whether the reader understands f.
func (r Reader) Supports(f Feature) bool {
	for _, s := range Features() {
		if s.Feature == f {
			return !r.Library.Less(version(s.Library))
		}
	}
	return false
}

// Butane returns the reader's version of Butane's variant openshift, or "" for other readers.
func (r Reader) Butane() string {
	if r.OpenShift == 0 {
		return ""
	}
	return fmt.Sprintf("4.%d.0", min(r.OpenShift, newestButane))
}

// Ignition returns the version of the Ignition config that Butane makes for the reader, or "" for readers other than
// OpenShift.
func (r Reader) Ignition() string {
	switch {
	case r.OpenShift == 0:
		return ""
	case r.OpenShift >= 19:
		return "3.5.0"
	case r.OpenShift >= 14:
		return "3.4.0"
	}
	return "3.2.0"
}

const (
	oldestOpenShift = 8
	newestOpenShift = 23
	newestButane    = 22
)

// release is a row of the table: from this version on, a product reads with this library.
type release struct {
	from    Version
	library Version
	source  string
}

// products is the table. A version between two rows counts as the older row. A development snapshot of the
// library counts as the release before, if a feature may lie between. Sources are the products' go.mod files;
// hack/readers records what each library makes of the features.
var products = []struct {
	name     string
	releases []release
}{
	{"podman", []release{
		{Version{1, 6}, Version{5, 0, 0}, "go.mod of libpod v1.6.4"},
		{Version{1, 9}, Version{5, 4, 3}, "go.mod of libpod v1.9.3"},
		{Version{2, 2}, Version{5, 9, 0}, "go.mod of podman v2.2.1"},
		{Version{3, 1}, Version{5, 10, 5}, "go.mod of podman v3.1.0"},
		{Version{3, 2}, Version{5, 12, 0}, "go.mod of podman v3.2.0"},
		{Version{3, 4}, Version{5, 16, 0}, "go.mod of podman v3.4.0; v3.4.7 has 5.17.0"},
		{Version{4, 0}, Version{5, 19, 1}, "go.mod of podman v4.0.0"},
		{Version{4, 1}, Version{5, 21, 1}, "go.mod of podman v4.1.0"},
		{Version{4, 2}, Version{5, 22, 0}, "go.mod of podman v4.2.0"},
		{Version{4, 3}, Version{5, 23, 1}, "go.mod of podman v4.3.1; Debian 12's is run in tests"},
		{Version{4, 4}, Version{5, 24, 0}, "go.mod of podman v4.4.0"},
		{Version{4, 6}, Version{5, 26, 1}, "go.mod of podman v4.6.0"},
		{Version{4, 8}, Version{5, 29, 0}, "go.mod of podman v4.8.0"},
		{Version{4, 9}, Version{5, 29, 2}, "go.mod of podman v4.9.4"},
		{Version{5, 0}, Version{5, 30, 0}, "go.mod of podman v5.0.0"},
		{Version{5, 2}, Version{5, 32, 0}, "go.mod of podman v5.2.0"},
		{Version{5, 2, 2}, Version{5, 32, 2}, "go.mod of podman v5.2.2"},
		{Version{5, 3}, Version{5, 33, 0}, "go.mod of podman v5.3.0"},
		{Version{5, 4}, Version{5, 34, 0}, "go.mod of podman v5.4.0"},
		{Version{5, 4, 1}, Version{5, 34, 1}, "go.mod of podman v5.4.1"},
		{Version{5, 4, 2}, Version{5, 34, 3}, "go.mod of podman v5.4.2"},
		{Version{5, 5}, Version{5, 35, 0}, "go.mod of podman v5.5.0"},
		{Version{5, 6}, Version{5, 36, 2}, "go.mod of podman v5.6.2; v5.6.0 has 5.36.1, which is no different here"},
		{Version{5, 7}, Version{5, 38, 0}, "go.mod of podman v5.7.0"},
		{Version{6, 0}, Version{5, 41, 1}, "go.mod of podman's main branch in 2026: a snapshot before 5.41.2"},
	}},
	{"cri-o", []release{
		{Version{1, 21}, Version{5, 11, 0}, "by date: CRI-O v1.21.0 is four days younger"},
		{Version{1, 23}, Version{5, 16, 1}, "go.mod of cri-o v1.23.0"},
		{Version{1, 24}, Version{5, 21, 0}, "by date, and known to be older than 5.22"},
		{Version{1, 26}, Version{5, 25, 0}, "go.mod of cri-o's branches release-1.26 and release-1.27: snapshots after 5.25.0"},
		{Version{1, 28}, Version{5, 27, 0}, "go.mod of cri-o's branch release-1.28: a snapshot after 5.27.0"},
		{Version{1, 29}, Version{5, 29, 0}, "go.mod of cri-o's branch release-1.29: a snapshot after 5.29.0"},
		{Version{1, 30}, Version{5, 29, 2}, "go.mod of cri-o's branch release-1.30: a snapshot after 5.29.2"},
		{Version{1, 31}, Version{5, 32, 2}, "go.mod of cri-o's branch release-1.31: a snapshot after 5.32.2"},
		{Version{1, 32}, Version{5, 34, 1}, "go.mod of cri-o's branch release-1.32"},
		{Version{1, 33}, Version{5, 35, 0}, "go.mod of cri-o's branch release-1.33"},
		{Version{1, 34}, Version{5, 35, 0}, "go.mod of cri-o v1.34.0"},
		{Version{1, 35}, Version{5, 38, 0}, "go.mod of cri-o's branch release-1.35"},
		{Version{1, 36}, Version{5, 38, 0}, "cri-o issue 10191, of v1.36.1"},
	}},
	{"skopeo", []release{
		{Version{1, 9}, Version{5, 23, 1}, "Debian 12's skopeo 1.9.3, run in tests"},
	}},
}

// fixed returns readers without a version of their own. RHEL's podman changes within a major release: the oldest one
// in wide use counts; a reader named by its version is more exact.
func fixed() []Reader {
	return []Reader{
		fixedReader("rhel7", Version{1, 6, 4}, "podman 1.6.4"),
		fixedReader("rhel8", Version{4, 9, 4}, "podman 4.9.4 of RHEL 8.10"),
		fixedReader("rhel9", Version{4, 9, 4}, "podman 4.9.4 of RHEL 9.4; later ones read more"),
		fixedReader("rhel10", Version{5, 4, 0}, "podman 5.4.0 of RHEL 10.0; later ones read more"),
	}
}

func fixedReader(name string, podman Version, note string) Reader {
	r := floor("podman", podman)
	return Reader{Name: name, Library: r.library, Note: note, Source: r.source}
}

// Readers lists the readers that have a row of their own: the table of `nodetrust readers`.
func Readers() []Reader {
	var out []Reader
	for minor := oldestOpenShift; minor <= newestOpenShift; minor++ {
		out = append(out, openShift(fmt.Sprintf("openshift-4.%d", minor), minor))
	}
	out = append(out, fixed()...)
	for _, p := range products {
		for _, r := range p.releases {
			out = append(out, Reader{
				Name: p.name + "-" + strings.TrimSuffix(r.from.String(), ".0"), Library: r.library,
				Source: r.source,
			})
		}
	}
	return append(out, current())
}

// DefaultReaders returns the readers if none is named: the oldest OpenShift with today's form of MachineConfigs, and
// the current library.
func DefaultReaders() []Reader {
	return []Reader{openShift("openshift-4.14", 14), current()}
}

func current() Reader {
	return Reader{
		Name: "containers-image-" + library.String(), Library: library, Note: "the library of this nodetrust",
		Source: "loaded in this program",
	}
}

func openShift(name string, minor int) Reader {
	crio := minor + 13
	r := floor("cri-o", Version{1, crio})
	return Reader{
		Name: name, OpenShift: minor, Library: r.library, Note: fmt.Sprintf("CRI-O 1.%d", crio),
		Source: r.source,
	}
}

func floor(product string, v Version) (found release) {
	for _, p := range products {
		if p.name != product {
			continue
		}
		for _, r := range p.releases {
			if !v.Less(r.from) {
				found = r
			}
		}
	}
	return found
}

// newerThan marks r as Newer if r is the newest row of the product and v a later minor version: its library is
// unknown.
func (r Reader) newerThan(product string, row release, v Version) Reader {
	newest := floor(product, Version{math.MaxInt, 0, 0})
	if row == newest && slices.Compare(v[:2], row.from[:2]) > 0 {
		r.Newer = true
		r.Note = fmt.Sprintf("newer than the newest known, %s %d.%d, and taken for that", product, row.from[0], row.from[1])
	}
	return r
}

// LookupReader returns the reader of that name: a row of Readers, or podman, cri-o, skopeo and containers-image with
// any version.
func LookupReader(name string) (Reader, error) {
	for _, r := range fixed() {
		if r.Name == name {
			return r, nil
		}
	}
	i := strings.LastIndex(name, "-")
	if i < 0 {
		return Reader{}, unknownReader(name)
	}
	product := name[:i]
	v, n, ok := parseVersion(name[i+1:])
	if !ok {
		return Reader{}, unknownReader(name)
	}
	switch product {
	case "containers-image":
		if n == 3 && v[0] == 5 {
			return Reader{Name: name, Library: v}, nil
		}
	case "openshift":
		if n < 2 || v[0] != 4 {
			break
		}
		if v[1] < oldestOpenShift || v[1] > newestOpenShift {
			return Reader{}, fmt.Errorf("unknown reader %q: known are openshift-4.%d to openshift-4.%d", name, oldestOpenShift,
				newestOpenShift)
		}
		return openShift(name, v[1]), nil
	case "podman", "cri-o", "skopeo":
		if n < 2 {
			break
		}
		if r := floor(product, v); r != (release{}) {
			return Reader{Name: name, Library: r.library, Source: r.source}.newerThan(product, r, v), nil
		}
		return Reader{}, fmt.Errorf("unknown reader %q: nothing is known of versions that old", name)
	}
	return Reader{}, unknownReader(name)
}

func unknownReader(name string) error {
	return fmt.Errorf("unknown reader %q: known are openshift-4.N, rhel7 to rhel10, podman-X.Y, cri-o-1.N, skopeo-X.Y and containers-image-5.Y.Z (see nodetrust readers)", name)
}

// version reads the version of a row of the tables, or "", which is older than all.
func version(s string) Version {
	v, _, _ := parseVersion(s)
	return v
}

func parseVersion(s string) (v Version, n int, ok bool) {
	for part := range strings.SplitSeq(s, ".") {
		i, err := strconv.ParseUint(part, 10, 16)
		if err != nil || n == len(v) || part[0] == '+' {
			return v, n, false
		}
		v[n] = int(i)
		n++
	}
	return v, n, true
}
