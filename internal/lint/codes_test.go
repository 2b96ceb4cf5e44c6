package lint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// given is input for lint: files below a directory, and which of them are named. With files below root/ that is the
// host; if nothing else is named, the host is linted.
type given struct {
	files   map[string]string
	links   map[string]string
	paths   []string
	readers []string
}

func (g given) codes(t *testing.T) []string {
	t.Helper()
	dir := write(t, t.TempDir(), g.files)
	for name, to := range g.links {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Now: time.Now(), Readers: g.readers}
	if _, err := os.Stat(filepath.Join(dir, "root")); err == nil {
		o.Root = filepath.Join(dir, "root")
	}
	var paths []string
	for _, p := range g.paths {
		paths = append(paths, filepath.Join(dir, p))
	}
	r, err := Run(paths, o)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range r.Findings {
		if !slices.ContainsFunc(codes, func(c codeRow) bool {
			return c.code == f.Code && (c.severity == f.Severity || c.weight == milder && f.Severity == Warning)
		}) {
			t.Errorf("the table has no %s of code %s", f.Severity, f.Code)
		}
		out = append(out, string(f.Code))
	}
	return out
}

// The ways to give things to lint.
func aPolicy(s string) given {
	return given{files: map[string]string{"policy.json": s}, paths: []string{"policy.json"}}
}

func aScope(scopes string) given { return aPolicy(docker(scopes)) }

func registriesD(files ...string) given {
	g := given{files: map[string]string{}, paths: []string{"registries.d"}}
	for i, s := range files {
		g.files["registries.d/"+string(rune('a'+i))+".yaml"] = s
	}
	return g
}

func withRegistries(policy, registries string) given {
	return given{
		files: map[string]string{"policy.json": policy, "registries.d/a.yaml": registries},
		paths: []string{"policy.json", "registries.d"},
	}
}

func aKey[T string | []byte](data T) given {
	return given{files: map[string]string{"k.gpg": string(data)}, paths: []string{"k.gpg"}}
}

func aFile(name, data string) given {
	return given{files: map[string]string{name: data}, paths: []string{name}}
}

// provoked provokes one code, and is a near miss that doesn't.
type provoked struct{ bad, good given }

