package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/nodetrust/nodetrust/templates"
)

const zeros = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"

// config is a trust config with these lines below spec.
func config(spec string) string {
	return "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: t}\nspec:\n  default: accept\n" + spec
}

// keyFiles serves testdata by name.
type keyFiles map[string][]byte

func (k keyFiles) read(path string) ([]byte, error) {
	if b, ok := k[path]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
}

const pemKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmd6edXLzEtH9fXt6dNtmCft8WYYI
CNdVCQGRCyHs4xbyU75CsJRzDv73Zi1Rd92KZVJOqfJ0dEOPSsyTIsB6Xw==
-----END PUBLIC KEY-----
`

func testKeys(t testing.TB) keyFiles {
	t.Helper()
	e, err := openpgp.NewEntity("six", "", "", &packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519})
	if err != nil {
		t.Fatal(err)
	}
	var v6 strings.Builder
	if err := e.Serialize(&v6); err != nil {
		t.Fatal(err)
	}
	return keyFiles{
		"corp.asc":   templates.CanaryKey,
		"six.gpg":    []byte(v6.String()),
		"both.gpg":   append([]byte(v6.String()), dearmored(t, templates.CanaryKey)...),
		"cosign.pub": []byte(pemKey),
		"two.pub":    []byte(pemKey + pemKey),
		"none.asc":   []byte("no key here\n"),
		"empty":      {},
	}
}

// TestParse_problems has one fault each. Lines count from the line after spec.default, which is line 5.
func TestParse_problems(t *testing.T) {
	keys := testKeys(t)
	const key = "  keys:\n  - {name: corp, file: corp.asc}\n  - {name: pem, file: cosign.pub}\n  - {name: path, path: /etc/pki/k}\n"
	const signed = key + "  registries:\n  - scope: a.example.com/x\n    require: [{signedBy: [corp]}]\n"
	for _, tt := range []struct {
		name, text, want string
	}{
		{"empty", "", "t.yaml: is empty"},
		{"null", "~\n", "t.yaml: is empty"},
		{"comment", "# nothing\n", "t.yaml: is empty"},
		{"scalar", "hello\n", "t.yaml:1: must be a mapping"},
		{"several documents", config("") + "---\na: b\n", "t.yaml:6: must be the only document of the file"},
		{"tab", "spec:\n\tdefault: accept\n", "t.yaml:2: is indented with a tab; YAML wants spaces"},
		{"syntax", "a: b\nc: [\n", "t.yaml:2: is no YAML: "},
		{"control characters", "a: \x00\n", "t.yaml: is no YAML: "},
		{"alias", config("  pools: &p [worker]\n"), "t.yaml:6: spec.pools: anchors and aliases are not supported"},
		{"tag", config("  pools: !x [worker]\n"), "t.yaml:6: spec.pools: has the tag !x, which is not supported"},
		{"merge", config("  <<: {a: b}\n"), "t.yaml:6: spec: has a key that is no plain name"},
		{"large", strings.Repeat("#", MaxConfig+1), "t.yaml: is larger than 1048576 bytes"},
		{
			"apiVersion", strings.Replace(config(""), "v1alpha1", "v1", 1),
			`t.yaml:1: apiVersion: must be nodetrust.io/v1alpha1, not "nodetrust.io/v1"`,
		},
		{"kind", strings.Replace(config(""), "TrustConfig", "Pod", 1), `t.yaml:2: kind: must be TrustConfig, not "Pod"`},
		{"name", strings.Replace(config(""), "name: t", "name: T_1", 1), `t.yaml:3: metadata.name: must be a DNS label`},
		{"no name", strings.Replace(config(""), "name: t", "", 1), "t.yaml:3: metadata.name: is missing"},
		{
			"no default", strings.Replace(config("  pools: [a]\n"), "  default: accept\n", "", 1),
			"t.yaml:5: spec.default: is missing",
		},
		{
			"default", strings.Replace(config(""), "default: accept", "default: refuse", 1),
			`t.yaml:5: spec.default: must be accept or reject, not "refuse"`,
		},
		{
			"unknown field", config("  pool: [worker]\n"),
			"t.yaml:6: spec.pool: is no known field (known: pools, default, keys, registries, canaries)",
		},
		{"duplicate field", config("  default: reject\n"), "t.yaml:6: spec.default: is given twice"},
		{"type", config("  pools: worker\n"), "t.yaml:6: spec.pools: must be a list"},
		{"number", config("  pools: [1]\n"), "t.yaml:6: spec.pools[0]: must be a string, not int (put it in quotes)"},
		{"empty list", config("  pools: []\n"), "t.yaml:6: spec.pools: must not be empty"},
		{"empty value", config("  pools:\n"), "t.yaml:6: spec.pools: must not be empty"},
		{
			"long list", config("  pools: [" + strings.Repeat("a,", maxItems+1) + "]\n"),
			"t.yaml:6: spec.pools: has more than 10000 entries",
		},
		{
			"many canaries", config("  canaries: [" + strings.Repeat("a,", maxCanaries+1) + "]\n"),
			"t.yaml:6: spec.canaries: has more than 64 entries",
		},
		{"pool twice", config("  pools: [a, a]\n"), `t.yaml:6: spec.pools[1]: "a" is given twice`},
		{"pool", config("  pools: [a/b]\n"), "t.yaml:6: spec.pools[0]: must be a DNS label"},

		{
			"key without source", config("  keys:\n  - name: a\n"),
			"t.yaml:7: spec.keys[0]: must have exactly one of path, file and data, not none",
		},
		{
			"key with two sources", config("  keys:\n  - {name: a, path: /a, file: corp.asc}\n"),
			"t.yaml:7: spec.keys[0]: must have exactly one of path, file and data, not path and file",
		},
		{
			"key twice", config("  keys:\n  - {name: a, path: /a}\n  - {name: a, path: /b}\n"),
			`t.yaml:8: spec.keys[1].name: "a" is the name of another key, in line 7`,
		},
		{
			"key path", config("  keys:\n  - {name: a, path: a/../b}\n"),
			"t.yaml:7: spec.keys[0].path: must be the absolute, clean path",
		},
		{
			"key file missing", config("  keys:\n  - {name: a, file: gone.asc}\n"),
			"t.yaml:7: spec.keys[0].file: reading the key file: open gone.asc: file does not exist",
		},
		{
			"key file without key", config("  keys:\n  - {name: a, file: none.asc}\n"),
			"t.yaml:7: spec.keys[0].file: none.asc: holds no public key",
		},
		{
			"key file empty", config("  keys:\n  - {name: a, file: empty}\n"),
			"t.yaml:7: spec.keys[0].file: empty: holds no public key: it is empty",
		},
		{
			"private key", config("  keys:\n  - name: a\n    data: |\n      -----BEGIN PGP PRIVATE KEY BLOCK-----\n"),
			"t.yaml:8: spec.keys[0].data: holds private key material",
		},
		{
			"fingerprint", config("  keys:\n  - {name: a, path: /a, fingerprints: [FD431D51]}\n"),
			`t.yaml:7: spec.keys[0].fingerprints[0]: must be a full fingerprint (40 or 64 hex digits), not "FD431D51"`,
		},
		{"fingerprint lacking", config("  keys:\n  - {name: a, file: corp.asc, fingerprints: [567E347AD0044ADE55BA8A5F199E2F91FD431D51]}\n"), "t.yaml:7: spec.keys[0].fingerprints: the key file lacks 567E347AD0044ADE55BA8A5F199E2F91FD431D51 (it holds F594A003D2A511CFBBF97AA0EE57246FCE6B18A6)"},

		{
			"registry without scope", config("  registries:\n  - require: accept\n"),
			"t.yaml:7: spec.registries[0].scope: is missing",
		},
		{
			"registry without require", config("  registries:\n  - scope: a.b\n"),
			"t.yaml:7: spec.registries[0].require: is missing",
		},
		{
			"require", config("  registries:\n  - {scope: a.b, require: maybe}\n"),
			`t.yaml:7: spec.registries[0].require: must be accept, reject or a list of requirements, not "maybe"`,
		},
		{
			"require mapping", config("  registries:\n  - {scope: a.b, require: {signedBy: [a]}}\n"),
			"t.yaml:7: spec.registries[0].require: must be accept, reject or a list of requirements",
		},
		{
			"require nothing", config("  registries:\n  - {scope: a.b, require: []}\n"),
			"t.yaml:7: spec.registries[0].require: must not be empty",
		},
		{
			"dead scope", config("  registries:\n  - {scope: 'https://a.b', require: accept}\n"),
			`t.yaml:7: spec.registries[0].scope: "https://a.b": never matches`,
		},
		{
			"scope twice", config("  registries:\n  - {scope: a.b, require: accept}\n  - {scope: a.b, require: reject}\n"),
			`t.yaml:8: spec.registries[1].scope: "a.b" is also the scope of spec.registries[0], in line 7`,
		},
		{
			"unknown key", config("  registries:\n  - {scope: a.b, require: [{signedBy: [gone]}]}\n"),
			`t.yaml:7: spec.registries[0].require[0].signedBy: "gone" is no name in spec.keys`,
		},
		{
			"key twice in any-of", config(key + "  registries:\n  - {scope: a.b, require: [{signedBy: [corp, corp]}]}\n"),
			`t.yaml:11: spec.registries[0].require[0].signedBy[1]: "corp" is given twice`,
		},
		{
			"path and file", config(key + "  registries:\n  - {scope: a.b, require: [{signedBy: [corp, path]}]}\n"),
			`spec.registries[0].require[0].signedBy: "path" is a path and "corp" is shipped`,
		},
		{
			"PEM in signedBy", config(key + "  registries:\n  - {scope: a.b, require: [{signedBy: [pem]}]}\n"),
			`signedBy: "pem" is a key file of kind public key, not openpgp`,
		},
		{"OpenPGP in sigstore", config(key + "  registries:\n  - {scope: a.b, attachments: true, require: [{sigstore: {keys: [corp]}}]}\n"), `sigstore.keys: "corp" is a key file of kind openpgp, not public key`},
		{"two keys in PEM", config("  keys: [{name: a, file: two.pub}]\n  registries:\n  - {scope: a.b, attachments: true, require: [{sigstore: {keys: [a]}}]}\n"), `sigstore.keys: "a" holds 2 public keys`},
		{"only v6", config("  keys: [{name: a, file: six.gpg}]\n  registries:\n  - {scope: a.b, require: [{signedBy: [a]}]}\n"), `signedBy: "a" holds only OpenPGP keys of versions that readers which use gpg can't load`},
		{"both kinds", config(key + "  registries:\n  - {scope: a.b, attachments: true, require: [{signedBy: [corp], sigstore: {keys: [pem]}}]}\n"), "t.yaml:11: spec.registries[0].require[0]: must have exactly one of signedBy and sigstore, not signedBy and sigstore"},
		{
			"neither kind", config("  registries:\n  - {scope: a.b, require: [{identity: matchExact}]}\n"),
			"spec.registries[0].require[0]: must have exactly one of signedBy and sigstore, not none",
		},
		{
			"no attachments", config(key + "  registries:\n  - {scope: a.b, require: [{sigstore: {keys: [pem]}}]}\n"),
			"t.yaml:11: spec.registries[0]: sigstore needs attachments: true",
		},
		{"attachments off", config(key + "  registries:\n  - {scope: a.b, require: accept, attachments: true}\n  - {scope: a.b/c, attachments: false, require: [{sigstore: {keys: [pem]}}]}\n"), "t.yaml:12: spec.registries[1]: sigstore needs attachments: true"},
		{"fulcio without rekor", config(key + "  registries:\n  - {scope: a.b, attachments: true, require: [{sigstore: {fulcio: {ca: path, oidcIssuer: 'https://i', subjectEmail: a@b}}}]}\n"), "sigstore: fulcio needs rekor"},
		{"pki with rekor", config(key + "  registries:\n  - {scope: a.b, attachments: true, require: [{sigstore: {pki: {roots: path, subjectEmail: a@b}, rekor: [pem]}}]}\n"), "sigstore: pki can't be combined with rekor"},
		{"pki without subject", config(key + "  registries:\n  - {scope: a.b, attachments: true, require: [{sigstore: {pki: {roots: path}}}]}\n"), "pki: must have subjectEmail or subjectHostname"},
		{"sigstore empty", config(key + "  registries:\n  - {scope: a.b, attachments: true, require: [{sigstore: {rekor: [pem]}}]}\n"), "sigstore: must have exactly one of keys, fulcio and pki, not none"},

		{
			"identity", config(strings.Replace(signed, "[corp]}", "[corp], identity: exact}", 1)),
			`require[0].identity: must be one of matchRepoDigestOrExact, matchExact, matchRepository, exactReference, exactRepository, remapIdentity, not "exact"`,
		},
		{
			"identity without value", config(strings.Replace(signed, "[corp]}", "[corp], identity: exactReference}", 1)),
			"identity: exactReference needs more",
		},
		{
			"identity type", config(strings.Replace(signed, "[corp]}", "[corp], identity: {type: exact}}", 1)),
			`identity.type: must be one of`,
		},
		{"identity field", config(strings.Replace(signed, "[corp]}", "[corp], identity: {type: matchExact, prefix: a.b}}",
			1)), "identity.prefix: is no field of matchExact"},
		{
			"identity lacks field", config(strings.Replace(signed, "[corp]}",
				"[corp], identity: {type: remapIdentity, prefix: a.b}}", 1)),
			"identity.signedPrefix: is missing: remapIdentity needs it",
		},
		{
			"exactReference without tag", config(strings.Replace(signed, "[corp]}",
				"[corp], identity: {type: exactReference, dockerReference: a.b/c}}", 1)),
			"must be a full reference with a tag or a digest",
		},
		{
			"exactRepository with tag", config(strings.Replace(signed, "[corp]}",
				"[corp], identity: {type: exactRepository, dockerRepository: 'a.b/c:d'}}", 1)),
			"must be a full repository without tag and digest",
		},

		{
			"lookaside scheme", config(signed + "    lookaside: ftp://a.b/c\n"),
			`t.yaml:13: spec.registries[0].lookaside: must be an https, http or file URL, not "ftp://a.b/c"`,
		},
		{
			"lookaside without scheme", config(signed + "    lookaside: a.b/c\n"),
			"lookaside: must be an https, http or file URL",
		},
		{
			"lookaside http", config(signed + "    lookaside: http://a.b/c\n"),
			"t.yaml:13: spec.registries[0].lookaside: must be https or file: http is allowed only to loopback, or with insecure: true",
		},
		{"lookaside no URL", config(signed + "    lookaside: 'https://a b'\n"), "is no URL"},
		{"lookaside no host", config(signed + "    lookaside: https:///x\n"), "has no host"},
		{"lookaside blank", config(signed + "    lookaside: 'https://a.b/c '\n"), "is no URL"},
		{
			"lookaside credentials that don't parse", config(signed + "    lookaside: https://u:p%zz@a.b/c\n"),
			"must not hold credentials",
		},
		{
			"lookaside credentials without a scheme", config(signed + "    lookaside: u:p@a.b/c\n"),
			"must not hold credentials",
		},
		{"lookaside credentials", config(signed + "    lookaside: https://u:p@a.b/c\n"), "must not hold credentials"},
		{"lookaside query", config(signed + "    lookaside: https://a.b/c?d=e\n"), "must have no query"},
		{"lookaside file", config(signed + "    lookaside: file://host/x\n"), "must be file:/// and an absolute path"},
		{"lookaside dots", config(signed + "    lookaside: file:///a/../b\n"), "must have a clean path"},
		{"insecure", config(signed + "    insecure: 1\n"), "insecure: must be true or false"},
		{
			"mirror nothing", config(signed + "    mirrors: [{location: m.b}]\n"),
			"t.yaml:13: spec.registries[0].mirrors[0]: has neither lookaside nor attachments",
		},
		{
			"mirror http", config(signed + "    mirrors: [{location: m.b, lookaside: 'http://m.b/x'}]\n"),
			"mirrors[0].lookaside: must be https or file",
		},
		{
			"mirror tag", config(signed + "    mirrors: [{location: 'm.b/c:d', lookaside: 'https://m.b/x'}]\n"),
			"mirrors[0].location: \"m.b/c:d\": can have no tag",
		},
		{
			"mirror wildcard", config(signed + "    mirrors: [{location: '*.b', lookaside: 'https://m.b/x'}]\n"),
			"can be no wildcard",
		},
		{"mirror conflict", config(signed + "    lookaside: https://a.b/x\n    mirrors: [{location: a.example.com/x, lookaside: 'https://m.b/x'}]\n"), `t.yaml:14: spec.registries[0].mirrors[0]: "a.example.com/x" has another lookaside or attachments than in spec.registries[0], in line 11`},

		{
			"canary without digest", config(signed + "  canaries:\n  - {image: 'a.example.com/x/y:v1', expect: accept}\n"),
			`t.yaml:14: spec.canaries[0].image: "a.example.com/x/y:v1" has no digest`,
		},
		{
			"canary digest", config(signed + "  canaries:\n  - {image: 'a.example.com/x/y@sha256:…', expect: accept}\n"),
			"is no digest",
		},
		{
			"canary tag", config(signed + "  canaries:\n  - {image: 'a.example.com/x/y:v1" + zeros + "', expect: accept}\n"),
			"has both tag and digest: leave out :v1",
		},
		{
			"canary short", config(signed + "  canaries:\n  - {image: 'busybox" + zeros + "', expect: refuse}\n"),
			"has no registry host",
		},
		{
			"canary short path", config(signed + "  canaries:\n  - {image: 'library/busybox" + zeros + "', expect: refuse}\n"),
			"is not fully qualified",
		},
		{
			"canary expect", config(signed + "  canaries:\n  - {image: 'a.example.com/x/y" + zeros + "', expect: reject}\n"),
			`spec.canaries[0].expect: must be accept or refuse, not "reject"`,
		},
		{"canary twice", config(signed + "  canaries:\n  - {image: 'a.example.com/x/y" + zeros +
			"', expect: refuse}\n  - {image: 'a.example.com/x/y" + zeros + "', expect: refuse}\n"), "is given twice (line 14)"},
		{
			"canary both", config(signed + "  canaries:\n  - {image: 'a.example.com/x/y" + zeros +
				"', expect: refuse}\n  - {image: 'a.example.com/x/y" + zeros + "', expect: accept}\n"),
			"can't be expected to be accepted and refused (line 14)",
		},
		{
			"canary rejected by default", strings.Replace(config("  canaries:\n  - {image: 'b.example.com/x/y"+zeros+
				"', expect: accept}\n"), "default: accept", "default: reject", 1),
			"would be refused: no entry of spec.registries covers it",
		},
		{"canary rejected", config("  registries: [{scope: a.b, require: reject}]\n  canaries:\n  - {image: 'a.b/c" + zeros +
			"', expect: accept}\n"), "would be refused: spec.registries[0], in line 6, rejects it"},
		{
			"canary is a scope", config("  registries: [{scope: 'a.b/c" + zeros +
				"', require: accept}]\n  canaries:\n  - {image: 'a.b/c" + zeros + "', expect: refuse}\n"),
			"is also the scope of spec.registries[0]",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Parse("t.yaml", []byte(tt.text), keys.read)
			var problems Problems
			if !errors.As(err, &problems) || cfg != nil {
				t.Fatalf("got %+v, %v, want problems", cfg, err)
			}
			if len(problems) != 1 || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got\n%v\nwant only\n%s", err, tt.want)
			}
		})
	}
}

