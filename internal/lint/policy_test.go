package lint

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	// With them linked the library checks the scopes that lint has rules of its own for.
	_ "go.podman.io/image/v5/directory"
	_ "go.podman.io/image/v5/oci/layout"

	"github.com/nodetrust/nodetrust/internal/verify/library"
)

func lintPolicy(data string) (*policyFacts, []Finding) {
	l := linter{now: time.Now()}
	p := l.policy(file{path: "policy.json", data: []byte(data)})
	return p, l.sorted()
}

// places lists findings as "line code" for comparison.
func places(fs []Finding) string {
	var out []string
	for _, f := range fs {
		out = append(out, fmt.Sprintf("%d %s", f.Line, f.Code))
	}
	return strings.Join(out, ", ")
}

const accept, reject = `[{"type":"insecureAcceptAnything"}]`, `[{"type":"reject"}]`

func docker(scopes string) string {
	return "{\"default\":" + reject + ",\n\"transports\":{\"docker\":{\n" + scopes + "}}}"
}

func TestPolicy(t *testing.T) {
	signedBy := func(rest string) string { return `[{"type":"signedBy","keyType":"GPGKeys",` + rest + `}]` }
	const key = `"keyPath":"/k"`
	for _, tt := range []struct{ name, in, want string }{
		{"clean", docker(`"example.com/a":` + signedBy(key)), ""},
		{"empty", "", "1 bad-json"},
		{"comment", "{\n// why\n\"default\":" + reject + "}", "2 bad-json"},
		{"trailing", "{\"default\":" + reject + "}\n}", "2 bad-json"},
		{"byte order mark", "\xef\xbb\xbf{\"default\":" + reject + "}", "1 bad-json"},
		{"list", "[]", "1 wrong-type"},
		{"missing default", "{\n}", "1 missing-default"},
		{"wrong case", "{\n\"Default\":" + reject + "}", "1 missing-default, 2 unknown-key"},
		{"comment key", "{\"default\":" + reject + ",\n\"comment\":1}", "2 unknown-key"},
		{"duplicate", "{\"default\":" + reject + ",\n\"default\":" + reject + "}", "2 duplicate-key"},
		{"duplicate scope", docker(`"example.com/a":` + reject + ",\n" + `"example.com/a":` + reject), "4 duplicate-key"},
		{"empty requirements", docker(`"example.com/a":[]`), "3 empty-requirements"},
		{"null requirements", docker(`"example.com/a":null`), "3 wrong-type"},
		{"null requirement", docker(`"example.com/a":[null]`), "3 wrong-type"},
		{"unknown type", docker("\"example.com/a\":[\n{\"type\":\"insecureAcceptEverything\"}]"), "4 unknown-requirement"},
		{"no type", docker(`"example.com/a":[{}]`), "3 missing-key"},
		{
			"unknown transport", "{\"default\":" + reject + ",\"transports\":{\n\"dockr\":{\"\":" + reject + "}}}",
			"2 unknown-transport",
		},
		{"two sources", docker(`"example.com/a":` + signedBy(key+`,"keyData":"aGk="`)), "3 several-key-sources"},
		{"no source", docker(`"example.com/a":[{"type":"signedBy","keyType":"GPGKeys"}]`), "3 missing-key"},
		{"bad keyType", docker(`"example.com/a":[{"type":"signedBy","keyType":"GPG",` + key + `}]`), "3 bad-key-type"},
		{"missing keyType", docker(`"example.com/a":[{"type":"signedBy",` + key + `}]`), "3 missing-key"},
		{
			"x509", docker(`"example.com/a":[{"type":"signedBy","keyType":"X509Certificates",` + key + `}]`),
			"3 unimplemented-key-type",
		},
		{"empty path", docker(`"example.com/a":` + signedBy(`"keyPath":""`)), "3 bad-requirement"},
		{"no paths", docker(`"example.com/a":` + signedBy(`"keyPaths":[]`)), "3 empty-key-paths"},
		{"relative path", docker(`"example.com/a":` + signedBy(`"keyPath":"k"`)), "3 relative-key-path"},
		{"empty path in a list", docker(`"example.com/a":` + signedBy(`"keyPaths":["/k",""]`)), "3 relative-key-path"},
		{"bad base64", docker(`"example.com/a":` + signedBy(`"keyData":"!"`)), "3 bad-requirement"},
		{
			"base layer", docker(`"example.com/a":[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}]`),
			"3 signed-base-layer",
		},
		{
			"identity", docker(`"example.com/a":` + signedBy(key+`,"signedIdentity":{"type":"matchRepo"}`)),
			"3 unknown-identity",
		},
		{"identity incomplete", docker(`"example.com/a":` +
			signedBy(key+`,"signedIdentity":{"type":"remapIdentity","prefix":"example.com"}`)), "3 missing-key"},
		{"reference without tag", docker(`"example.com/a":` +
			signedBy(key+`,"signedIdentity":{"type":"exactReference","dockerReference":"example.com/a"}`)), "3 bad-requirement"},
		{"fulcio without rekor", docker(`"example.com/a":[{"type":"sigstoreSigned","fulcio":{"caPath":"/ca","oidcIssuer":"i","subjectEmail":"e"}}]`), "3 missing-key"},
		{"url scope", docker(`"https://example.com/a":` + signedBy(key)), "3 dead-scope"},
		{"star", docker(`"example.com/*":` + signedBy(key)), "3 dead-scope"},
		{"upper case", docker(`"*.Example.com":` + signedBy(key)), "3 upper-case-host"},
		{"sha512", docker(`"quay.io/a/b@sha512:` + strings.Repeat("0a", 64) + `":` + signedBy(key)), ""},
		{"odd port", docker(`"quay.io:99999/a":` + signedBy(key)), ""},
		{"short name", docker(`"busybox":` + signedBy(key)), "3 dead-scope"},
		{"tag scope", docker(`"example.com/a:v1":` + signedBy(key)), "3 tag-scope"},
		{"digest scope", docker(`"example.com/a@sha256:` + strings.Repeat("a", 64) + `":` + signedBy(key)), ""},
		{"hole", docker(`"example.com":` + signedBy(key) + ",\n" + `"example.com/a/b":` + accept), "4 hole-below-signed"},
		{
			"hole below wildcard", docker(`"*.com":` + signedBy(key) + ",\n" + `"example.com:5000/a":` + accept),
			"4 hole-below-signed",
		},
		{
			"hole below default scope", docker(`"":` + signedBy(key) + ",\n" + `"example.com/a":` + accept),
			"4 hole-below-signed",
		},
		{"allowed below reject", docker(`"example.com/a":` + accept), ""},
		{"moot", docker(`"":` + accept + ",\n" + `"example.com/a":` + signedBy(key)), "3 default-reject-moot, 4 hole"},
		{"accepts everything", `{"default":` + accept + `}`, "1 accepts-everything"},
		{"both", docker(`"example.com/a":[{"type":"signedBy","keyType":"GPGKeys",` + key + `},{"type":"sigstoreSigned",` +
			key + `}]`), "3 both-signatures"},
		{"release payload", docker(`"quay.io":` + signedBy(key)), "3 release-payload"},
		{
			"release payload below", docker(`"quay.io/openshift-release-dev":` + accept + ",\n" +
				`"quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:` + strings.Repeat("a", 64) + `":` + signedBy(key)),
			"4 release-payload",
		},
		{"release payload by wildcard", docker(`"*.io":` + signedBy(key)), "3 release-payload"},
		{
			"release payload exempt", docker(`"quay.io":` + signedBy(key) + ",\n" + `"quay.io/openshift-release-dev":` + reject),
			"",
		},
		{"release image", docker(`"quay.io/openshift-release-dev/ocp-release":` + signedBy(key)), ""},
		{
			"release payload by sigstore", docker(`"quay.io/openshift-release-dev":[{"type":"sigstoreSigned",` + key + `}]`),
			"",
		},
		{"wildcard with port", docker(`"*.example.com:5000":` + signedBy(key)), "3 dead-scope"},
		{"trailing slash", docker(`"example.com/":` + signedBy(key)), "3 dead-scope"},
		{"bare star", docker(`"*":` + signedBy(key)), "3 dead-scope"},
		{"library missing", docker(`"docker.io/busybox":` + signedBy(key) + ",\n" + `"docker.io/library/alpine":` +
			signedBy(key) + ",\n" + `"docker.io/corp":` + signedBy(key)), "3 library-missing"},
		{
			"bad dir scope", "{\"default\":" + reject + ",\"transports\":{\"dir\":{\n\"relative\":" + reject + "}}}",
			"2 bad-scope",
		},
		{
			"bad atomic scope", "{\"default\":" + reject + ",\"transports\":{\"atomic\":{\n\"a/b/c/d\":" + reject + "}}}",
			"2 bad-scope",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, fs := lintPolicy(tt.in)
			if got := places(fs); got != strings.TrimSuffix(tt.want, ", 4 hole") {
				t.Errorf("got %s, want %s\n%v", got, tt.want, fs)
			}
			if p.broken != slices.ContainsFunc(fs, func(f Finding) bool { return slices.Contains(breaking, string(f.Code)) }) {
				t.Errorf("broken is %v: %v", p.broken, fs)
			}
			agrees(t, []byte(tt.in))
		})
	}
}