func codeRows(t *testing.T) map[string]provoked {
	good := newKey(t, fixture.KeyOptions{})
	second := newKey(t, fixture.KeyOptions{})
	revoked := newKey(t, fixture.KeyOptions{})
	if err := revoked.Revoke(); err != nil {
		t.Fatal(err)
	}
	// host is one that has nothing to be found, but for changes; a change to "" removes a file.
	host := func(changes ...string) given {
		g := given{files: map[string]string{
			"root/etc/containers/policy.json":            signedPolicy,
			"root/etc/containers/registries.d/corp.yaml": lookaside,
			"root/etc/pki/corp.gpg":                      string(good.Binary),
		}}
		for i := 0; i < len(changes); i += 2 {
			if g.files["root/"+changes[i]] = changes[i+1]; changes[i+1] == "" {
				delete(g.files, "root/"+changes[i])
			}
		}
		return g
	}
	by := func(g given, readers ...string) given {
		g.readers = readers
		return g
	}
	// trust is a trust.yaml with nothing to be found, but for replacements.
	trust := func(replace ...string) given {
		s := `apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: corp}
spec:
  pools: [worker]
  default: reject
  keys:
  - {name: corp, path: /etc/pki/corp.gpg, fingerprints: [` + good.Fingerprint + `]}
  registries:
  - scope: example.com/team
    require: [{signedBy: [corp]}]
    lookaside: https://example.com/sigs
  canaries:
  - {image: 'example.com/team/a@sha256:` + strings.Repeat("a", 64) + `', expect: accept}
  - {image: 'example.com/team/b@sha256:` + strings.Repeat("b", 64) + `', expect: refuse}
`
		for i := 0; i < len(replace); i += 2 {
			if !strings.Contains(s, replace[i]) {
				t.Fatalf("trust.yaml has no %q", replace[i])
			}
			s = strings.Replace(s, replace[i], replace[i+1], 1)
		}
		return given{
			files: map[string]string{"trust.yaml": s, "root/etc/pki/corp.gpg": string(good.Binary)},
			paths: []string{"trust.yaml"},
		}
	}
	remapped := func(prefix string) given {
		return trust("{signedBy: [corp]}", "{signedBy: [corp], identity: {type: remapIdentity, prefix: "+prefix+
			", signedPrefix: build.example.com}}")
	}
	withKey := func(g given, key []byte) given {
		g.files = maps.Clone(g.files)
		delete(g.files, "root/etc/pki/corp.gpg")
		if key != nil {
			g.files["root/etc/pki/corp.gpg"] = string(key)
		}
		return g
	}

	signed := func(rest string) string { return `[{"type":"signedBy","keyType":"GPGKeys",` + rest + `}]` }
	sigstore := func(rest string) string { return `[{"type":"sigstoreSigned",` + rest + `}]` }
	const key = `"keyPath":"/k"`
	scope := func(reqs string) given { return aScope(`"example.com/a":` + reqs) }
	ok := scope(signed(key))
	other := func(transport, scope string) given {
		return aPolicy(`{"default":` + reject + `,"transports":{"` + transport + `":{"` + scope + `":` + reject + `}}}`)
	}
	section := func(rest string) given { return registriesD("docker:\n  example.com/team:\n    " + rest + "\n") }
	okSection := section("lookaside: https://example.com/sigs")
	conf := func(s string) given {
		return host("etc/containers/registries.conf", s, "etc/containers/registries.d/mirror.yaml",
			"docker:\n  mirror.corp:\n    lookaside: https://mirror.corp/sigs\n")
	}
	const mirrored = "[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"mirror.corp\"\n"
	cosigned := strings.Replace(strings.Replace(signedPolicy, "signedBy", "sigstoreSigned", 1),
		`"keyType":"GPGKeys",`, "", 1)
	v6 := v6Key(t)
	mc := func(policy string) string { return foreignConfig("51-x", policy) }

	return map[string]provoked{
		"bad-json":        {aPolicy("{"), aPolicy(signedPolicy)},
		"wrong-type":      {aPolicy("[]"), ok},
		"missing-default": {aPolicy(`{"transports":{}}`), ok},
		"unknown-key":     {section("lookasid: https://example.com/sigs"), okSection},
		"duplicate-key": {
			aScope(`"example.com/a":` + reject + `,"example.com/a":` + reject),
			aScope(`"example.com/a":` + reject + `,"example.com/b":` + reject),
		},
		"missing-key":         {scope(`[{"type":"signedBy","keyType":"GPGKeys"}]`), ok},
		"empty-requirements":  {scope(`[]`), scope(reject)},
		"unknown-requirement": {scope(`[{"type":"signed"}]`), ok},
		"unknown-identity": {
			scope(signed(key + `,"signedIdentity":{"type":"matchRepo"}`)),
			scope(signed(key + `,"signedIdentity":{"type":"matchRepository"}`)),
		},
		"several-key-sources": {scope(signed(key + `,"keyData":"aGk="`)), ok},
		"conflicting-keys": {
			scope(sigstore(`"pki":{"caRootsPath":"/c","subjectEmail":"e"},"rekorPublicKeyPath":"/r"`)),
			scope(sigstore(`"pki":{"caRootsPath":"/c","subjectEmail":"e"}`)),
		},
		"bad-key-type":           {scope(`[{"type":"signedBy","keyType":"GPG",` + key + `}]`), ok},
		"bad-requirement":        {scope(signed(`"keyPath":""`)), ok},
		"bad-scope":              {other("dir", "a"), other("dir", "/a")},
		"unknown-transport":      {other("dockr", ""), other("docker", "")},
		"dead-scope":             {aScope(`"https://example.com/a":` + signed(key)), ok},
		"upper-case-host":        {aScope(`"Registry.example.com":` + signed(key)), ok},
		"unimplemented-key-type": {scope(`[{"type":"signedBy","keyType":"X509Certificates",` + key + `}]`), ok},
		"signed-base-layer":      {scope(`[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}]`), ok},
		"empty-key-paths":        {scope(signed(`"keyPaths":[]`)), scope(signed(`"keyPaths":["/k"]`))},
		"relative-key-path":      {scope(signed(`"keyPath":"k"`)), ok},
		"library-missing": {
			aScope(`"docker.io/nginx":` + signed(key)),
			aScope(`"docker.io/library/nginx":` + signed(key)),
		},
		"release-payload": {
			aScope(`"quay.io/openshift-release-dev":` + signed(key)),
			aScope(`"quay.io/openshift-release-dev/ocp-release":` + signed(key)),
		},
		"no-attachments": {
			withRegistries(cosigned, lookaside),
			withRegistries(cosigned, lookaside+"    use-sigstore-attachments: true\n"),
		},
		"no-lookaside": {
			withRegistries(signedPolicy,
				"docker:\n  example.com/teams:\n    lookaside: https://example.com/sigs\n"),
			withRegistries(signedPolicy, lookaside),
		},
		"hole-below-signed": {
			aScope(`"example.com":` + signed(key) + `,"example.com/a":` + accept),
			aScope(`"example.com":` + reject + `,"example.com/a":` + accept),
		},
		"tag-scope": {
			aScope(`"example.com/a:v1":` + signed(key)),
			aScope(`"example.com:5000/a":` + signed(key)),
		},
		"default-reject-moot": {
			aScope(`"":` + accept + `,"example.com/a":` + signed(key)),
			aScope(`"":` + reject + `,"example.com/a":` + signed(key)),
		},
		"accepts-everything": {aPolicy(`{"default":` + accept + `}`), aPolicy(`{"default":` + reject + `}`)},
		"both-signatures": {scope(`[{"type":"signedBy","keyType":"GPGKeys",` + key + `},{"type":"sigstoreSigned",` +
			key + `}]`), ok},
		"all-must-sign": {scope(`[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"},{"type":"signedBy","keyType":"GPGKeys","keyPath":"/l"}]`), scope(signed(`"keyPaths":["/k","/l"]`))},
		"remap-is-idle": {remapped("mirror.corp/team"), remapped("example.com")},
		"accept-is-idle": {scope(`[{"type":"insecureAcceptAnything"},{"type":"signedBy","keyType":"GPGKeys",` + key +
			`}]`), scope(accept)},
		"reject-wins": {
			scope(`[{"type":"reject"},{"type":"signedBy","keyType":"GPGKeys",` + key + `}]`),
			scope(reject),
		},

		"bad-yaml": {registriesD("docker: [\n"), okSection},
		"duplicate-scope": {
			registriesD(lookaside, lookaside),
			registriesD(lookaside, "docker:\n  example.com:\n    lookaside: https://example.com/sigs\n"),
		},
		"duplicate-default-docker": {
			registriesD("default-docker: {}\n", "default-docker: {}\n"),
			registriesD("default-docker: {}\n", "docker: {}\n"),
		},
		"ignored-file": {given{
			files: map[string]string{"registries.d/a.yml": lookaside},
			paths: []string{"registries.d"},
		}, given{files: map[string]string{
			"registries.d/a.yaml": lookaside,
			"registries.d/README": "",
		}, paths: []string{"registries.d"}}},
		"several-documents":  {registriesD(lookaside + "---\n" + lookaside), registriesD("---\n" + lookaside)},
		"bad-url":            {section("lookaside: example.com/sigs"), okSection},
		"insecure-lookaside": {section("lookaside: http://example.com/sigs"), okSection},
		"credentials-in-url": {section("lookaside: https://me:x@example.com/sigs"), okSection},
		"lookaside-differs": {
			section("lookaside: https://a.b/c\n    sigstore: https://a.b/d"),
			section("lookaside: https://a.b/c\n    sigstore: https://a.b/c"),
		},
		"masked-file": {
			host("usr/share/containers/registries.d/corp.yaml", "docker: {}\n"),
			host("usr/share/containers/registries.d/vendor.yaml", "docker: {}\n"),
		},
		"too-large": {
			host("etc/containers/registries.d/big.yaml", "#"+strings.Repeat(" ", maxRegistries)),
			host("etc/containers/registries.d/big.yaml", "#"+strings.Repeat(" ", maxRegistries-1)),
		},

		"key-missing":       {withKey(host(), nil), host()},
		"key-unreadable":    {aKey("hello"), aKey(good.Armored)},
		"key-secret":        {aKey(secretKey(t)), aKey(good.Binary)},
		"wrong-kind-of-key": {host("etc/pki/corp.gpg", pemKey), host()},
		"key-expired": {
			aKey(newKey(t, fixture.KeyOptions{FakedTime: "20200101T000000", Expire: "1y"}).Binary),
			aKey(newKey(t, fixture.KeyOptions{Expire: "1y"}).Binary),
		},
		"key-revoked": {aKey(revoked.Binary), aKey(good.Binary)},
		"key-expires-soon": {
			aKey(newKey(t, fixture.KeyOptions{Expire: "29d"}).Binary),
			aKey(newKey(t, fixture.KeyOptions{Expire: "31d"}).Binary),
		},
		"key-weak": {
			aKey(newKey(t, fixture.KeyOptions{Algo: "rsa2048"}).Binary),
			aKey(newKey(t, fixture.KeyOptions{Algo: "ed25519"}).Binary),
		},
		"key-sha1":        {aKey(newKey(t, fixture.KeyOptions{CertDigest: "SHA1"}).Binary), aKey(good.Binary)},
		"key-not-pinned":  {trust(", fingerprints: ["+good.Fingerprint+"]", ""), trust()},
		"key-pin-missing": {withKey(trust(), second.Binary), trust()},
		"key-v6": {
			aKey(append(slices.Clone(good.Binary), v6...)),
			aKey(append(slices.Clone(good.Binary), second.Binary...)),
		},
		"key-pqc":            {aKey(postQuantumKey()), aKey(good.Binary)},
		"key-v3":             {aKey(append(v3Key(), good.Binary...)), aKey(good.Binary)},
		"key-packed":         {aKey(packed(good.Binary)), aKey(good.Binary)},
		"key-several-blocks": {aKey(append(slices.Clone(good.Armored), second.Armored...)), aKey(good.Armored)},
		"key-preamble":       {aKey("The key of corp\n\n" + string(good.Armored)), aKey(good.Armored)},

		"missing-policy": {by(host("etc/containers/policy.json", "", "usr/share/containers/policy.json", signedPolicy),
			"cri-o-1.34"), by(host("etc/containers/policy.json", "", "usr/share/containers/policy.json", signedPolicy),
			CurrentLibrary)},
		"masked-policy": {
			host("root/.config/containers/policy.json", signedPolicy),
			by(host("root/.config/containers/policy.json", signedPolicy), "rhel7"),
		},
		"masked-registries-d": {
			host("root/.config/containers/registries.d/x.yaml", "docker: {}\n"),
			by(host("root/.config/containers/registries.d/x.yaml", "docker: {}\n"), "rhel7"),
		},
		"policy-environment": {
			host("etc/systemd/system/crio.service",
				"[Service]\nExecStart=/usr/bin/crio --signature-policy=/p.json\n"),
			host("etc/systemd/system/crio.service", "[Service]\nExecStart=/usr/bin/crio --log-level=info\n"),
		},
		"unit-unreadable": {
			host("etc/systemd/system/crio.service/x", "y"),
			host("etc/systemd/system/crio.service.d/x.conf", "[Service]\n"),
		},
		"crio-policy": {
			host("etc/crio/crio.conf", "[crio.image]\nsignature_policy = \"/p.json\"\n"),
			host("etc/crio/crio.conf", "[crio.image]\nsignature_policy = \"/p.json\"\n", "etc/crio/crio.conf.d/9",
				"[crio.image]\nsignature_policy = \"\"\n"),
		},
		"crio-policies": {
			host("etc/crio/crio.conf.d/10-x.conf",
				"[crio.image]\nsignature_policy_dir = \"/etc/crio/others\"\n"),
			host("etc/crio/crio.conf.d/10-x.conf", "[crio.image]\nsignature_policy_dir = \"/etc/crio/policies\"\n"),
		},
		"crio-conf":           {host("etc/crio/crio.conf", "[crio\n"), host("etc/crio/crio.conf", "[crio]\n")},
		"mirror-no-lookaside": {host("etc/containers/registries.conf", mirrored), conf(mirrored)},
		"mirror-no-attachments": {
			host("etc/containers/registries.conf", mirrored, "etc/containers/policy.json", cosigned),
			conf(mirrored),
		},
		"registries-conf":   {host("etc/containers/registries.conf", "[[registry\n"), conf(mirrored)},
		"registry-insecure": {conf(mirrored + "insecure = true\n"), conf(mirrored + "insecure = false\n")},
		"registry-blocked": {
			conf("[[registry]]\nlocation = \"example.com\"\nblocked = true\n"),
			conf("[[registry]]\nlocation = \"example.com/team/app\"\nblocked = true\n"),
		},
		"sigstore-disabled": {host("etc/containers/policy.json", cosigned, "etc/os-release",
			"ID=debian\nVERSION_ID=\"12\"\n"), host("etc/containers/policy.json", cosigned, "etc/os-release",
			"ID=debian\nVERSION_ID=\"13\"\n")},
		"namespaced-policy": {
			host("etc/crio/policies/apps.json", signedPolicy),
			host("etc/crio/policies/apps.txt", signedPolicy),
		},
		"namespaced-weaker": {
			host("etc/crio/policies/apps.json", `{"default":`+accept+`}`),
			host("etc/crio/policies/apps.json", `{"default":`+reject+`}`),
		},
		"unreadable":   {host("etc/containers/policy.json", "", "etc/containers/policy.json/x", "y"), host()},
		"trust-config": {trust("default: reject", "default: maybe"), trust()},
		"canary-proves-nothing": {trust("default: reject", "default: accept", "example.com/team/a@",
			"example.org/a@"), trust()},
		"canary-side-missing": {trust("expect: refuse", "expect: accept"), trust()},
		"bad-desired": {
			aFile("mc.yaml", strings.Replace(mc(signedPolicy), "data:;base64", "https://x", 1)),
			aFile("mc.yaml", mc(signedPolicy)),
		},
		"merged-outdated": {
			aFile("mc.yaml", list(foreignConfig("50-theirs", signedPolicy), merged("99-worker-zz-corp", signedPolicy, "other"))),
			aFile("mc.yaml", list(foreignConfig("50-theirs", signedPolicy),
				merged("99-worker-zz-corp", signedPolicy, signedPolicy))),
		},
		"nothing-to-judge": {aFile("mc.yaml", strings.Replace(mc(signedPolicy), "/etc/containers/policy.json", "/etc/other",
			1)), aFile("mc.yaml", mc(signedPolicy))},
		"reader-advisory": {by(aPolicy(signedPolicy), "podman-4.3"), by(aPolicy(signedPolicy), CurrentLibrary)},
		"reader-ignores": {
			by(aScope(`"*.example.com":`+signed(key)), "rhel7"),
			by(aScope(`"*.example.com":`+signed(key)), "podman-4.3"),
		},
		"too-many-findings": {aScope(strings.Repeat(`"x":`+reject+",", maxFindings+1) + `"x":` + reject), ok},
		"dangling-link": {
			given{files: host().files, links: map[string]string{"root/etc/containers/registries.d/x.yaml": "nowhere.yaml"}},
			given{files: host().files, links: map[string]string{"root/etc/containers/registries.d/corp.yaml.d": "corp.yaml"}},
		},
	}
}

