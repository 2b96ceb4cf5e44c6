package secondlook

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"go.podman.io/image/v5/docker/reference"
)

const (
	ociImage = "application/vnd.oci.image.manifest.v1+json"
	ociIndex = "application/vnd.oci.image.index.v1+json"
	schema1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	keyID    = "0123456789ABCDEF"
)

func digestOf(b []byte) string { s := sha256.Sum256(b); return "sha256:" + hex.EncodeToString(s[:]) }

func image(marker string) []byte {
	d := digestOf([]byte(marker))
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x","digest":%q,"size":1},"layers":[{"digest":%q}]}`, ociImage, d, d)
}

func index(digests ...string) []byte {
	var list []string
	for _, d := range digests {
		list = append(list, fmt.Sprintf(`{"digest":%q}`, d))
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Join(list, ","))
}

func payload(digest, reference string) string {
	return `{"critical":{"identity":{"docker-reference":"` + reference +
		`"},"image":{"docker-manifest-digest":"` + digest +
		`"},"type":"atomic container signature"},"optional":{}}`
}

// packed is a packet with a header of the new format.
func packed(tag byte, body []byte) []byte {
	n := len(body)
	return append([]byte{0xc0 | tag, 255, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

// signed is an OpenPGP message with a signature packet that names its issuer; it isn't well signed, which is not
// asked here.
func signed(payload, issuer string) []byte {
	id, _ := hex.DecodeString(issuer)
	sub := append([]byte{9, 16}, id...)
	sig := append([]byte{4, 0, 1, 8, 0, 0, 0, byte(len(sub))}, sub...)
	return append(packed(packetLiteral, append([]byte{'b', 0, 0, 0, 0, 0}, payload...)), packed(packetSignature, sig)...)
}

// accepted is an image to which a second look has nothing to say.
func accepted() Image {
	m := image("a")
	return Image{
		Manifest: m, MediaType: ociImage, Digest: digestOf(m), Asked: "r.example/a:v1",
		Demands: []Demand{{
			Identity: Identity{Type: "matchRepoDigestOrExact"}, Keys: map[string]string{keyID: "FPR"},
			Accepted: []Signature{{Message: signed(payload(digestOf(m), "r.example/a:v1"), keyID)}},
		}},
	}
}

// TestAt changes one thing of an accepted image at a time.
func TestAt(t *testing.T) {
	forged := fmt.Appendf(nil, `{"schemaVersion":1,"fsLayers":[],"history":[],"signatures":[]}`)
	other := image("other")
	message := func(im *Image, m []byte) { im.Demands[0].Accepted = []Signature{{Message: m}} }
	claims := func(im *Image, payload string) { message(im, signed(payload, keyID)) }
	right := payload(accepted().Digest, "r.example/a:v1")
	for _, tt := range []struct {
		name string
		kind Kind // 0: nothing is found
		do   func(im *Image)
	}{
		{"as it was", 0, func(*Image) {}},
		{"other bytes under the digest", Differs, func(im *Image) { im.Manifest = other }},
		{"other bytes and their digest", Differs, func(im *Image) { im.Manifest, im.Digest = other, digestOf(other) }},
		{"another digest asked for", Differs, func(im *Image) { im.Asked = "r.example/a@" + digestOf(other) }},
		{"the digest asked for", 0, func(im *Image) { im.Asked = "r.example/a@" + im.Digest }},
		{"no digest", Differs, func(im *Image) { im.Digest = "" }},
		{"upper-case digest", Differs, func(im *Image) { im.Digest = "sha256:" + strings.ToUpper(im.Digest[7:]) }},
		{"self-signed", Forged, func(im *Image) { im.Manifest = forged }},
		{"self-signed, served as an image", Forged, func(im *Image) {
			im.Manifest = bytes.Replace(im.Manifest, []byte(`{`), []byte(`{"Signatures":[{}],`), 1)
		}},
		{"schema 1", Outdated, func(im *Image) { im.Manifest = []byte(`{"schemaVersion":1,"fsLayers":[]}`) }},
		{"self-signed, nothing demanded", 0, func(im *Image) {
			im.Manifest, im.MediaType, im.Demands = forged,
				schema1, nil
		}},
		{"self-signed by digest, nothing demanded", Differs, func(im *Image) {
			im.Manifest, im.MediaType, im.Demands, im.Asked = forged, schema1, nil, "r.example/a@"+im.Digest
		}},
		{"index as an image", Unusable, func(im *Image) { im.Manifest = index(im.Digest) }},
		{"index inside an index", Unusable, func(im *Image) { im.MediaType, im.Index = ociIndex, index(im.Digest) }},
		{"two kinds at once", Unusable, func(im *Image) {
			im.Manifest = bytes.Replace(im.Manifest, []byte(`{`), []byte(`{"manifests":[],`), 1)
		}},
		{"no type", Unusable, func(im *Image) { im.MediaType = "" }},
		{"a web page's type", Unusable, func(im *Image) { im.MediaType = "text/html" }},
		{"no JSON", Unusable, func(im *Image) { im.Manifest = []byte("hello") }},
		{"empty", Unusable, func(im *Image) { im.Manifest = nil }},
		{"a layer without digest", Unusable, func(im *Image) {
			im.Manifest = bytes.Replace(im.Manifest, []byte(`"layers":[{`), []byte(`"layers":[{},{`), 1)
		}},
		{"of an index", 0, func(im *Image) { im.Index = index(digestOf(other), im.Digest) }},
		{"of an index that doesn't name it", Differs, func(im *Image) { im.Index = index(digestOf(other)) }},
		{"of an index asked for", 0, func(im *Image) {
			im.Index = index(im.Digest)
			im.Asked = "r.example/a@" +
				digestOf(im.Index)
		}},
		{
			"of another index than asked for", Differs,
			func(im *Image) { im.Index = index(im.Digest); im.Asked = "r.example/a@" + digestOf(other) },
		},
		{"no signature", Differs, func(im *Image) { im.Demands[0].Accepted = nil }},
		{"claim of other bytes", Differs, func(im *Image) { claims(im, payload(digestOf(other), "r.example/a:v1")) }},
		{"claim of another tag", Differs, func(im *Image) { claims(im, payload(im.Digest, "r.example/a:v2")) }},
		{"claim of another tag, any accepted", 0, func(im *Image) {
			claims(im, payload(im.Digest, "r.example/a:v2"))
			im.Demands[0].Identity.Type = "matchRepository"
		}},
		{"claim of a digest", Differs, func(im *Image) { claims(im, payload(im.Digest, "r.example/a:v1@"+im.Digest)) }},
		{"an unknown identity", Differs, func(im *Image) { im.Demands[0].Identity.Type = "matchAll" }},
		{"another signer", Differs, func(im *Image) { message(im, signed(right, "FEDCBA9876543210")) }},
		{"two texts", Differs, func(im *Image) {
			message(im, append(packed(packetLiteral, []byte{'b', 0, 0, 0, 0, 0}), signed(right, keyID)...))
		}},
		{"two signatures", Differs, func(im *Image) {
			s := signed(right, keyID)
			message(im, append(s, s[bytes.LastIndex(s, []byte{0xc2, 255}):]...))
		}},
		{"bytes after the message", Differs, func(im *Image) { message(im, append(signed(right, keyID), 0)) }},
		{"one of two signatures is right", 0, func(im *Image) {
			im.Demands[0].Accepted = append([]Signature{{Message: []byte("x")}}, im.Demands[0].Accepted...)
		}},
		{"one of two demands is met", Differs, func(im *Image) { im.Demands = append(im.Demands, Demand{}) }},
		{"claim twice", Differs, func(im *Image) { claims(im, strings.Replace(right, `{`, `{"optional":{},`, 1)) }},
		{"claim in capitals", Differs, func(im *Image) { claims(im, strings.Replace(right, "critical", "Critical", 1)) }},
		{"claim with the Kelvin sign", Differs, func(im *Image) {
			claims(im, strings.Replace(right, "docker-reference", "doc\u212aer-reference", 1))
		}},
		{"claim with more", Differs, func(im *Image) { claims(im, strings.Replace(right, `{`, `{"more":1,`, 1)) }},
		{"claim without optional", Differs, func(im *Image) { claims(im, strings.Replace(right, `,"optional":{}`, ``, 1)) }},
		{"claim of another type", Differs, func(im *Image) { claims(im, strings.Replace(right, "atomic", "atomic ", 1)) }},
		{"claim with a second value", Differs, func(im *Image) { claims(im, right+"{}") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			im := accepted()
			tt.do(&im)
			f := At(im)
			switch {
			case f == nil && tt.kind != 0:
				t.Error("nothing is found")
			case f != nil && f.Kind != tt.kind:
				t.Errorf("found %d (%s), want %d", f.Kind, f.Message, tt.kind)
			}
		})
	}
}

// TestSigstore verifies what cosign would sign.
func TestSigstore(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	im := accepted()
	claim := strings.Replace(strings.Replace(payload(im.Digest, "r.example/a:v1"), simpleType, cosignType, 1),
		`"optional":{}`, `"optional":null`, 1)
	sum := sha256.Sum256([]byte(claim))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	s := Signature{Payload: []byte(claim), Signature: base64.StdEncoding.EncodeToString(sig)}
	im.Demands[0] = Demand{
		Identity: Identity{Type: "matchRepository"}, Accepted: []Signature{s},
		Verifiers: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})},
	}
	if f := At(im); f != nil {
		t.Errorf("found %s", f.Message)
	}
	im.Demands[0].Accepted[0].Payload = append(s.Payload, ' ')
	if f := At(im); f == nil {
		t.Error("nothing is found although other bytes were signed")
	}
}