// breaking are the codes of findings with which no reader loads the file.
var breaking = []string{
	"bad-json", "wrong-type", "missing-default", "unknown-key", "duplicate-key", "empty-requirements",
	"unknown-requirement", "missing-key",
	"several-key-sources", "bad-key-type", "bad-requirement", "unknown-identity", "bad-scope", "policy-rejected",
}

func TestPolicyMessages(t *testing.T) {
	_, fs := lintPolicy(docker("\"example.com/a\":[\n {\"type\":\"signedBy\",\"keyType\":\"GPGKeys\",\n  \"keypath\":\"/k\"}]"))
	i := slices.IndexFunc(fs, func(f Finding) bool { return f.Code == "unknown-key" })
	if i < 0 {
		t.Fatalf("no unknown-key in %v", fs)
	}
	if f := fs[i]; f.Line != 5 || !strings.HasPrefix(f.Message, `transports.docker["example.com/a"][0].keypath: `) ||
		f.Hint != `did you mean "keyPath"?` {
		t.Errorf("got %+v", f)
	}
}

// linksAll is set when every transport that lint has rules for is linked into the test.
var linksAll = false

// agrees checks what no input may break: lint and the library agree on whether the file loads, a file that doesn't
// load has an error finding, and lines are in the file.
func agrees(t *testing.T, data []byte) {
	t.Helper()
	l := linter{now: time.Now()}
	p := l.policy(file{path: "policy.json", data: data})
	err := library.LoadPolicy(data, "")
	// Runtimes link transports that reject scopes; this program takes what is below those it lacks.
	byRule := slices.ContainsFunc(l.findings, func(f Finding) bool { return f.Code == "bad-scope" })
	if (err != nil) != p.broken && !(p.broken && byRule && !linksAll) {
		t.Fatalf("broken is %v, the library says %v\n%s\n%v", p.broken, err, data, l.findings)
	}
	if p.broken && !slices.ContainsFunc(l.findings, func(f Finding) bool { return f.Severity == Error }) {
		t.Fatalf("the library says %v and there is no error finding\n%s", err, data)
	}
	lines := 1 + strings.Count(string(data), "\n")
	for _, f := range l.findings {
		if f.Line < 1 || f.Line > lines {
			t.Fatalf("line %d of %d: %+v\n%s", f.Line, lines, f, data)
		}
		// The message names the key in the line it gives.
		if f.Code == "duplicate-key" && f.Line == 0 {
			t.Fatal(f)
		}
	}
}