// TestCodes provokes each code of docs/lint.md, and has a near miss for it.
// merged is a MachineConfig into which a policy.json was merged that was base then.
func merged(name, policy, base string) string {
	return strings.Replace(foreignConfig(name, policy), "  name:",
		fmt.Sprintf("  annotations: {nodetrust.io/config: corp, nodetrust.io/merged-from: 50-theirs, nodetrust.io/merged: 'sha256:%x'}\n  name:", sha256.Sum256([]byte(base))), 1)
}

func TestCodes(t *testing.T) {
	rows := codeRows(t)
	for _, code := range documentedCodes() {
		code := string(code)
		row, ok := rows[code]
		switch {
		case code == "policy-rejected" || code == "registries-d-rejected":
			// Nothing provokes these: whatever the library rejects today has a code of its own. They are for tomorrow's.
			continue
		case !ok:
			t.Errorf("nothing provokes %s", code)
			continue
		}
		t.Run(code, func(t *testing.T) {
			if got := row.bad.codes(t); !slices.Contains(got, code) {
				t.Errorf("got %q", got)
			}
			if got := row.good.codes(t); slices.Contains(got, code) {
				t.Errorf("the near miss has it too: %q", got)
			}
		})
	}
}

// v6Key is an OpenPGP v6 key, which gpg can't make.
func v6Key(t *testing.T) []byte {
	t.Helper()
	return openpgpKey(t, packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519}, (*openpgp.Entity).Serialize)
}

