package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/trust"
	"github.com/nodetrust/nodetrust/verify"
)

// A featureRow is a policy that needs one feature of its reader.
type featureRow struct {
	name     string
	feature  trust.Feature // "" if every reader has it
	policy   string
	rejected bool // by all readers
}

func featureRows() []featureRow {
	gpg := func(rest string) string { return `[{"type":"signedBy","keyType":"GPGKeys",` + rest + `}]` }
	sigstore := func(rest string) string { return `[{"type":"sigstoreSigned",` + rest + `}]` }
	at := func(scope, reqs string) string { return docker(`"` + scope + `":` + reqs) }
	identity := func(rest string) string { return at("a.b/c", gpg(`"keyPath":"/k","signedIdentity":{`+rest+`}`)) }
	const fulcio = `"fulcio":{"caPath":"/ca","oidcIssuer":"i","subjectEmail":"e"}`
	return []featureRow{
		{"accept and reject", "", at("a.b/c", accept), false},
		{"other transports", "", `{"default":` + reject + `,"transports":{"docker-daemon":{"":` + accept + `},"containers-storage":{"":` + accept + `},"dir":{"/a":` + accept + `},"oci":{"/a":` + accept + `},"oci-archive":{"":` + accept + `},"docker-archive":{"":` + accept + `},"atomic":{"":` + accept + `}}}`, false},
		{"keyPath", "", at("a.b/c", gpg(`"keyPath":"/k"`)), false},
		{"keyData", "", at("a.b/c", gpg(`"keyData":"aGk="`)), false},
		{"several signers", "", at("a.b/c", `[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"},{"type":"signedBy","keyType":"GPGKeys","keyPath":"/l"}]`), false},
		{"matchExact", "", identity(`"type":"matchExact"`), false},
		{"matchRepoDigestOrExact", "", identity(`"type":"matchRepoDigestOrExact"`), false},
		{"matchRepository", "", identity(`"type":"matchRepository"`), false},
		{"exactReference", "", identity(`"type":"exactReference","dockerReference":"a.b/c:d"`), false},
		{"exactRepository", "", identity(`"type":"exactRepository","dockerRepository":"a.b/c"`), false},
		{"remapIdentity", trust.FeatureRemapIdentity, identity(`"type":"remapIdentity","prefix":"a.b","signedPrefix":"c.d"`), false},
		{"wildcard", trust.FeatureWildcard, at("*.b", gpg(`"keyPath":"/k"`)), false}, // older readers load it and never match
		{"keyPaths", trust.FeatureKeyPaths, at("a.b/c", gpg(`"keyPaths":["/k","/l"]`)), false},
		{"sigstore keyPath", trust.FeatureSigstore, at("a.b/c", sigstore(`"keyPath":"/k"`)), false},
		{"sigstore keyData", trust.FeatureSigstore, at("a.b/c", sigstore(`"keyData":"aGk="`)), false},
		{"fulcio", trust.FeatureFulcio, at("a.b/c", sigstore(fulcio+`,"rekorPublicKeyPath":"/r"`)), false},
		{"rekor", trust.FeatureRekor, at("a.b/c", sigstore(`"keyPath":"/k","rekorPublicKeyData":"aGk="`)), false},
		{"sigstore keyPaths", trust.FeatureSigstoreKeys, at("a.b/c", sigstore(`"keyPaths":["/k","/l"]`)), false},
		{"sigstore keyDatas", trust.FeatureSigstoreKeys, at("a.b/c", sigstore(`"keyDatas":["aGk="]`)), false},
		{"several rekor keys", trust.FeatureSigstoreKeys, at("a.b/c", sigstore(`"keyPath":"/k","rekorPublicKeyPaths":["/r"]`)), false},
		{"pki", trust.FeaturePKI, at("a.b/c", sigstore(`"pki":{"caRootsPath":"/ca","subjectHostname":"h"}`)), false},
		{"two key sources", "", at("a.b/c", gpg(`"keyPath":"/k","keyData":"aGk="`)), true},
		{"unknown key", "", `{"default":` + reject + `,"comment":""}`, true},
		{"no default", "", `{"transports":{}}`, true},
	}
}

// featureReader really loads a policy.json.
type featureReader struct {
	name  string
	skip  string // why it can't be asked here
	loads func(t *testing.T, policy string) (loads bool, message string)
}

// featureReaders are the library in this program, and what the machine has of Debian 12's programs. Neither of these gets
// as far as the image: the policy is loaded first.
func featureReaders() []featureReader {
	out := []featureReader{{CurrentLibrary, "", func(_ *testing.T, policy string) (bool, string) {
		err := verify.LoadPolicy([]byte(policy), "")
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
			text, err := exec.CommandContext(t.Context(), program, args(dir, filepath.Join(dir, "policy.json"))...).CombinedOutput()
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
			return []string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs", "pull", "--signature-policy", policy, "dir:" + dir + "/none"}
		})
	} else {
		out = append(out, featureReader{name: "podman-4.3", skip: "podman's storage needs root"})
	}
	return out
}

// TestFeaturesByReader holds each cell of the table of features and readers against a reader that really loads the file, and
// lint's word against it.
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
			for _, row := range featureRows() {
				t.Run(row.name, func(t *testing.T) {
					got, message := by.loads(t, row.policy)
					table := !row.rejected && (row.feature == "" || row.feature == trust.FeatureWildcard || reader.Supports(row.feature))
					if got != table {
						t.Errorf("loads: %v, the table says %v: %s", got, table, message)
					}
					if word := lintLoads(t, row.policy, by.name); word != got {
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

// TestEveryFeatureHasARow: a feature that is added to the table of readers is loaded by real ones too. That old readers ignore
// the name lookaside is no matter of loading.
func TestEveryFeatureHasARow(t *testing.T) {
	rows := map[trust.Feature]bool{trust.FeatureLookaside: true}
	for _, row := range featureRows() {
		rows[row.feature] = true
	}
	for _, f := range trust.Features() {
		if !rows[f.Feature] {
			t.Errorf("no policy of featureRows needs %q", f.Feature)
		}
	}
}

// TestOlderReaders holds lint's word on real policies against the verdicts that were recorded with older versions of the library.
// corpus.json names the version for each.
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
