package mutation

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// signer makes simple signatures without gpg, the same bytes each time: a mutant is to be the same for the same seed.
type signer struct {
	name   string
	entity *openpgp.Entity
	config *packet.Config
	public []byte
}

// seeded is a source of bytes that depend on name alone.
func seeded(name string) io.Reader { return rand.NewChaCha8(sha256.Sum256([]byte(name))) }

func newSigner(t testing.TB, name string) *signer {
	t.Helper()
	no := false
	s := &signer{name: name, config: &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519, Rand: seeded(name),
		Time:                                  func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) },
		NonDeterministicSignaturesViaNotation: &no,
	}}
	var err error
	s.entity, err = openpgp.NewEntity(name, "", name+"@example.com", s.config)
	must(t, err)
	var b bytes.Buffer
	must(t, s.entity.Serialize(&b))
	s.public = b.Bytes()
	return s
}

// sign is a binary signed message of payload.
func (s *signer) sign(payload []byte) []byte {
	var b bytes.Buffer
	w, err := openpgp.Sign(&b, s.entity, &openpgp.FileHints{IsBinary: true}, s.config)
	if err != nil {
		panic(err)
	}
	if _, err := w.Write(payload); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// requirement is a signedBy of these signers, any of whom is enough. The identity is policy.json's, or "".
func requirement(identity string, signers ...*signer) string {
	var keys []byte
	for _, s := range signers {
		keys = append(keys, s.public...)
	}
	out := `{"type":"signedBy","keyType":"GPGKeys","keyData":"` + base64.StdEncoding.EncodeToString(keys) + `"`
	if identity != "" {
		out += `,"signedIdentity":` + identity
	}
	return out + "}"
}

// claim is what a simple signature says.
type claim struct{ digest, reference string }

func (c claim) payload() []byte {
	return fmt.Appendf(nil, `{"critical":{"type":"atomic container signature","image":{"docker-manifest-digest":%s},"identity":{"docker-reference":%s}},"optional":{"creator":"mutation","timestamp":1767225600}}`,
		quoted(c.digest), quoted(c.reference))
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// meaning reads a payload that somebody signed, by the letter: the members of every object that is looked into are
// named once, in the case in which they are specified, and there are no others. Anything else means nothing.
func meaning(payload []byte, kind string) (claim, bool) {
	top, ok := members(payload, "critical", "optional")
	if !ok {
		return claim{}, false
	}
	critical, ok := members(top["critical"], "type", "image", "identity")
	if !ok || text(critical["type"]) != kind {
		return claim{}, false
	}
	image, ok := members(critical["image"], "docker-manifest-digest")
	if !ok {
		return claim{}, false
	}
	identity, ok := members(critical["identity"], "docker-reference")
	if !ok {
		return claim{}, false
	}
	return claim{text(image["docker-manifest-digest"]), text(identity["docker-reference"])}, true
}

// members are those of an object that has just these.
func members(object []byte, names ...string) (map[string]json.RawMessage, bool) {
	out, ok := allMembers(object)
	for _, n := range names {
		if _, has := out[n]; !has {
			return nil, false
		}
	}
	return out, ok && len(out) == len(names)
}

// allMembers are those of an object that names each once.
func allMembers(object []byte) (map[string]json.RawMessage, bool) {
	d := json.NewDecoder(bytes.NewReader(object))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, false
		}
		name := t.(string)
		var value json.RawMessage
		if _, twice := out[name]; twice || d.Decode(&value) != nil {
			return nil, false
		}
		out[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, false
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, false
	}
	return out, true
}

func text(v json.RawMessage) string {
	var s string
	if !strings.HasPrefix(string(v), `"`) || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