// seeds are policies that use everything there is.
func seeds() []string {
	const id = `,"signedIdentity":{"type":"%s"}`
	req := []string{
		`{"type":"insecureAcceptAnything"}`, `{"type":"reject"}`,
		`{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}`,
		`{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k","/l"]` + fmt.Sprintf(id, "matchExact") + `}`,
		`{"type":"signedBy","keyType":"GPGKeys","keyData":"aGk=","signedIdentity":{"type":"exactReference","dockerReference":"a.b/c:d"}}`,
		`{"type":"signedBy","keyType":"X509Certificates","keyPath":"/k","signedIdentity":{"type":"exactRepository","dockerRepository":"a.b/c"}}`,
		`{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","signedIdentity":{"type":"remapIdentity","prefix":"a.b","signedPrefix":"c.d/e"}}`,
		`{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r"` + fmt.Sprintf(id, "matchRepository") + `}`,
		`{"type":"sigstoreSigned","keyDatas":["aGk="],"rekorPublicKeyDatas":["aGk="]}`,
		`{"type":"sigstoreSigned","keyPath":"","keyData":"aGk="}`,
		`{"type":"sigstoreSigned","fulcio":{"caData":"aGk=","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyData":"aGk="}`,
		`{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectHostname":"h"}}`,
		`{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchRepoDigestOrExact"}}`,
	}
	var out []string
	for i, r := range req {
		out = append(out, `{"default":[`+r+`]}`,
			"{\n \"default\": [{\"type\": \"reject\"}],\n \"transports\": {\n  \"docker\": {\"\": ["+r+"],\n   \"a.b/c\": ["+
				req[(i+3)%len(req)]+",\n"+req[(i+1)%len(req)]+"]},\n  \"dir\": {\"/a\": ["+r+"]}, \"atomic\": {\"a.b/c/d:e\": ["+r+
				"]}, \"docker-daemon\": {\"\": ["+r+"]}\n }\n}\n")
	}
	return out
}

