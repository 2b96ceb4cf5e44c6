package mutation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"

// cosigner makes signatures as cosign does with a key pair, the same bytes each time.
type cosigner struct {
	key *ecdsa.PrivateKey
	pem []byte
}

func newCosigner(t testing.TB, name string) *cosigner {
	t.Helper()
	scalar := sha256.Sum256([]byte(name))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	return &cosigner{key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
}

func (c *cosigner) requirement(identity string) string {
	out := `{"type":"sigstoreSigned","keyData":"` + base64.StdEncoding.EncodeToString(c.pem) + `"`
	if identity != "" {
		out += `,"signedIdentity":` + identity
	}
	return out + "}"
}

// cosignPayload is what cosign signs.
func (c claim) cosignPayload() []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%s},"image":{"docker-manifest-digest":%s},"type":"cosign container image signature"},"optional":null}`,
		quoted(c.reference), quoted(c.digest))
}

// attachment is one signature that lies in the registry.
type attachment struct {
	kind, signature string
	payload         []byte
}

func (c *cosigner) sign(payload []byte) attachment {
	hash := sha256.Sum256(payload)
	sig, err := c.key.Sign(nil, hash[:], crypto.SHA256)
	if err != nil {
		panic(err)
	}
	return attachment{simpleSigning, base64.StdEncoding.EncodeToString(sig), payload}
}

// cosign makes an attachment, and remembers that it was made.
func (m *mutant) cosign(by *cosigner, payload []byte) attachment {
	m.claims = append(m.claims, signed{cosigner: by, payload: payload})
	return by.sign(payload)
}

// attach stores attachments of a digest where readers look for them, in place of those that are there.
func (s *scene) attach(repo, digest string, all ...attachment) {
	layers := make([]string, len(all))
	for i, a := range all {
		s.blobs[sum(a.payload)] = a.payload
		layers[i] = fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"dev.cosignproject.cosign/signature":%q}}`, a.kind, sum(a.payload), len(a.payload), a.signature)
	}
	s.manifests[attachedAt(repo, digest)] = served{fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[%s]}`,
		ociImage, ociConf, sum([]byte("{}")), strings.Join(layers, ",")), ociImage}
}

func attachedAt(repo, digest string) string {
	return repo + ":" + strings.Replace(digest, ":", "-", 1) + ".sig"
}

// attachments are mutations of what lies in the registry as signatures of the image.
var attachments = func() map[string]func(r *rand.Rand, m *mutant) {
	of := func(m *mutant) claim {
		c := claim{m.instanceDigest(), m.reference()}
		if strings.HasPrefix(m.asked, "@") {
			c.reference = host + "/" + m.repo + ":docker"
		}
		return c
	}
	put := func(m *mutant, all ...attachment) { m.attach(m.repo, m.instanceDigest(), all...) }
	right := func(m *mutant) attachment { return m.cosign(m.pool.cosign, of(m).cosignPayload()) }
	out := map[string]func(r *rand.Rand, m *mutant){
		"right":         func(_ *rand.Rand, m *mutant) { put(m, right(m)) },
		"none":          func(_ *rand.Rand, m *mutant) { delete(m.manifests, attachedAt(m.repo, m.instanceDigest())) },
		"empty":         func(_ *rand.Rand, m *mutant) { put(m) },
		"of a stranger": func(_ *rand.Rand, m *mutant) { put(m, m.cosign(m.pool.costranger, of(m).cosignPayload())) },
		"of a stranger and right": func(_ *rand.Rand, m *mutant) {
			put(m, m.cosign(m.pool.costranger, of(m).cosignPayload()), right(m))
		},
		"of another image": func(r *rand.Rand, m *mutant) {
			other := sum(m.pool.images[pick(r, []string{"docker", "oci", "old"})].body)
			m.manifests[attachedAt(m.repo, m.instanceDigest())] = m.pool.scene.manifests[attachedAt("team/app", other)]
		},
		"other words": func(r *rand.Rand, m *mutant) {
			a := right(m)
			a.payload = payloads[pick(r, []string{"another digest", "another reference", "bits flipped"})](r, m, of(m))
			put(m, a)
		},
		"another signature": func(r *rand.Rand, m *mutant) {
			a := right(m)
			a.signature = pick(r, []string{
				"", "AAAA", a.signature[:len(a.signature)-4], a.signature + a.signature,
				" " + a.signature, a.signature + "\n",
			})
			put(m, a)
		},
		"another media type": func(r *rand.Rand, m *mutant) {
			a := right(m)
			a.kind = pick(r, append([]string{"application/vnd.dsse.envelope.v1+json", simpleSigning + " "}, kinds...))
			put(m, a)
		},
		"manifest misspelt": func(r *rand.Rand, m *mutant) {
			at := attachedAt(m.repo, m.instanceDigest())
			s := m.manifests[at]
			s.body = spelt[pick(r, []string{"bits flipped", "member twice", "member's case", "value replaced", "cut off"})](r,
				bytes.Clone(s.body))
			m.manifests[at] = s
		},
		"manifest as another type": func(r *rand.Rand, m *mutant) {
			at := attachedAt(m.repo, m.instanceDigest())
			m.manifests[at] = served{m.manifests[at].body, pick(r, kinds)}
		},
		"a GPG payload, cosigned": func(_ *rand.Rand, m *mutant) { put(m, m.cosign(m.pool.cosign, of(m).payload())) },
	}
	for name, f := range payloads {
		out["claim: "+name] = func(r *rand.Rand, m *mutant) {
			b := bytes.Replace(f(r, m, of(m)), []byte("atomic container signature"),
				[]byte("cosign container image signature"), 1)
			if a := m.cosign(m.pool.cosign, b); r.IntN(2) == 0 {
				put(m, a)
			} else {
				put(m, a, m.cosign(m.pool.costranger, of(m).cosignPayload()))
			}
		}
	}
	return out
}()

// kindOf is the type that a claim has to have.
func (s signed) kindOf() string {
	if s.cosigner != nil {
		return "cosign container image signature"
	}
	return "atomic container signature"
}

// trusts is true if one of those whom the demand trusts signed it.
func (d demand) trusts(s signed) bool {
	if s.cosigner != nil {
		return slices.Contains(d.cosigners, s.cosigner)
	}
	return slices.Contains(d.signers, s.by)
}
