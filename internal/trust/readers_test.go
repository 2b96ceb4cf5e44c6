package trust

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestLookupReader(t *testing.T) {
	for name, want := range map[string]string{
		"rhel7": "5.0.0", "rhel8": "5.29.2", "rhel9": "5.29.2", "rhel10": "5.34.0",
		"openshift-4.8": "5.11.0", "openshift-4.11": "5.21.0", "openshift-4.14": "5.25.0", "openshift-4.18": "5.32.2",
		"openshift-4.21":   "5.35.0",
		"openshift-4.18.3": "5.32.2",
		"podman-1.6":       "5.0.0", "podman-1.6.4": "5.0.0", "podman-4.2": "5.22.0", "podman-4.3": "5.23.1",
		"podman-4.9.4": "5.29.2", "podman-5.2": "5.32.0", "podman-5.2.1": "5.32.0", "podman-5.2.2": "5.32.2",
		"podman-5.4.3": "5.34.3", "podman-5.6": "5.36.2", "podman-6.2": "5.41.1",
		"cri-o-1.34": "5.35.0", "cri-o-1.34.0": "5.35.0", "cri-o-1.24": "5.21.0", "skopeo-1.9": "5.23.1",
		"skopeo-1.9.3":            "5.23.1",
		"containers-image-5.29.2": "5.29.2",
	} {
		r, err := LookupReader(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if r.Library.String() != want || r.Name != name {
			t.Errorf("%s: got %s %s, want %s", name, r.Name, r.Library, want)
		}
	}
	for _, name := range []string{
		"", "rhel6", "openshift", "openshift-4", "openshift-3.11", "openshift-4.99",
		"openshift-5.0", "podman", "podman-", "podman-4", "podman-1.0", "podman-4.x", "podman-+4.1", "podman-4.1.2.3",
		"containers-image-5.29", "containers-image-6.0.0", "docker-20.10", "-1.2",
	} {
		if r, err := LookupReader(name); err == nil {
			t.Errorf("%q: got %+v, want an error", name, r)
		}
	}
}

func TestReader_Supports(t *testing.T) {
	for _, tt := range []struct {
		reader string
		lacks  []Feature
	}{
		{"containers-image-5.42.1", nil},
		{"rhel7", []Feature{
			FeatureRemapIdentity, FeatureWildcard, FeatureLookaside, FeatureKeyPaths, FeatureSigstore,
			FeatureFulcio, FeatureRekor, FeatureSigstoreKeys, FeaturePKI,
		}},
		{"containers-image-5.19.1", []Feature{
			FeatureLookaside, FeatureKeyPaths, FeatureSigstore, FeatureFulcio, FeatureRekor,
			FeatureSigstoreKeys, FeaturePKI,
		}},
		{"podman-4.3", []Feature{FeatureFulcio, FeatureRekor, FeatureSigstoreKeys, FeaturePKI}},
		{"openshift-4.14", []Feature{FeatureSigstoreKeys, FeaturePKI}},
		{"containers-image-5.31.1", []Feature{FeatureSigstoreKeys, FeaturePKI}},
		{"containers-image-5.33.1", []Feature{FeaturePKI}},
		{"openshift-4.19", nil},
	} {
		r, err := LookupReader(tt.reader)
		if err != nil {
			t.Fatal(err)
		}
		var got []Feature
		for _, f := range Features() {
			if !r.Supports(f.Feature) {
				got = append(got, f.Feature)
			}
		}
		if !slices.Equal(got, tt.lacks) {
			t.Errorf("%s lacks %v, want %v", tt.reader, got, tt.lacks)
		}
	}
}

func TestReader_openShift(t *testing.T) {
	for name, want := range map[string][2]string{
		"openshift-4.8": {"4.8.0", "3.2.0"}, "openshift-4.13": {"4.13.0", "3.2.0"}, "openshift-4.14": {"4.14.0", "3.4.0"},
		"openshift-4.18": {"4.18.0", "3.4.0"},
		"openshift-4.19": {"4.19.0", "3.5.0"}, "openshift-4.22": {"4.22.0", "3.5.0"}, "openshift-4.23": {"4.22.0", "3.5.0"},
		"rhel9": {},
	} {
		r, err := LookupReader(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]string{r.Butane(), r.Ignition()}; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// TestReaders looks every row of the table up by its own name.
func TestReaders(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Readers() {
		got, err := LookupReader(r.Name)
		if err != nil || got.Library != r.Library || seen[r.Name] {
			t.Errorf("%s: got %+v, %v, want %+v, once", r.Name, got, err, r)
		}
		seen[r.Name] = true
	}
	for _, r := range DefaultReaders() {
		if !seen[r.Name] {
			t.Errorf("default reader %s is not in the table", r.Name)
		}
	}
}

// TestLibrary holds the current reader against the library that is linked.
func TestLibrary(t *testing.T) {
	b, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\s*go\.podman\.io/image/v5 v(\S+)`).FindSubmatch(b)
	if m == nil || string(m[1]) != library.String() {
		t.Errorf("go.mod has %q, the table has %s", m, library)
	}
}

// TestLookupReader_newer: what library a version has that is newer than the newest known one is not known, nor are
// its holes.
func TestLookupReader_newer(t *testing.T) {
	for name, newer := range map[string]bool{
		"cri-o-1.36.7": false, "cri-o-1.37": true, "cri-o-9.99": true, "podman-6.0.3": false, "podman-7.0": true,
		"skopeo-1.9.3": false,
		"skopeo-1.25":  true, "containers-image-5.42.0": false, "openshift-4.23": false,
	} {
		r, err := LookupReader(name)
		if err != nil {
			t.Fatal(err)
		}
		if r.Newer != newer || newer == (len(r.Advisories()) > 0) || newer &&
			!strings.HasPrefix(r.Note, "newer than the newest known, ") {
			t.Errorf("%s: newer %t, note %q, %d holes", name, r.Newer, r.Note, len(r.Advisories()))
		}
	}
	if r := LookupRuntime("cri-o", "9.99.0"); len(r.Advisories) > 0 {
		t.Errorf("holes of CRI-O 9.99.0: %v", r.Advisories)
	}
}
