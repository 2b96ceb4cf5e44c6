package openpgp

import (
	"bytes"
	"compress/flate"
	"slices"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

func TestMain(m *testing.M) { fixture.Main(m) }

func TestReadClaims(t *testing.T) {
	p := fixture.Parts{TB: t}
	key := p.Key(p.GPG(), "signer", fixture.KeyOptions{})
	digest := "sha256:" + strings.Repeat("ab", 32)
	sig, err := key.Sign(digest, "quay.io/corp/app:v1")
	p.Must(err)
	got := ReadClaims(sig)
	want := Claims{Packet: 4, Hash: got.Hash, Signer: key.Fingerprint, Digest: digest, Reference: "quay.io/corp/app:v1"}
	if got != want || got.Hash != 8 && got.Hash != 10 { // SHA-256 or SHA-512, as gpg likes
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := CheckUnpacked(sig, MaxUnpacked); err != nil {
		t.Error(err)
	}
	if got := ReadClaims(sig[:20]); got.Digest != "" || got.Packet != 0 {
		t.Errorf("cut off: %+v", got)
	}
	if IsDetached(sig) {
		t.Error("a message with its signature is taken for a detached one")
	}
}

// compressed is a packet with b inside.
func compressed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	out.WriteByte(1) // ZIP
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	var p bytes.Buffer
	writeHeader(&p, tagCompressed, out.Len())
	p.Write(out.Bytes())
	return p.Bytes()
}

func TestCheckUnpacked(t *testing.T) {
	bomb := compressed(t, make([]byte, 1000))
	if err := CheckUnpacked(bomb, 1000); err != nil {
		t.Errorf("as much as is allowed: %v", err)
	}
	if err := CheckUnpacked(bomb, 999); err == nil {
		t.Error("more than is allowed: no error")
	}
	if err := CheckUnpacked(slices.Concat(bomb, bomb), 1500); err == nil {
		t.Error("more than is allowed, in two packets: no error")
	}
	nested := []byte(nil)
	for range maxNested + 1 {
		nested = compressed(t, nested)
	}
	if err := CheckUnpacked(nested, MaxUnpacked); err == nil {
		t.Errorf("%d packets inside of each other: no error", maxNested+1)
	}
}

// Whatever is in a file, reading it ends.
func FuzzRead(f *testing.F) {
	f.Add([]byte{0xc8, 3, 1, 3, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		ReadClaims(b)
		if err := CheckUnpacked(b, len(b)/2); err == nil && CheckUnpacked(b, 1<<30) != nil && len(b) < 1<<10 {
			t.Error("more is allowed, and it is too much")
		}
	})
}
