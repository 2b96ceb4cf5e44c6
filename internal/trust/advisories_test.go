package trust

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"
)

// fooled is what hack/readers has seen one version of the library do with the inputs.
type fooled struct {
	Library string
	Seen    map[string]struct {
		Fooled bool
		Said   string
	}
	version Version
}

// recorded returns what was seen, from the oldest version on, and the names of the inputs.
func recorded(t *testing.T) (seen []fooled, inputs []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/advisories.json")
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Inputs []struct{ ID string }
		Seen   []fooled
	}
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	for _, in := range record.Inputs {
		inputs = append(inputs, in.ID)
	}
	for i := range record.Seen {
		v, n, ok := parseVersion(record.Seen[i].Library)
		if !ok || n != len(v) || i > 0 && !record.Seen[i-1].version.Less(v) {
			t.Fatalf("version %s: is none, or out of order", record.Seen[i].Library)
		}
		record.Seen[i].version = v
	}
	return record.Seen, inputs
}

// TestRecordedAdvisories holds each advisory against what really fooled old versions of the library. `make readers`
// records it anew.
func TestRecordedAdvisories(t *testing.T) {
	seen, inputs := recorded(t)
	if len(inputs) != len(Advisories()) {
		t.Errorf("%d inputs are recorded, there are %d advisories", len(inputs), len(Advisories()))
	}
	for _, a := range Advisories() {
		t.Run(a.ID, func(t *testing.T) {
			for _, by := range seen {
				got, ok := by.Seen[a.ID]
				if !ok {
					t.Fatalf("%s was not asked: run make readers", by.Library)
				}
				if got.Fooled != a.In(by.version) {
					t.Errorf("%s was seen to be fooled: %v (%s), the table says %v", by.Library, got.Fooled, got.Said,
						a.In(by.version))
				}
			}
		})
	}
}

// TestAdvisoryBounds: of each line with a fix, the first version with it is recorded and one without it, and so is
// the oldest of all. That no version lies between these two is for who extends hack/readers' list to see.
func TestAdvisoryBounds(t *testing.T) {
	seen, _ := recorded(t)
	has := func(v Version) bool {
		return slices.ContainsFunc(seen, func(f fooled) bool { return f.version == v })
	}
	for _, a := range Advisories() {
		for _, text := range append([]string{a.Fixed}, a.Backports...) {
			v := version(text)
			if !has(v) {
				t.Errorf("%s: %s is not recorded", a.ID, v)
			}
			before := v[2] > 0 && has(Version{v[0], v[1], v[2] - 1})
			if v[2] == 0 {
				before = slices.ContainsFunc(seen, func(f fooled) bool { return f.version[1] == v[1]-1 })
			}
			if !before {
				t.Errorf("%s: of what came before %s nothing is recorded", a.ID, v)
			}
		}
		if a.Since != "" && !has(version(a.Since)) {
			t.Errorf("%s: %s is not recorded", a.ID, a.Since)
		}
	}
	if seen[0].version != (Version{5, 0, 0}) {
		t.Errorf("the oldest that is recorded is %s", seen[0].Library)
	}
}

func TestAdvisory_In(t *testing.T) {
	a := Advisory{Since: "5.10.0", Fixed: "5.30.1", Backports: []string{"5.29.3", "5.24.3"}}
	for version, want := range map[Version]bool{
		{5, 9, 9}: false, {5, 10, 0}: true, {5, 24, 2}: true, {5, 24, 3}: false, {5, 24, 4}: false, {5, 25, 0}: true,
		{5, 29, 2}: true, {5, 29, 3}: false, {5, 30, 0}: true, {5, 30, 1}: false, {5, 31, 0}: false, {6, 0, 0}: false,
	} {
		if got := a.In(version); got != want {
			t.Errorf("%s: got %v", version, got)
		}
	}
}

func TestReader_Advisories(t *testing.T) {
	for name, want := range map[string][]string{
		"containers-image-5.42.1": nil,
		"containers-image-5.42.0": {"forged-schema1"},
		"containers-image-5.39.4": nil,
		"containers-image-5.30.0": {"forged-schema1", "unchecked-digest"},
		"containers-image-5.29.3": {"forged-schema1"},
		"podman-4.3":              {"forged-schema1", "unchecked-digest", "endless-signatures"},
		"rhel7": {
			"forged-schema1", "unchecked-digest", "endless-signatures", "ambiguous-manifest",
			"huge-manifest",
		},
	} {
		r, err := LookupReader(name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range r.Advisories() {
			got = append(got, a.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestAdvisories: names go into metrics and annotations, and each is explained.
func TestAdvisories(t *testing.T) {
	page, err := os.ReadFile("../../docs/advisories.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range Advisories() {
		if !regexp.MustCompile(`^[a-z][a-z0-9-]{2,30}$`).MatchString(a.ID) || a.Title == "" || a.Fixed == "" {
			t.Errorf("%+v", a)
		}
		if !regexp.MustCompile("(?m)^## " + a.ID + "$").Match(page) {
			t.Errorf("docs/advisories.md has no section %s", a.ID)
		}
		if library.Less(version(a.Fixed)) {
			t.Errorf("%s: this program has it", a.ID)
		}
	}
}

func TestParseLibrary(t *testing.T) {
	for in, want := range map[string]string{
		"v5.29.2": "5.29.2", "v5.29.3-0.20240101000000-0123456789ab": "5.29.2",
		"v5.30.0-rc1": "5.29.0", "v5.30": "", "": "", "(devel)": "", "v5.0.0-rc1": "",
	} {
		got, ok := ParseLibrary(in)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: got %s, %v", in, got, ok)
		}
	}
}
