package lint

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// A featureRow is a policy that needs one feature of its reader, or that no reader should take.
type featureRow struct {
	Name     string
	Feature  trust.Feature // "" if every reader has it
	Policy   json.RawMessage
	Rejected bool // by all readers
}

func (row featureRow) loads(reader trust.Reader) bool {
	// What a reader ignores it loads.
	return !row.Rejected && (row.Feature == "" || row.Feature == trust.FeatureWildcard || reader.Supports(row.Feature))
}

func featureRows(t *testing.T) []featureRow {
	t.Helper()
	b, err := os.ReadFile("testdata/features.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []featureRow
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// featureReader really loads a policy.json.
type featureReader struct {
	name  string
	skip  string // why it can't be asked here
	loads func(t *testing.T, policy string) (loads bool, message string)
}

// featureReaders are the library in this program, and what the machine has of Debian 12's programs. Neither of these
// gets as far as the image: the policy is loaded first.
func featureReaders() []featureReader {
	out := []featureReader{{CurrentLibrary, "", func(_ *testing.T, policy string) (bool, string) {
		err := library.LoadPolicy([]byte(policy), "")
		if err != nil {
			return false, err.Error()
		}
		return true, ""
	}}}
	add := func(program, version, reader string, args func(dir, policy string) []string) {
		have, err := exec.Command(program, "--version").Output()
		if err != nil || !strings.Contains(string(have), " "+version) {
			out = append(out, featureReader{name: reader, skip: program + " " + version + " is not installed"})
			return
		}
		out = append(out, featureReader{reader, "", func(t *testing.T, policy string) (bool, string) {
			dir, err := os.MkdirTemp("", "nt") // podman takes no long names
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			write(t, dir, map[string]string{"policy.json": policy})
			text, err := exec.CommandContext(t.Context(), program,
				args(dir, filepath.Join(dir, "policy.json"))...).CombinedOutput()
			switch {
			case err == nil:
				t.Fatalf("%s copied an image that there is none of", program)
			case strings.Contains(string(text), "invalid policy in"):
				return false, string(text)
			case strings.Contains(string(text), "none/manifest.json: no such file or directory"):
				return true, ""
			}
			t.Fatalf("%s: %v: %s", program, err, text)
			return false, ""
		}})
	}
	add("skopeo", "1.9.3", "skopeo-1.9", func(dir, policy string) []string {
		return []string{"--policy", policy, "copy", "dir:" + dir + "/none", "dir:" + dir + "/out"}
	})
	if os.Getuid() == 0 {
		add("podman", "4.3.1", "podman-4.3", func(dir, policy string) []string {
			return []string{
				"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs", "pull",
				"--signature-policy", policy, "dir:" + dir + "/none",
			}
		})
	} else {
		out = append(out, featureReader{name: "podman-4.3", skip: "podman's storage needs root"})
	}
	return out
}

// TestFeaturesByReader holds each cell of the table of features and readers against a reader that really loads the
// file, and lint's word against it.
func TestFeaturesByReader(t *testing.T) {
	for _, by := range featureReaders() {
		t.Run(by.name, func(t *testing.T) {
			if by.skip != "" {
				t.Skip(by.skip)
			}
			reader, err := trust.LookupReader(by.name)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range featureRows(t) {
				t.Run(row.Name, func(t *testing.T) {
					got, message := by.loads(t, string(row.Policy))
					if table := row.loads(reader); got != table {
						t.Errorf("loads: %v, the table says %v: %s", got, table, message)
					}
					if word := lintLoads(t, string(row.Policy), by.name); word != got {
						t.Errorf("loads: %v, lint says %v: %s", got, word, message)
					}
				})
			}
		})
	}
}

func lintLoads(t *testing.T, policy, reader string) bool {
	t.Helper()
	dir := write(t, t.TempDir(), map[string]string{"policy.json": policy})
	r, err := Run([]string{filepath.Join(dir, "policy.json")}, Options{Readers: []string{reader}, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return r.Readers[0].Loads
}

// TestEveryFeatureHasARow: a feature that is added to the table of readers is loaded by real ones too. That old
// readers ignore the name lookaside is no matter of loading.
func TestEveryFeatureHasARow(t *testing.T) {
	rows := map[trust.Feature]bool{trust.FeatureLookaside: true}
	for _, row := range featureRows(t) {
		rows[row.Feature] = true
	}
	for _, f := range trust.Features() {
		if !rows[f.Feature] {
			t.Errorf("no policy of featureRows needs %q", f.Feature)
		}
	}
}

// recorded is what hack/readers has seen one version of the library do.
type recorded struct {
	Library, Module string
	Seen            struct {
		Policies                      map[string]string
		Wildcard                      bool
		Lookaside, Policy, Registries map[string]string
	}
}

func recordedReaders(t *testing.T) []recorded {
	t.Helper()
	b, err := os.ReadFile("testdata/readers.json")
	if err != nil {
		t.Fatal(err)
	}
	var out []recorded
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRecordedFeatures holds the table of features, and lint's word, against what old versions of the library were
// seen to load. `make readers` records it anew.
func TestRecordedFeatures(t *testing.T) {
	rows := featureRows(t)
	for _, by := range recordedReaders(t) {
		t.Run(by.Library, func(t *testing.T) {
			name := "containers-image-" + by.Library
			reader, err := trust.LookupReader(name)
			if err != nil {
				t.Fatal(err)
			}
			if len(by.Seen.Policies) != len(rows) {
				t.Fatalf("%d policies were recorded, there are %d: run make readers", len(by.Seen.Policies), len(rows))
			}
			for _, row := range rows {
				got := by.Seen.Policies[row.Name] == "loads"
				if row.Name == "empty keyPath" && reader.Library.Less(trust.Version{5, 22, 0}) {
					// Taken for a path, and refused with the first signature. lint calls it an error, loaded or not.
					if !got {
						t.Errorf("%s: was seen not to load", row.Name)
					}
					continue
				}
				if table := row.loads(reader); got != table {
					t.Errorf("%s: was seen: %q, the table says %v", row.Name, by.Seen.Policies[row.Name], table)
				}
				if word := lintLoads(t, string(row.Policy), name); word != got {
					t.Errorf("%s: was seen: %q, lint says %v", row.Name, by.Seen.Policies[row.Name], word)
				}
			}
			if by.Seen.Wildcard != reader.Supports(trust.FeatureWildcard) {
				t.Errorf("wildcards match: %v, the table says otherwise", by.Seen.Wildcard)
			}
		})
	}
}

// TestRecordedPlaces holds what the table says of keys and search paths against what old versions were seen to do.
func TestRecordedPlaces(t *testing.T) {
	names := map[string]string{
		"/root/.config/containers/policy.json": "user", "/etc/containers/policy.json": "etc",
		"/usr/share/containers/policy.json":     "usr",
		"/root/.config/containers/registries.d": "user", "/etc/containers/registries.d": "etc",
		"/etc/containers/registries.rootful.d": "rootful", "/usr/share/containers/registries.d": "usr",
	}
	for _, by := range recordedReaders(t) {
		t.Run(by.Library, func(t *testing.T) {
			reader, err := trust.LookupReader("containers-image-" + by.Library)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"only lookaside": "lookaside", "only sigstore": "sigstore", "both": reader.LookasideKey()}
			if reader.LookasideKey() == "sigstore" {
				want["only lookaside"] = "none"
			}
			if !maps.Equal(by.Seen.Lookaside, want) {
				t.Errorf("keys were seen: %v, the table says %v", by.Seen.Lookaside, want)
			}
			for there, got := range by.Seen.Policy {
				want := "none"
				if strings.HasPrefix(there, "environment") && reader.Places().Merges {
					want = "environment" // what lint warns of: no place of the host's
				} else {
					for _, p := range reader.Places().Policy {
						if slices.Contains(strings.Split(there, " and "), names[p]) {
							want = names[p]
							break
						}
					}
				}
				if got != want {
					t.Errorf("policy.json in %s: %s was seen to count, the table says %s", there, got, want)
				}
			}
			for there, got := range by.Seen.Registries {
				var want []string
				for _, p := range reader.Places().Registries {
					if slices.Contains(strings.Split(there, " and "), names[p]) {
						want = append(want, names[p])
						if !reader.Places().Merges {
							break
						}
					}
				}
				seen := strings.Split(got, " and ")
				slices.Sort(want)
				slices.Sort(seen)
				if !slices.Equal(seen, want) {
					t.Errorf("registries.d in %s: %v was seen to count, the table says %v", there, seen, want)
				}
			}
		})
	}
}

// TestEveryLibraryIsRecorded: a version between two recorded ones behaves like both, so no row of the table of
// readers rests on a guess. Each of the versions where a feature came is recorded, with one before it.
func TestEveryLibraryIsRecorded(t *testing.T) {
	var versions []trust.Version
	for _, by := range recordedReaders(t) {
		r, err := trust.LookupReader("containers-image-" + by.Library)
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, r.Library)
	}
	for _, f := range trust.Features() {
		r, err := trust.LookupReader("containers-image-" + f.Library)
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.Index(versions, r.Library); i < 1 {
			t.Errorf("%s came with %s, which was not recorded", f.Feature, f.Library)
		}
	}
	for _, r := range trust.Readers() {
		if r.Source == "" {
			t.Errorf("%s has no source", r.Name)
		}
		if r.Library.Less(versions[0]) || versions[len(versions)-1].Less(r.Library) {
			t.Errorf("%s has a library that is older or newer than all that were recorded", r.Name)
		}
	}
}

// TestOlderReaders holds lint's word on real policies against the verdicts that were recorded with older versions of
// the library. corpus.json names the version for each.
func TestOlderReaders(t *testing.T) {
	dir, entries := corpus(t)
	checked := 0
	for _, e := range entries {
		for by, verdict := range e.Older {
			version, _, _ := strings.Cut(by, " (")
			reader := "containers-image-" + strings.TrimPrefix(version, "v")
			if program, _, ok := strings.Cut(version, " "); ok {
				reader = strings.Replace(version, " ", "-", 1)
				if program != "skopeo" {
					t.Fatalf("%s: recorded by %q, which nobody here knows", e.File, by)
				}
			}
			r, err := Run([]string{filepath.Join(dir, e.File)}, Options{Readers: []string{reader}, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.HasPrefix(verdict, "accepted"); r.Readers[0].Loads != want {
				t.Errorf("%s, %s: recorded %q, got %+v", e.File, reader, verdict, r.Readers)
			}
			checked++
		}
	}
	if checked < 50 {
		t.Errorf("only %d recorded verdicts were found", checked)
	}
}