// mutate changes a policy a little, mostly into something that is still JSON.
func mutate(rng *rand.Rand, s string) string {
	tokens := []string{
		`null`, `""`, `[]`, `{}`, `0`, `true`, `"keyPath"`, `"keyData"`, `"type"`, `"signedBy"`, `"reject"`, `"x"`,
		`"GPGKeys"`, `"default"`,
		`"transports"`, `"docker"`, `"fulcio"`, `"pki"`, `"keyPaths"`, `["/k"]`, `{"type":"matchExact"}`, `,`, `:`, `{`, `}`,
		`[`, `]`, `/`, "\n", `"`,
		`"signedIdentity"`, `"/"`, `"relative"`, `"a/b/c/d"`, `"tarball"`, `"docker-archive"`, `"oci"`, `"sif"`, `"Type"`,
	}
	for range 1 + rng.IntN(3) {
		// Cut the text into tokens of JSON and change one of them.
		parts := split(s)
		i := rng.IntN(len(parts))
		switch rng.IntN(5) {
		case 0:
			parts = slices.Delete(parts, i, i+1)
		case 1:
			parts[i] = tokens[rng.IntN(len(tokens))]
		case 2:
			parts = slices.Insert(parts, i, tokens[rng.IntN(len(tokens))])
		case 3:
			j := rng.IntN(len(parts))
			parts[i], parts[j] = parts[j], parts[i]
		case 4: // a member twice
			parts = slices.Insert(parts, i, `"type":"reject",`)
		}
		if s = strings.Join(parts, ""); s == "" {
			return s
		}
	}
	return s
}

