package trust

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Version is a version of the image library (github.com/containers/image/v5, later go.podman.io/image/v5) that reads policies.
type Version [3]int

// String is "5.42.0".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// Less orders versions.
func (v Version) Less(w Version) bool { return slices.Compare(v[:], w[:]) < 0 }

// library is the version of the image library that this program is built with: the current reader.
var library = Version{5, 42, 0}

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

// Since is what a feature takes.
type Since struct {
	Feature Feature `json:"feature"`
	// Library is the first version of the image library that has it.
	Library string `json:"library"`
	// Older says what older readers do with it.
	Older string `json:"older"`
	first Version
}

// Features lists the features in the order in which they came.
func Features() []Since {
	const reject = "reject the whole file: every pull fails"
	out := []Since{
		{FeatureRemapIdentity, "", reject, Version{5, 9, 0}},
		{FeatureWildcard, "", "load it, never match", Version{5, 10, 0}},
		{FeatureLookaside, "", "ignore it; nodetrust writes sigstore: beside it", Version{5, 22, 0}},
		{FeatureKeyPaths, "", reject, Version{5, 22, 0}},
		{FeatureSigstore, "", reject, Version{5, 22, 0}},
		{FeatureFulcio, "", reject, Version{5, 24, 0}},
		{FeatureRekor, "", reject, Version{5, 24, 0}},
		{FeatureSigstoreKeys, "", reject, Version{5, 32, 2}},
		{FeaturePKI, "", reject, Version{5, 34, 1}},
	}
	for i := range out {
		out[i].Library = out[i].first.String()
	}
	return out
}

// Reader is who will read the rendered files.
type Reader struct {
	// Name is what LookupReader was given.
	Name string
	// Library is the version of its image library, or an older one where only that much is known.
	Library Version
	// OpenShift is the minor version of OpenShift 4; 0 for other readers.
	OpenShift int
	// Note says where the version is taken from.
	Note string
}

// Supports reports whether the reader understands f.
func (r Reader) Supports(f Feature) bool {
	for _, s := range Features() {
		if s.Feature == f {
			return !r.Library.Less(s.first)
		}
	}
	return false
}

// VendorDirs reports whether the reader takes files of /usr/share/containers and of registries.rootful.d directories too.
func (r Reader) VendorDirs() bool { return !r.Library.Less(Version{5, 40, 0}) }

// Butane is the version of Butane's variant openshift for the reader; empty for readers that are no OpenShift.
func (r Reader) Butane() string {
	if r.OpenShift == 0 {
		return ""
	}
	return fmt.Sprintf("4.%d.0", min(r.OpenShift, newestButane))
}

// Ignition is the version of the Ignition config that Butane makes for the reader; empty for readers that are no OpenShift.
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

// release is a row of the table: from this major.minor version on, a product reads with this library.
type release struct {
	major, minor int
	library      Version
}

// products: a version between two rows counts as the older row. Development snapshots of the library count as the release
// before, if a feature might lie between.
func products() []struct {
	name     string
	releases []release
} {
	return []struct {
		name     string
		releases []release
	}{
		{"podman", []release{
			{1, 6, Version{5, 0, 0}},
			{1, 9, Version{5, 4, 3}},
			{3, 4, Version{5, 17, 0}},
			{4, 0, Version{5, 19, 1}},
			{4, 1, Version{5, 21, 1}},
			{4, 3, Version{5, 23, 1}},
			{4, 4, Version{5, 24, 0}},
			{4, 9, Version{5, 29, 2}},
			{5, 2, Version{5, 32, 2}},
			{5, 4, Version{5, 34, 3}},
			{5, 6, Version{5, 36, 2}},
			{5, 7, Version{5, 38, 0}},
			{6, 0, Version{5, 41, 1}},
		}},
		{"cri-o", []release{
			{1, 21, Version{5, 11, 0}},
			{1, 24, Version{5, 21, 0}},
			{1, 26, Version{5, 25, 0}},
			{1, 28, Version{5, 27, 0}},
			{1, 29, Version{5, 29, 0}},
			{1, 30, Version{5, 29, 2}},
			{1, 31, Version{5, 32, 2}},
			{1, 32, Version{5, 34, 1}},
			{1, 33, Version{5, 35, 0}},
			{1, 35, Version{5, 38, 0}},
		}},
		{"skopeo", []release{
			{1, 9, Version{5, 23, 1}},
		}},
	}
}

// fixed are readers without a version of their own. RHEL's podman moves within a major release: the oldest one that is
// still in wide use counts; name the package's version to say more.
func fixed() []Reader {
	return []Reader{
		{Name: "rhel7", Library: Version{5, 0, 0}, Note: "podman 1.6.4"},
		{Name: "rhel8", Library: Version{5, 29, 2}, Note: "podman 4.9.4 of RHEL 8.10"},
		{Name: "rhel9", Library: Version{5, 29, 2}, Note: "podman 4.9.4 of RHEL 9.4; later ones read more"},
		{Name: "rhel10", Library: Version{5, 34, 3}, Note: "podman 5.4 of RHEL 10.0"},
	}
}

// Readers lists the readers that have a row of their own: the table of `nodetrust readers`.
func Readers() []Reader {
	var out []Reader
	for minor := oldestOpenShift; minor <= newestOpenShift; minor++ {
		out = append(out, openShift(fmt.Sprintf("openshift-4.%d", minor), minor))
	}
	out = append(out, fixed()...)
	for _, p := range products() {
		for _, r := range p.releases {
			out = append(out, Reader{Name: fmt.Sprintf("%s-%d.%d", p.name, r.major, r.minor), Library: r.library})
		}
	}
	return append(out, current())
}

// DefaultReaders are those that count when none is named: the oldest OpenShift whose MachineConfigs are like today's,
// and the current library.
func DefaultReaders() []Reader {
	return []Reader{openShift("openshift-4.14", 14), current()}
}

func current() Reader {
	return Reader{Name: "containers-image-" + library.String(), Library: library, Note: "the library of this nodetrust"}
}

func openShift(name string, minor int) Reader {
	crio := minor + 13
	return Reader{Name: name, OpenShift: minor, Library: floor("cri-o", 1, crio), Note: fmt.Sprintf("CRI-O 1.%d", crio)}
}

// floor is the library of the newest row that is not newer than major.minor; zero if there is none.
func floor(product string, major, minor int) (v Version) {
	for _, p := range products() {
		if p.name != product {
			continue
		}
		for _, r := range p.releases {
			if major > r.major || major == r.major && minor >= r.minor {
				v = r.library
			}
		}
	}
	return v
}

// LookupReader returns the reader of that name: a row of Readers, or podman, cri-o, skopeo and containers-image with any version.
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
			return Reader{}, fmt.Errorf("unknown reader %q: known are openshift-4.%d to openshift-4.%d", name, oldestOpenShift, newestOpenShift)
		}
		return openShift(name, v[1]), nil
	case "podman", "cri-o", "skopeo":
		if n < 2 {
			break
		}
		if l := floor(product, v[0], v[1]); l != (Version{}) {
			return Reader{Name: name, Library: l}, nil
		}
		return Reader{}, fmt.Errorf("unknown reader %q: nothing is known of versions that old", name)
	}
	return Reader{}, unknownReader(name)
}

func unknownReader(name string) error {
	return fmt.Errorf("unknown reader %q: known are openshift-4.N, rhel7 to rhel10, podman-X.Y, cri-o-1.N, skopeo-X.Y and containers-image-5.Y.Z (see nodetrust readers)", name)
}

// parseVersion reads one to three numbers.
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
