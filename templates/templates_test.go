package templates_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/templates"
)

// TestCanaryKey pins the key: another one would change the bytes of every rendered policy with a refuse-canary.
func TestCanaryKey(t *testing.T) {
	f, err := key.Parse(templates.CanaryKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(f.Binary)
	if got, want := hex.EncodeToString(sum[:]), "1e115f068c84ffd7cac1c36537b453ec4e8abfa38942f49fb2bf9ee33fc616c9"; got != want {
		t.Errorf("the key has changed: sha256 %s, want %s", got, want)
	}
	if len(f.Keys) != 1 || f.Blocks != 1 {
		t.Fatalf("got %d keys in %d blocks, want one", len(f.Keys), f.Blocks)
	}
	k := f.Keys[0]
	if k.Version != 4 || k.Algorithm != "RSA" || k.Bits != 3072 || !k.Expires.IsZero() || k.Revoked ||
		len(k.Subkeys) != 0 {
		t.Errorf("got v%d %s-%d, expires %v, revoked %v, %d subkeys, want a v4 RSA-3072 key without expiry", k.Version,
			k.Algorithm, k.Bits, k.Expires, k.Revoked, len(k.Subkeys))
	}
	if got, want := k.Fingerprint, "F594A003D2A511CFBBF97AA0EE57246FCE6B18A6"; got != want {
		t.Errorf("fingerprint %s, want %s", got, want)
	}
}