// mutateTree changes one value of a policy, so that the result is JSON and often a policy.
func mutateTree(rng *rand.Rand, s string) string {
	var root any
	if err := json.Unmarshal([]byte(s), &root); err != nil {
		panic(err)
	}
	values := []any{
		nil, "", "a.b/c:d", "/k", "aGk=",
		[]any{},
		[]any{"/k"},
		map[string]any{},
		1, "reject", "GPGKeys", "matchRepository",
		map[string]any{"type": "reject"},
		[]any{map[string]any{"type": "insecureAcceptAnything"}},
		map[string]any{"type": "matchExact"},
	}
	keys := []string{
		"keyPath", "keyData", "keyPaths", "type", "signedIdentity", "", "a.b/c/d", "docker",
		"rekorPublicKeyPath", "/x", "subjectEmail",
	}
	var visit func(v any, left *int) any
	visit = func(v any, left *int) any {
		if *left--; *left == 0 {
			switch m, ok := v.(map[string]any); {
			case ok && rng.IntN(2) == 0:
				m[keys[rng.IntN(len(keys))]] = values[rng.IntN(len(values))]
				return m
			default:
				return values[rng.IntN(len(values))]
			}
		}
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				if *left > 0 {
					v[k] = visit(v[k], left)
				}
			}
		case []any:
			for i := range v {
				if *left > 0 {
					v[i] = visit(v[i], left)
				}
			}
		}
		return v
	}
	left := 1 + rng.IntN(24)
	b, err := json.MarshalIndent(visit(root, &left), "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// split cuts JSON into strings, words and single characters.
func split(s string) []string {
	var out []string
	for i := 0; i < len(s); {
		j := i + 1
		if s[i] == '"' {
			for j < len(s) && s[j] != '"' {
				j++
			}
			j = min(j+1, len(s))
		}
		out = append(out, s[i:j])
		i = j
	}
	if len(out) == 0 {
		out = []string{""}
	}
	return out
}

// sample is how many mutated files a test looks at, and what makes them: few and always the same ones, or, when `make
// soak` sets NODETRUST_SOAK_FILES, that many and others each time. The seed is in the log of a failure.
func sample(t *testing.T, few int) (int, *rand.Rand) {
	t.Helper()
	text := os.Getenv("NODETRUST_SOAK_FILES")
	if text == "" {
		return few, rand.New(rand.NewPCG(1, 2))
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 100 {
		t.Fatalf("NODETRUST_SOAK_FILES is %q, not a number of at least 100", text)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d files, seed %d", n, seed)
	return n, rand.New(rand.NewPCG(seed, 2))
}

// A sample of what FuzzPolicy looks for at length.
func TestPolicyAgreesWithLibrary(t *testing.T) {
	n, rng := sample(t, 2_000)
	all := seeds()
	loaded := 0
	for range n {
		s := all[rng.IntN(len(all))]
		if rng.IntN(2) == 0 {
			s = mutate(rng, s)
		} else {
			s = mutateTree(rng, s)
		}
		agrees(t, []byte(s))
		if library.LoadPolicy([]byte(s), "") == nil {
			loaded++
		}
	}
	t.Logf("%d of %d load", loaded, n)
	if loaded < n/10 || loaded > n*95/100 {
		t.Errorf("%d of %d samples load: the sample shows little", loaded, n)
	}
}

func FuzzPolicy(f *testing.F) {
	for _, s := range seeds() {
		f.Add([]byte(s))
	}
	f.Add([]byte(strings.Repeat("[", 20_000)))
	f.Fuzz(func(t *testing.T, data []byte) { agrees(t, data) })
}

func TestDeepJSON(t *testing.T) {
	for _, s := range []string{
		strings.Repeat("[", 100_000),
		strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000),
	} {
		agrees(t, []byte(s))
	}
}

// corpusEntry is a real file with the library's recorded verdict.
type corpusEntry struct {
	File, Kind, Verdict string
	Older               map[string]string
}

func corpus(t *testing.T) (string, []corpusEntry) {
	t.Helper()
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	b, err := os.ReadFile(filepath.Join(dir, "corpus/corpus.json"))
	if err != nil {
		t.Fatal(err)
	}
	var out []corpusEntry
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "corpus"), out
}

// corpusFindings are the codes found in real files, each of them true; files that are not named are clean.
var corpusFindings = map[string]string{
	"policy/mios-dev__MiOS--policy-023ced13.json": "unknown-requirement",
	// an excerpt with comments
	"policy/podman-container-tools__container-libs--containers-policy_json_5_md-x0.json": "bad-json",
	"policy/podman-container-tools__container-libs--containers-policy_json_5_md-x1.json": "bad-json",
	"policy/podman-container-tools__container-libs--containers-policy_json_5_md-x2.json": "accepts-everything",
	"policy/podman-container-tools__container-libs--policy_config_test_go-x1.json":       "accepts-everything",
	"policy/openshift__machine-config-operator--policy_yaml-x0.json":                     "accepts-everything",
	// keyPath "testdata/cosign.pub"
	"policy/podman-container-tools__container-libs--policy-cosign-c54b6819.json": "relative-key-path",
	// keys that are words; two policies of one scope become two entries
	"policy/openshift__machine-config-operator--helpers_test_go-x2.json":              "all-must-sign key-unreadable",
	"policy/Lumaeris__vedaos--policy-f38752a9.json":                                   "default-reject-moot",
	"policy/r0x0d__fedora-oci--policy-13ad5766.json":                                  "default-reject-moot",
	"policy/r0x0d__fedora-oci--policy-57d1578b.json":                                  "default-reject-moot",
	"policy/ublue-os__main--policy-0b2f16b1.json":                                     "default-reject-moot",
	"registriesd/podman-container-tools__container-libs--internet-user-89eec0ba.yaml": "insecure-lookaside",
	"registriesd/portieris-93--credentials-in-url.yaml":                               "credentials-in-url",
}

// corpusReasons says for each kind of finding in real files why it is none too many.
var corpusReasons = map[string]string{
	"unknown-requirement": "the library doesn't load the file",
	"bad-json":            "the library doesn't load the file: excerpts of a manual, with comments",
	"accepts-everything":  "examples and templates that in fact accept everything; who lints one on a node should know",
	"relative-key-path":   "works in the folder of that project's tests only",
	"key-unreadable":      "words in the place of keys, in the data of a test: no image would be accepted",
	"all-must-sign":       "the operator makes two entries of two policies for one scope: both signatures are needed, and that is documented as a surprise",
	"default-reject-moot": "reject in default and accept-everything for docker: the reject is never asked for registries, as nobody expects",
	"insecure-lookaside":  "http, as it says",
	"credentials-in-url":  "a password in a file that all may read",
}

func TestCorpus(t *testing.T) {
	for file, codes := range corpusFindings {
		for code := range strings.FieldsSeq(codes) {
			if corpusReasons[code] == "" {
				t.Errorf("%s: %s has no reason", file, code)
			}
		}
	}
	dir, entries := corpus(t)
	unused := maps.Clone(corpusFindings)
	defer func() {
		for file := range unused {
			t.Errorf("%s is not in the corpus", file)
		}
	}()
	for _, e := range entries {
		t.Run(e.File, func(t *testing.T) {
			p := filepath.Join(dir, e.File)
			r, err := Run([]string{p}, Options{Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Readers) != 1 || r.Readers[0].Loads != (e.Verdict == "accepted") {
				t.Errorf("recorded %s, got %+v", e.Verdict, r.Readers)
			}
			if !r.Readers[0].Loads && (r.Clean() || len(r.Findings) == 0 || r.Findings[0].Line == 0) {
				t.Errorf("does not load, and no finding says where: %+v", r.Findings)
			}
			var codes []string
			for _, f := range r.Findings {
				codes = append(codes, string(f.Code))
			}
			slices.Sort(codes)
			delete(unused, e.File)
			if got := strings.Join(slices.Compact(codes), " "); got != corpusFindings[e.File] {
				t.Errorf("finds %q, want %q: %+v", got, corpusFindings[e.File], r.Findings)
			}
			if data, err := os.ReadFile(p); err == nil && e.Kind == "policy" {
				agrees(t, data)
			}
		})
	}
}

// TestRealKeys lints Red Hat's key files. What is found in them is so: the release key of 2009 vouches for itself
// with SHA-1 until RHEL 9, the auxiliary key of RHEL 6 to 8 is DSA-1024, files hold an armor block for each key with
// text before it, and the post-quantum key is v6, for which GnuPG 2.2 drops the auxiliary key of RHEL 10.
func TestRealKeys(t *testing.T) {
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	for name, want := range map[string]string{
		"RPM-GPG-KEY-redhat7-release":     "warning key-several-blocks, warning key-preamble, warning key-sha1, warning key-sha1, warning key-weak",
		"RPM-GPG-KEY-redhat8-release":     "warning key-several-blocks, warning key-preamble, warning key-sha1, warning key-sha1, warning key-weak",
		"RPM-GPG-KEY-redhat9-release":     "warning key-several-blocks, warning key-preamble, warning key-sha1",
		"RPM-GPG-KEY-redhat9-beta":        "warning key-preamble, warning key-sha1",
		"RPM-GPG-KEY-redhat9-PQC-release": "error key-v6, warning key-pqc",
		"RPM-GPG-KEY-redhat10-release":    "warning key-several-blocks, warning key-preamble, warning key-v6, warning key-pqc",
		"redhat-release-key-3.pem":        "",
	} {
		r, err := Run([]string{filepath.Join(dir, "keys", name)}, Options{Now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range r.Findings {
			got = append(got, fmt.Sprintf("%s %s", f.Severity, f.Code))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s: got %s, want %s\n%v", name, s, want, r.Findings)
		}
	}
}