func TestParse_all(t *testing.T) {
	text := `apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: t}
spec:
  default: maybe
  keys:
  - {name: a}
  registries:
  - {scope: a.b, require: accept, lookasid: x}
  - {scope: 'a.b/', require: accept, lookaside: nowhere}
`
	_, err := Parse("t.yaml", []byte(text), nil)
	want := `t.yaml:5: spec.default: must be accept or reject, not "maybe"
t.yaml:7: spec.keys[0]: must have exactly one of path, file and data, not none
t.yaml:9: spec.registries[0].lookasid: is no known field (known: scope, require, lookaside, insecure, attachments, mirrors, because)
t.yaml:10: spec.registries[1].scope: "a.b/": never matches: leave out the trailing slash
t.yaml:10: spec.registries[1].lookaside: must be an https, http or file URL, not "nowhere"`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestParse_many(t *testing.T) {
	_, err := Parse("t.yaml", []byte(config("  pools:\n"+strings.Repeat("  - '*'\n", 5000))), nil)
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != maxProblems+1 ||
		problems[maxProblems].Message != "has more problems" {
		t.Errorf("got %d problems, want %d and a last word", len(problems), maxProblems)
	}
}

func TestParse_pinned(t *testing.T) {
	keys := testKeys(t)
	six := parseKey(t, keys["six.gpg"]).Keys[0].Fingerprint
	spec := "  keys: [{name: a, file: both.gpg, fingerprints: [%s]}]\n  registries:\n  - {scope: a.b, require: [{signedBy: [a]}]}\n"
	_, err := Parse("t.yaml", []byte(config(fmt.Sprintf(spec, six))), keys.read)
	if err == nil || !strings.Contains(err.Error(), "an OpenPGP v6 key, which readers that use gpg can't load") {
		t.Errorf("pinned v6 key: got %v", err)
	}
	cfg, err := Parse("t.yaml", []byte(config(fmt.Sprintf(spec, "f594 A003 D2A5 11CF BBF9  7AA0 EE57 246F CE6B 18A6"))),
		keys.read)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := inline(cfg.Keys[0]), dearmored(t, templates.CanaryKey); !slices.Equal(got, want) {
		t.Errorf("keyData has %d bytes, want the %d of the v4 key alone", len(got), len(want))
	}
}

func TestParse_redhat(t *testing.T) {
	cfg, err := Parse("redhat.yaml", templates.Redhat, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Name != "rh-registry-trust" || len(cfg.Registries) != 5 ||
		!slices.Equal(cfg.KeyPaths(), []string{"/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"}) {
		t.Errorf("got %+v", cfg)
	}
	for _, r := range cfg.Registries {
		if r.Rule == RuleAccept && r.Because == "" {
			t.Errorf("%s is accepted without a reason", r.Scope)
		}
	}
	// The commented canaries are valid once their digests are filled in.
	text := strings.ReplaceAll(string(templates.Redhat), "  # canaries:", "  canaries:")
	text = strings.ReplaceAll(text, "  # - image:", "  - image:")
	text = strings.ReplaceAll(text, "  #   expect:", "    expect:")
	text = strings.ReplaceAll(text, "@sha256:…", zeros)
	cfg, err = Parse("redhat.yaml", []byte(text), nil)
	if err != nil || len(cfg.Canaries) != 2 {
		t.Errorf("with canaries: %v", err)
	}
}

func TestParseCanaries(t *testing.T) {
	got, err := ParseCanaries([]byte(`[{"image":"a.b/c` + zeros + `","expect":"refuse"}]`))
	if err != nil || len(got) != 1 || got[0].Expect != "refuse" {
		t.Errorf("got %+v, %v", got, err)
	}
	one := `{"image":"a.b/c` + zeros + `","expect":"refuse"}`
	for _, text := range []string{
		"", "{}", "[", "[] x", `[{"image":"a.b/c","expect":"accept"}]`,
		`[{"image":"a.b/c` + zeros + `"}]`, `[{"image":"a.b/c` + zeros + `","expect":"reject"}]`, "[" + one + "," + one + "]",
		`[{"x":1}]`,
	} {
		if got, err := ParseCanaries([]byte(text)); err == nil {
			t.Errorf("%s: got %+v, want an error", text, got)
		}
	}
}

// TestParse_acceptCanary: an explicit entry is reason enough.
func TestParse_acceptCanary(t *testing.T) {
	for _, rule := range []string{"accept", "[{signedBy: [k]}]"} {
		text := config("  keys: [{name: k, path: /k}]\n  registries: [{scope: a.b, require: " + rule +
			"}]\n  canaries:\n  - {image: 'a.b/c" + zeros + "', expect: accept}\n")
		if _, err := Parse("t.yaml", []byte(text), nil); err != nil {
			t.Error(err)
		}
	}
}

// FuzzParse checks that nothing panics, and that what is accepted renders to files that the image library loads.
func FuzzParse(f *testing.F) {
	keys := testKeys(f)
	f.Add(string(templates.Redhat))
	f.Add(full)
	f.Add(config("  pools: &p [worker]\n"))
	f.Add(config("  registries:\n  - {scope: '*.example.com', require: reject, attachments: false}\n"))
	f.Add("\t")
	f.Add("a: [\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := Parse("t.yaml", []byte(text), keys.read)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("got %#v, want Problems", err)
			}
			return
		}
		files, err := cfg.Files([]Reader{current()})
		if err != nil {
			t.Fatalf("the current library lacks something: %v", err)
		}
		load(t, files)
	})
}

