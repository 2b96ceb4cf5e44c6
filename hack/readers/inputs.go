package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

const (
	identity     = "registry.example.com/app:1"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeSchema1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// newInputs makes an input for each advisory, with new keys.
func newInputs() ([]input, error) {
	gpg, err := fixture.NewGPG()
	if err != nil {
		return nil, err
	}
	defer gpg.Close()
	key, err := gpg.NewKey("signer", fixture.KeyOptions{Algo: "rsa2048"})
	if err != nil {
		return nil, err
	}
	m := maker{key: key}
	inputs := []input{m.forgedSchema1(), m.uncheckedDigest(), m.endlessSignatures(), m.ambiguous(), m.hugeManifest()}
	expired, err := expiredKey(gpg)
	if err != nil {
		return nil, err
	}
	return append(inputs, expired), m.err
}

// maker makes inputs whose signatures are all of one key.
type maker struct {
	key *fixture.Key
	err error
}

func (m *maker) sign(digest string) []byte {
	sig, err := m.key.Sign(digest, identity)
	if err != nil {
		m.err = err
	}
	return sig
}

// image is a manifest with one layer, and the blobs of both.
type image struct {
	body, digest, layer string
	blobs               map[string][]byte
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// newImage makes an image whose only file says text. More members may be put into the manifest.
func newImage(text string, more map[string]any) image {
	plain := new(bytes.Buffer)
	files := tar.NewWriter(plain)
	must(files.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(text))}))
	_, err := files.Write([]byte(text))
	must(err)
	must(files.Close())
	packed := new(bytes.Buffer)
	gz := gzip.NewWriter(packed)
	_, err = gz.Write(plain.Bytes())
	must(err)
	must(gz.Close())
	config := marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(plain.Bytes())}},
	})
	manifest := map[string]any{
		"schemaVersion": 2,
		"config": map[string]any{
			"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
			"digest": digestOf(config),
		},
		"layers": []any{map[string]any{
			"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
			"size":      packed.Len(), "digest": digestOf(packed.Bytes()),
		}},
	}
	for k, v := range more {
		manifest[k] = v
	}
	body := marshal(manifest)
	return image{
		body: string(body), digest: digestOf(body), layer: digestOf(packed.Bytes()),
		blobs: map[string][]byte{digestOf(config): config, digestOf(packed.Bytes()): packed.Bytes()},
	}
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	must(err)
	return b
}

// forgedSchema1 is a manifest of the forger's whose JWS names the bytes of an honest one, which is signed, as its
// payload.
func (m *maker) forgedSchema1() input {
	honest, forged := newImage("honest", nil), newImage("forged", nil)
	body, err := fixture.Forge([]byte(honest.body),
		fixture.Forgery{Shape: fixture.Schema1, Name: "app", Tag: "1", Layers: []fixture.Blob{{Digest: forged.layer}}})
	must(err)
	return m.input("forged-schema1", input{
		Manifests:  map[string]document{"1": {typeSchema1, string(body)}},
		Blobs:      forged.blobs,
		Signatures: map[string][]byte{honest.digest: m.sign(honest.digest)},
		Pulls:      []pull{{typeSchema1, forged.layer}},
	})
}

// uncheckedDigest is an index whose digest is a path that leads to another repository.
func (m *maker) uncheckedDigest() input {
	body := marshal(map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": typeManifest, "size": 2, "digest": "sha256:x/../../../other/manifests/secret",
		"platform": map[string]any{"architecture": "amd64", "os": "linux"},
	}}})
	return m.input("unchecked-digest", input{
		Manifests: map[string]document{"1": {typeIndex, string(body)}},
		Pulls:     []pull{{typeIndex, ""}},
		Asks:      "/v2/other/",
	})
}

// endlessSignatures is an image with a signature of another image, over and over.
func (m *maker) endlessSignatures() input {
	honest, other := newImage("honest", nil), newImage("other", nil)
	return m.input("endless-signatures", input{
		Manifests:  map[string]document{"1": {typeManifest, honest.body}},
		Blobs:      honest.blobs,
		Signatures: map[string][]byte{honest.digest: m.sign(other.digest)},
		Pulls:      []pull{{typeManifest, honest.layer}},
		Repeats:    2000,
	})
}

// ambiguous is one body, signed once, that is an index of an honest image and an image of the forger's.
func (m *maker) ambiguous() input {
	honest := newImage("honest", nil)
	both := newImage("forged", map[string]any{"manifests": []any{map[string]any{
		"mediaType": typeManifest, "size": len(honest.body), "digest": honest.digest,
		"platform": map[string]any{"architecture": "amd64", "os": "linux"},
	}}})
	blobs := both.blobs
	for digest, b := range honest.blobs {
		blobs[digest] = b
	}
	return m.input("ambiguous-manifest", input{
		Manifests:  map[string]document{"1": {typeIndex, both.body}, honest.digest: {typeManifest, honest.body}},
		Blobs:      blobs,
		Signatures: map[string][]byte{honest.digest: m.sign(honest.digest), both.digest: m.sign(both.digest)},
		Pulls:      []pull{{typeIndex, honest.layer}, {typeManifest, both.layer}},
	})
}

// hugeManifest is a manifest that goes on for 32 MiB.
func (m *maker) hugeManifest() input {
	honest := newImage("honest", nil)
	return m.input("huge-manifest", input{
		Manifests: map[string]document{"1": {typeManifest, honest.body}},
		Pulls:     []pull{{typeManifest, honest.layer}},
		Receives:  32 << 20,
	})
}

func (m *maker) input(id string, in input) input {
	in.ID, in.Key, in.Identity = id, m.key.Binary, identity
	return in
}

// expiredKey is an image that is signed by a key that has expired.
func expiredKey(gpg *fixture.GPG) (input, error) {
	key, err := gpg.NewKey("expired", fixture.KeyOptions{Algo: "rsa2048", FakedTime: "20200101T000000", Expire: "1y"})
	if err != nil {
		return input{}, err
	}
	honest := newImage("honest", nil)
	sig, err := key.SignBytes(fixture.Payload(honest.digest, identity), "--faked-system-time", "20200601T000000")
	m := maker{key: key}
	return m.input("expired-key", input{
		Manifests:  map[string]document{"1": {typeManifest, honest.body}},
		Blobs:      honest.blobs,
		Signatures: map[string][]byte{honest.digest: sig},
		Pulls:      []pull{{typeManifest, honest.layer}},
	}), err
}
