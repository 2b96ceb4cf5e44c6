package detached

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// bench is a manifest, a key that signs for it, and another key; the library judges beside Verify.
type bench struct {
	*testing.T
	fixture.Parts
	gpg        *fixture.GPG
	key, other *fixture.Key
	manifest   []byte
	digest     string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, Parts: fixture.Parts{TB: t}}
	b.gpg = b.GPG()
	b.key, b.other = b.Key(b.gpg, "signer", fixture.KeyOptions{Algo: "ed25519"}),
		b.Key(b.gpg, "other", fixture.KeyOptions{Algo: "ed25519"})
	img, err := fixture.Image("detached", "amd64")
	check(t, err)
	b.manifest, err = img.RawManifest()
	check(t, err)
	b.digest = digest.FromBytes(b.manifest).String()
	return b
}

// run has gpg work on what stdin holds.
func (b *bench) run(stdin []byte, args ...string) []byte {
	b.T.Helper()
	cmd := exec.Command("gpg", append([]string{
		"--homedir", b.gpg.Home(), "--batch", "--yes", "--quiet", "--no-tty",
		"--passphrase", "", "--pinentry-mode", "loopback",
	}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		b.T.Fatalf("gpg %v: %v", args, err)
	}
	return out
}

// library is what readers say of an image of the manifest, pulled as name, that has this signature file.
func (b *bench) library(file []byte, keys []byte, name, identity string) bool {
	b.T.Helper()
	dir := b.T.TempDir()
	b.Write(filepath.Join(dir, "version"), []byte("Directory Transport Version: 1.1\n"))
	b.Write(filepath.Join(dir, "manifest.json"), b.manifest)
	b.Write(filepath.Join(dir, "signature-1"), file)
	policy, err := signature.NewPolicyFromBytes(fmt.Appendf(nil,
		`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":%q,"signedIdentity":{"type":%q}}]}`,
		base64.StdEncoding.EncodeToString(keys), identity))
	check(b.T, err)
	at, err := directory.NewReference(dir)
	check(b.T, err)
	src, err := at.NewImageSource(b.T.Context(), nil)
	check(b.T, err)
	defer src.Close()
	named, err := reference.ParseNormalizedNamed(name)
	check(b.T, err)
	if digested, ok := named.(reference.Digested); ok {
		named, err = reference.WithDigest(reference.TrimNamed(named), digested.Digest())
		check(b.T, err)
	}
	ref, err := docker.NewReference(named)
	check(b.T, err)
	pc, err := signature.NewPolicyContext(policy)
	check(b.T, err)
	defer func() { check(b.T, pc.Destroy()) }()
	allowed, _ := pc.IsRunningImageAllowed(context.Background(),
		image.UnparsedInstanceWithReference(image.UnparsedInstance(src, nil), ref))
	return allowed
}

var fullFingerprint = regexp.MustCompile(`^([0-9A-F]{40}|[0-9A-F]{64})$`)

// like fails unless Verify accepts what the library accepts, and names the signer of all that it accepts.
func (b *bench) like(file, keys []byte, name, identity string) Result {
	b.T.Helper()
	d, err := Verify(b.T.Context(), file, [][]byte{keys}, Wanted{Digest: b.digest, Reference: name, Identity: identity})
	check(b.T, err)
	if identity == "" {
		identity = "matchRepoDigestOrExact"
	}
	accepted := d.Answer == verdict.Accept
	if library := b.library(file, keys, name, identity); accepted != library {
		b.T.Errorf("%s %s: %s %s, the library accepts: %t", d.Answer, d.Reason, d.Message, name, library)
	}
	if accepted && (!fullFingerprint.MatchString(d.Signer) || d.Reason != "" || d.Message != "signed by "+d.Signer) {
		b.T.Errorf("accepted, but signed by whom? %+v", d)
	}
	if !accepted && d.Reason == "" {
		b.T.Errorf("no reason: %+v", d)
	}
	return d
}

const name = "quay.io/corp/app:v1"

// TestVerify_forms: what a file may be, and what is said of the ones that readers don't take.
func TestVerify_forms(t *testing.T) {
	b := newBench(t)
	payload := fixture.Payload(b.digest, name)
	sign := func(args ...string) []byte {
		return b.run(payload, append([]string{"-u", b.key.Fingerprint}, args...)...)
	}
	good, err := b.key.SignBytes(payload)
	check(t, err)
	evil, err := b.other.SignBytes(payload)
	check(t, err)
	bundle := []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{}}`)
	for _, tt := range []struct {
		what string
		file []byte
		want string // part of the message; "" is accept
	}{
		{"binary", good, ""},
		{"compressed", sign("--compress-algo", "zip", "--sign"), ""},
		{"with the format's name", append([]byte("\x00simple-signing\n"), good...), ""},
		{"text mode", sign("--compress-algo", "none", "--textmode", "--sign"), ""},
		{"notation", sign("--sig-notation", "a@example.com=b", "--sign"), ""},
		{"armored", sign("--armor", "--sign"), "an armored message"},
		{"clear-signed", sign("--clearsign"), "a clear-signed message"},
		{"detached", sign("--detach-sign"), "a detached signature with no content inside"},
		{"armored detached", sign("--armor", "--detach-sign"), "an armored detached signature"},
		{"by another", evil, "which is none of the accepted keys"},
		{"two files", append(slices.Clone(good), evil...), "no usable container signature"},
		{"two files, the good one last", append(slices.Clone(evil), good...), "no usable container signature"},
		{"by two", sign("-u", b.other.Fingerprint, "--compress-algo", "none", "--sign"), ""},
		{"zero behind", append(slices.Clone(good), 0), "no usable container signature"},
		{"newline behind", append(slices.Clone(good), '\n'), "no usable container signature"},
		{"marker before", append([]byte{0xca, 3, 'P', 'G', 'P'}, good...), "packet of type 10"},
		{"cut off", good[:len(good)-20], "cut off"},
		{"unsigned", sign("--store", "--compress-algo", "none"), "nobody signed"},
		{"encrypted", sign("--passphrase", "x", "--symmetric"), "an encrypted OpenPGP message"},
		{"empty", nil, "the file is empty"},
		{"zeros", make([]byte, 100), "nothing but zeros"},
		{"web page", []byte("\n<!DOCTYPE html><html></html>"), "a web page"},
		{"public key", b.key.Binary, "an OpenPGP public key"},
		{"armored public key", b.key.Armored, "an armored public key"},
		{"secret key", b.run(nil, "--export-secret-keys", b.key.Fingerprint), "an OpenPGP secret key"},
		{"bundle", bundle, "a sigstore bundle (JSON)"},
		{
			"sigstore in a directory", []byte("\x00sigstore-json\n{\"mimeType\":\"a\",\"payload\":\"\",\"annotations\":{}}"),
			"a sigstore signature in the form of a dir: image",
		},
		{"JSON", []byte(`[1]`), "the file is JSON"},
		{"the payload itself", payload, "which nobody signed"},
		{"cosign", []byte(base64.StdEncoding.EncodeToString(make([]byte, 70)) + "\n"), "base64 text"},
		{"gzip", []byte{0x1f, 0x8b, 8, 0}, "packed with gzip"},
		{"text", []byte("Not Found\n"), "of another kind"},
		{"equals sign", []byte("=hello"), "no usable container signature"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			b := *b
			b.T = t
			d := b.like(tt.file, b.key.Binary, name, "")
			if mechanism.Name != "gpgme" && !strings.HasPrefix(d.Message, "the file is ") {
				return // what it makes of odd messages differs
			}
			if tt.want == "" && d.Answer != verdict.Accept && tt.what != "by two" || !strings.Contains(d.Message, tt.want) {
				t.Errorf("%s %s: %s, want %q", d.Answer, d.Reason, d.Message, tt.want)
			}
			if strings.HasPrefix(d.Message, "the file is ") &&
				(d.Answer != verdict.Unknown || d.Reason != verdict.LookasideNotSignature) {
				t.Errorf("%s %s: %s", d.Answer, d.Reason, d.Message)
			}
		})
	}
}

// TestVerify_payloads: readers take the same JSON.
func TestVerify_payloads(t *testing.T) {
	b := newBench(t)
	whole := `{"critical":{"identity":{"docker-reference":"` + name + `"},"image":{"docker-manifest-digest":"` + b.digest +
		`"},"type":"atomic container signature"},"optional":{}}`
	without := strings.TrimSuffix(whole, `,"optional":{}}`)
	for what, tt := range map[string]struct {
		payload string
		accept  bool
	}{
		"right":          {whole, true},
		"timestamp null": {without + `,"optional":{"timestamp":null}}`, true},
		"creator null":   {without + `,"optional":{"creator":null}}`, true},
		"twice critical": {without + `,` + whole[1:], false},
		"twice the digest": {strings.Replace(whole, `"docker-manifest-digest"`,
			`"docker-manifest-digest":"sha256:00","docker-manifest-digest"`, 1), false},
		"twice creator":           {without + `,"optional":{"creator":"a","creator":"b"}}`, false},
		"Critical":                {strings.Replace(whole, "critical", "Critical", 1), false},
		"Docker-Reference":        {strings.Replace(whole, "docker-ref", "Docker-Ref", 1), false},
		"kelvin sign":             {strings.Replace(whole, "docker-ref", "doc\u212aer-ref", 1), false},
		"no optional":             {without + `}`, false},
		"optional null":           {without + `,"optional":null}`, false},
		"SHA-512 of the manifest": {strings.Replace(whole, b.digest, digest.SHA512.FromBytes(b.manifest).String(), 1), false},
		"no reference":            {strings.Replace(whole, name, "", 1), false},
		"other type":              {strings.Replace(whole, "atomic container", "cosign container image", 1), false},
		"other digest":            {strings.Replace(whole, b.digest, "sha256:"+strings.Repeat("0", 64), 1), false},
	} {
		t.Run(what, func(t *testing.T) {
			b := *b
			b.T = t
			file, err := b.key.SignBytes([]byte(tt.payload))
			check(t, err)
			if d := b.like(file, b.key.Binary, name, ""); (d.Answer == verdict.Accept) != tt.accept {
				t.Errorf("%s %s: %s", d.Answer, d.Reason, d.Message)
			}
			d, err := Verify(t.Context(), file, [][]byte{b.key.Binary}, Wanted{}) // with nothing wanted it isn't less strict
			check(t, err)
			if accept := tt.accept || what == "other digest"; (d.Answer == verdict.Accept) != accept {
				t.Errorf("alone: %s %s: %s", d.Answer, d.Reason, d.Message)
			}
		})
	}
}

// TestVerify_identities: each signed name against each that an image may be pulled by.
func TestVerify_identities(t *testing.T) {
	b := newBench(t)
	at := "@" + b.digest
	signed := []string{
		"r.example/a/b:v1" + at, "r.example/a/b", "r.example/a/b:v1", "r.example/a/b" + at, "r.example/a/c:v1",
		"docker.io/library/busybox:v1",
		"r.example/A/b:v1", "docker://r.example/a/b:v1",
	}
	wanted := []string{"r.example/a/b:v1", "r.example/a/b:v2" + at, "busybox:v1"}
	accepted := 0
	for i, s := range signed {
		file, err := b.key.SignBytes(fixture.Payload(b.digest, s))
		check(t, err)
		for j, w := range wanted {
			rules := []string{"", "matchExact", "matchRepository"}
			if i > 3 || j > 1 { // verify compares identities at length
				rules = rules[:1]
			}
			for _, identity := range rules {
				if b.like(file, b.key.Binary, w, identity).Answer == verdict.Accept {
					accepted++
				}
			}
		}
	}
	if accepted < 10 {
		t.Errorf("only %d are accepted", accepted)
	}
}

// TestVerify_keys: key files that readers import.
func TestVerify_keys(t *testing.T) {
	b := newBench(t)
	rsa := b.Key(b.gpg, "rsa", fixture.KeyOptions{Algo: "rsa2048"})
	subkey, err := rsa.Subkey()
	check(t, err)
	signed := func(k *fixture.Key) []byte {
		file, err := k.Sign(b.digest, name)
		check(t, err)
		return file
	}
	secret := b.run(nil, "--export-secret-keys", b.key.Fingerprint)
	good, bySubkey := signed(b.key), signed(subkey)
	for _, tt := range []struct {
		what       string
		file, keys []byte
		accept     bool
	}{
		{"secret key", good, secret, true},
		{"armored secret key", good, b.run(nil, "--armor", "--export-secret-keys", b.key.Fingerprint), true},
		{"another's secret key", good, b.run(nil, "--export-secret-keys", b.other.Fingerprint), false},
		{"secret key of a subkey's primary", bySubkey, b.run(nil, "--export-secret-keys", rsa.Fingerprint), true},
		{"secret subkey alone", bySubkey, b.run(nil, "--export-secret-subkeys", subkey.Fingerprint+"!"), true},
		{"secret key, then another's", good, append(slices.Clone(secret), b.other.Binary...), true},
		{"another's, then the secret key", good, append(slices.Clone(b.other.Binary), secret...), true},
		{"compressed", good, compressed(b.key.Binary), true},
		{"compressed, with a subkey", bySubkey, compressed(rsa.Binary), true},
		{"another's, compressed", good, compressed(b.other.Binary), false},
		{"two keys", good, append(slices.Clone(b.other.Binary), b.key.Binary...), true},
		{"no key", good, []byte("hello"), false},
		{"a signature", good, good, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			b := *b
			b.T = t
			d := b.like(tt.file, tt.keys, name, "")
			if mechanism.Name != "gpgme" && strings.HasPrefix(tt.what, "compressed") {
				return // it unpacks no keys
			}
			if (d.Answer == verdict.Accept) != tt.accept {
				t.Errorf("%s %s: %s", d.Answer, d.Reason, d.Message)
			}
		})
	}
}

// compressed is a key file as one compressed packet.
func compressed(keys []byte) []byte {
	var z bytes.Buffer
	z.WriteByte(1)
	w, _ := flate.NewWriter(&z, flate.BestCompression)
	_, _ = w.Write(keys)
	_ = w.Close()
	return append(binary.BigEndian.AppendUint32([]byte{0xc8, 0xff}, uint32(z.Len())), z.Bytes()...)
}