// TestParse_idleCanary: a canary that every node accepts is valid where the default accepts, and said to prove nothing.
func TestParse_idleCanary(t *testing.T) {
	text := config("  keys: [{name: k, path: /k}]\n  registries:\n  - {scope: a.example.com, require: [{signedBy: [k]}]}\n  canaries:\n  - {image: 'b.example.com/x/y" + zeros + "', expect: accept}\n  - {image: 'a.example.com/x/y" + zeros + "', expect: accept}\n")
	cfg, err := Parse("t.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	idle := cfg.Idle()
	if want := "t.yaml:10: spec.canaries[0].image: proves nothing: no entry of spec.registries covers it, so every node accepts it"; len(idle) != 1 || idle[0].String() != want {
		t.Errorf("got %v, want %s", idle, want)
	}
	if _, err := cfg.Files(nil); err != nil {
		t.Error(err)
	}
}

// TestParse_wildcardParent: the wildcards above a wildcard count as they do above a host.
func TestParse_wildcardParent(t *testing.T) {
	const registries = "  keys: [{name: pem, file: cosign.pub}]\n  registries:\n  - {scope: '*.example.com', require: accept, attachments: true}\n  - {scope: '*.apps.example.com', require: [{sigstore: {keys: [pem]}}]}\n"
	if _, err := Parse("t.yaml", []byte(config(registries)), testKeys(t).read); err != nil {
		t.Error(err)
	}
}
