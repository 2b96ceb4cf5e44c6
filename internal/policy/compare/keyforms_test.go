package compare

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// TestCompare_keyForms: a key is the same key in every form of file that readers import it from.
func TestCompare_keyForms(t *testing.T) {
	entity := func() (public, secret []byte) {
		e, err := openpgp.NewEntity("x", "", "x@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
		if err != nil {
			t.Fatal(err)
		}
		var p, s bytes.Buffer
		if err := e.SerializePrivate(&s, nil); err != nil { // which signs it
			t.Fatal(err)
		}
		if err := e.Serialize(&p); err != nil {
			t.Fatal(err)
		}
		return p.Bytes(), s.Bytes()
	}
	packed := func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0xc8, 0xff}, uint32(len(b)+1)), append([]byte{0}, b...)...)
	}
	public, secret := entity()
	other, otherSecret := entity()
	for _, tt := range []struct {
		name string
		a, b []byte
		want Relation
	}{
		{"secret key", public, secret, Equal},
		{"packed", public, packed(public), Equal},
		{"another's secret key beside it", public, append(bytes.Clone(public), otherSecret...), Weaker},
		{"another's packed key beside it", public, append(bytes.Clone(public), packed(other)...), Weaker},
		{"another's secret key", public, otherSecret, Incomparable},
		{"one secret key of two", append(bytes.Clone(other), secret...), public, Stronger},
	} {
		policy := func(keys []byte) *Policy {
			return policyOf(t, "a.b", `[{"type":"signedBy","keyType":"GPGKeys","keyData":"`+
				base64.StdEncoding.EncodeToString(keys)+`"}]`, nil)
		}
		if r := Policies(policy(tt.a), policy(tt.b)); r.Relation != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, r.Relation, tt.want)
		}
	}
}