// v4Key is a key that is made faster than gpg makes one.
func v4Key(t *testing.T) []byte {
	t.Helper()
	return openpgpKey(t, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}, (*openpgp.Entity).Serialize)
}

// secretKey is a private key.
func secretKey(t *testing.T) []byte {
	t.Helper()
	return openpgpKey(t, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA},
		func(e *openpgp.Entity, w io.Writer) error { return e.SerializePrivate(w, nil) })
}

// packed is a key file as an uncompressed "compressed" packet.
func packed(keys []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{0xc8, 0xff}, uint32(len(keys)+1))
	return append(append(head, 0), keys...)
}

// openpgpKey makes a key and writes the part of it that write chooses.
func openpgpKey(t *testing.T, c packet.Config, write func(*openpgp.Entity, io.Writer) error) []byte {
	t.Helper()
	e, err := openpgp.NewEntity("x", "", "x@example.com", &c)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := write(e, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// keyPacket is a public-key packet and a user ID: version, time, algorithm and what follows.
func keyPacket(body ...byte) []byte {
	out := append([]byte{0xc6, byte(len(body))}, body...)
	return append(out, 0xcd, 1, 'x')
}

// postQuantumKey is the frame of a key of ML-DSA-65 and Ed25519, as a v4 key.
func postQuantumKey() []byte {
	return keyPacket(append([]byte{4, 0x60, 0, 0, 0, 30}, make([]byte, 64)...)...)
}

// v3Key is the frame of a key of PGP 2: RSA of 16 bits.
func v3Key() []byte { return keyPacket(3, 0x60, 0, 0, 0, 0, 0, 1, 0, 16, 0xff, 0xff, 0, 2, 3) }

const pemKey = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmd6edXLzEtH9fXt6dNtmCft8WYYI\nCNdVCQGRCyHs4xbyU75CsJRzDv73Zi1Rd92KZVJOqfJ0dEOPSsyTIsB6Xw==\n-----END PUBLIC KEY-----\n"