// TestReadMessage reads what OpenPGP allows besides the plain form.
func TestReadMessage(t *testing.T) {
	plain := signed("hello", keyID)
	var deflated, zipped bytes.Buffer
	f, _ := flate.NewWriter(&deflated, 9)
	z := zlib.NewWriter(&zipped)
	for _, w := range []interface {
		Write([]byte) (int, error)
		Close() error
	}{f, z} {
		_, _ = w.Write(plain)
		_ = w.Close()
	}
	literal := append([]byte{'b', 0, 0, 0, 0, 0}, "hello"...)
	signature := plain[len(packed(packetLiteral, literal)):]
	for name, m := range map[string][]byte{
		"plain":      plain,
		"zip":        packed(packetCompressed, append([]byte{1}, deflated.Bytes()...)),
		"zlib":       packed(packetCompressed, append([]byte{2}, zipped.Bytes()...)),
		"not packed": packed(packetCompressed, append([]byte{0}, plain...)),
		"to the end": append([]byte{0xa3, 0}, plain...),
		"old format": append(append([]byte{0x80 | packetLiteral<<2, byte(len(literal))}, literal...), signature...),
		"in parts": append(append(append([]byte{0xc0 | packetLiteral, 0xe3}, literal[:8]...),
			append([]byte{byte(len(literal) - 8)}, literal[8:]...)...), signature...),
		"text last": append(bytes.Clone(signature), packed(packetLiteral, literal)...),
	} {
		got, err := readMessage(m)
		if err != nil || string(got.payload) != "hello" || len(got.signers) != 1 || got.signers[0] != keyID {
			t.Errorf("%s: %q by %v, %v", name, got.payload, got.signers, err)
		}
	}
	bomb := plain
	for range maxNested + 2 {
		bomb = packed(packetCompressed, append([]byte{0}, bomb...))
	}
	if _, err := readMessage(bomb); err == nil {
		t.Error("a message is read that is compressed too often")
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(signed("hello", keyID))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = readMessage(b) })
}

// FuzzJSON holds the reader of objects against Go's: what is JSON for one is for the other, with the same members.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, `{"a":{"b":[1,2,{"c":null}]},"a":"x\u212a\ud83d\ude00\ud800"}`, " {\"\xff\" : -0.5e+3 } ",
		`{"a":01}`, `{"a":1}{}`, `[1]`, `{"a":tru}`,
		`{"a":"\x"}`, `{"a":1,}`, `{"a" 1}`, "{\"a\":\"\n\"}", `{"a":-}`, `{"a":1.}`, `{"a":1e}`, `{"":[]}`, "\ufeff{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := object(b)
		var want map[string]json.RawMessage
		if is := json.Unmarshal(b, &want) == nil && want != nil; is != (err == nil) {
			t.Fatalf("%q: %v, Go says that it is an object: %t", b, err, is)
		}
		if err != nil {
			return
		}
		last := map[string]string{}
		for _, m := range all {
			last[m.key] = string(m.value)
		}
		if len(last) != len(want) {
			t.Fatalf("%q: %d members, Go reads %d", b, len(last), len(want))
		}
		for k, v := range want {
			if last[k] != string(v) {
				t.Fatalf("%q: member %q is %q, Go reads %q", b, k, last[k], v)
			}
			var s string
			if json.Unmarshal(v, &s) == nil && string(v) != "null" {
				if got, err := text(v); err != nil || got != s {
					t.Fatalf("%q: %q, %v, Go reads %q", v, got, err, s)
				}
			}
		}
	})
}

// FuzzName holds the reader of references against the library that runtimes have.
func FuzzName(f *testing.F) {
	for _, s := range []string{
		"busybox", "busybox:1", "a.example/b:1", "a.example:5000/b", "localhost/b", "Reg/a", "index.docker.io/a",
		"docker.io/b", "a/b/c@sha256:" + strings.Repeat("a", 64),
		"a:1@sha256:" + strings.Repeat("a", 64), "[::1]:5000/a", "a_b/c__d", "a/b-", "", "a/", ":1", "a/B",
		strings.Repeat("a", 64), "a@sha256:x", "a--b/c", "a.b./c", "a:b/c:d",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 200 {
			return // the library bounds the length of repositories, which no comparison depends on
		}
		got, err := parseName(s)
		want, wantErr := reference.ParseNormalizedNamed(s)
		if wantErr != nil {
			return // the second look compares names that the library has read
		}
		if err != nil || got.String() != want.String() || got.repository != want.Name() {
			t.Fatalf("%q: %q in %q, %v; the library reads %q in %q", s, got, got.repository, err, want, want.Name())
		}
	})
}
