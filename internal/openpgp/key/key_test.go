package key

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

func gpg(t *testing.T) *fixture.GPG {
	t.Helper()
	g, err := fixture.NewGPG()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func newKey(t *testing.T, g *fixture.GPG, name string, o fixture.KeyOptions) *fixture.Key {
	t.Helper()
	k, err := g.NewKey(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parse(t *testing.T, data []byte) *File {
	t.Helper()
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestParse compares with what gpg says of keys that gpg made.
func TestParse(t *testing.T) {
	g := gpg(t)
	for _, tt := range []struct {
		algo      string
		algorithm string
		bits      int
	}{
		{"rsa2048", "RSA", 2048},
		{"rsa3072", "RSA", 3072},
		{"dsa2048", "DSA", 2048},
		{"nistp256", "ECDSA P-256", 256},
		{"nistp521", "ECDSA P-521", 521},
		{"brainpoolP384r1", "ECDSA brainpoolP384r1", 384},
		{"secp256k1", "ECDSA secp256k1", 256},
		{"ed25519", "Ed25519", 256},
	} {
		t.Run(tt.algo, func(t *testing.T) {
			k := newKey(t, g, tt.algo, fixture.KeyOptions{Algo: tt.algo})
			for form, data := range map[string][]byte{"binary": k.Binary, "armored": k.Armored} {
				f := parse(t, data)
				if len(f.Keys) != 1 || f.Kind != OpenPGP || !bytes.Equal(f.Binary, k.Binary) ||
					!bytes.Equal(f.Keys[0].Data, k.Binary) {
					t.Fatalf("%s: got %d keys of kind %q, %d bytes", form, len(f.Keys), f.Kind, len(f.Binary))
				}
				got := f.Keys[0]
				if got.Fingerprint != k.Fingerprint || got.Version != 4 || got.Algorithm != tt.algorithm || got.Bits != tt.bits {
					t.Errorf("%s: got %s v%d %s %d, want %s v4 %s %d", form, got.Fingerprint, got.Version, got.Algorithm, got.Bits,
						k.Fingerprint, tt.algorithm, tt.bits)
				}
				if len(got.UserIDs) != 1 || !strings.HasPrefix(got.UserIDs[0], tt.algo) || got.Revoked || !got.Expires.IsZero() {
					t.Errorf("%s: got %+v", form, got)
				}
			}
		})
	}
}

func TestParse_expiry(t *testing.T) {
	g := gpg(t)
	day := time.Now().AddDate(5, 0, 0).Format(time.DateOnly)
	k := newKey(t, g, "expiring", fixture.KeyOptions{Expire: day})
	got := parse(t, k.Armored).Keys[0]
	ref := reference(t, k.Binary)[0]
	sig := ref.PrimaryIdentity().SelfSignature
	want := ref.PrimaryKey.CreationTime.Add(time.Duration(*sig.KeyLifetimeSecs) * time.Second)
	if !got.Expires.Equal(want) || got.Expires.Local().Format(time.DateOnly) != day {
		t.Errorf("expires %v, want %v", got.Expires, want)
	}
	if !got.Expired(got.Expires) || got.Expired(got.Expires.Add(-time.Second)) {
		t.Error("Expired doesn't turn at the moment of expiry")
	}
}

func TestParse_revoked(t *testing.T) {
	g := gpg(t)
	k := newKey(t, g, "revoked", fixture.KeyOptions{})
	if parse(t, k.Binary).Keys[0].Revoked {
		t.Error("revoked before it was")
	}
	if err := k.Revoke(); err != nil {
		t.Fatal(err)
	}
	if !parse(t, k.Binary).Keys[0].Revoked {
		t.Error("not revoked")
	}
	// Another key's revocation, appended behind a key, does not revoke that one.
	other := newKey(t, g, "other", fixture.KeyOptions{})
	_, _, n, err := nextPacket(k.Binary)
	if err != nil {
		t.Fatal(err)
	}
	_, _, m, err := nextPacket(k.Binary[n:])
	if err != nil {
		t.Fatal(err)
	}
	if parse(t, append(bytes.Clone(other.Binary), k.Binary[n:n+m]...)).Keys[0].Revoked {
		t.Error("revoked by a foreign signature")
	}
}

func TestParse_several(t *testing.T) {
	g := gpg(t)
	a, b := newKey(t, g, "a", fixture.KeyOptions{}), newKey(t, g, "b", fixture.KeyOptions{Algo: "ed25519"})
	for name, data := range map[string][]byte{
		"binary": append(bytes.Clone(a.Binary), b.Binary...),
		"armor": append(append([]byte("released 2026\r\n\n"), bytes.ReplaceAll(a.Armored, []byte("\n"), []byte("\r\n"))...),
			b.Armored...),
	} {
		f := parse(t, data)
		if len(f.Keys) != 2 || f.Keys[0].Fingerprint != a.Fingerprint || f.Keys[1].Fingerprint != b.Fingerprint {
			t.Errorf("%s: got %+v", name, f.Keys)
		}
		if !bytes.Equal(f.Binary, append(bytes.Clone(a.Binary), b.Binary...)) {
			t.Errorf("%s: binary is not the concatenation", name)
		}
		if wantBlocks := map[string]int{"armor": 2}[name]; f.Blocks != wantBlocks || f.Preamble != (name == "armor") {
			t.Errorf("%s: %d blocks, preamble %v", name, f.Blocks, f.Preamble)
		}
		if k, ok := f.Find(b.Fingerprint[24:]); !ok || k.Fingerprint != b.Fingerprint {
			t.Errorf("%s: Find by key ID: %v", name, ok)
		}
	}
}

func TestParse_bad(t *testing.T) {
	g := gpg(t)
	k := newKey(t, g, "bad", fixture.KeyOptions{})
	sig, err := k.Sign("sha256:"+strings.Repeat("0", 64), "example.com/a:b")
	if err != nil {
		t.Fatal(err)
	}
	entity, err := openpgp.NewEntity("secret", "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var secret bytes.Buffer
	if err := entity.SerializePrivate(&secret, nil); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(k.Armored)
	damaged[len(damaged)/2] ^= 1
	for _, tt := range []struct {
		name string
		data []byte
		is   error
		text string
	}{
		{"empty", nil, ErrNoKey, "empty"},
		{"text", []byte("hello\n"), ErrNoKey, ""},
		{"garbage", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 1}, nil, "truncated"},
		{"truncated", k.Binary[:100], nil, "truncated"},
		{"signature", sig, nil, ""},
		{"secret", secret.Bytes(), ErrSecret, ""},
		{"secret armor", []byte("-----BEGIN PGP PRIVATE KEY BLOCK-----\n"), ErrSecret, ""},
		{"secret PEM", []byte("-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n"), ErrSecret, ""},
		{"armor without end", k.Armored[:200], nil, "no END line"},
		{"armor checksum", damaged, nil, "armor block 1"},
		{"message", []byte("-----BEGIN PGP MESSAGE-----\n"), nil, "MESSAGE"},
		{"keybox", []byte("\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00"), ErrNoKey, "keybox"},
		{"PEM kind", []byte("-----BEGIN X-----\nAA==\n-----END X-----\n"), nil, "neither"},
		{"PEM damaged", []byte("-----BEGIN PUBLIC KEY-----\n"), nil, "damaged"},
		{"large", make([]byte, MaxFile+1), nil, "larger"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse(tt.data)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %+v, error %v, want %v %q", f, err, tt.is, tt.text)
			}
		})
	}
}

// exported is what gpg exports.
func exported(t *testing.T, g *fixture.GPG, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("gpg", append([]string{
		"--homedir", g.Home(), "--batch", "--quiet", "--passphrase", "",
		"--pinentry-mode", "loopback",
	}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRead_secret: of a secret key the public half is read, and nothing else is in the result.
func TestRead_secret(t *testing.T) {
	g := gpg(t)
	for _, algo := range []string{"rsa2048", "dsa2048", "nistp256", "brainpoolP384r1", "ed25519"} {
		k := newKey(t, g, algo, fixture.KeyOptions{Algo: algo})
		if algo == "ed25519" {
			if _, err := k.Subkey(); err != nil {
				t.Fatal(err)
			}
			exported(t, g, "--quick-add-key", k.Fingerprint, "cv25519", "encr", "never")
			if err := k.Export(); err != nil {
				t.Fatal(err)
			}
		}
		want := parse(t, k.Binary)
		secret := exported(t, g, "--export-secret-keys", k.Fingerprint)
		for what, data := range map[string][]byte{
			"binary": secret, "armored": exported(t, g, "--armor", "--export-secret-keys", k.Fingerprint),
			"stubs": exported(t, g, "--export-secret-subkeys", k.Fingerprint),
		} {
			f, err := Read(data)
			if err != nil || !f.Secret || len(f.Keys) != 1 {
				t.Errorf("%s %s: %+v, %v", algo, what, f, err)
				continue
			}
			got, want := f.Keys[0], want.Keys[0]
			if got.Fingerprint != want.Fingerprint || got.Algorithm != want.Algorithm || got.Bits != want.Bits ||
				len(got.Subkeys) != len(want.Subkeys) {
				t.Errorf("%s %s: %+v, want %+v", algo, what, got, want)
			}
			for i := range got.Subkeys {
				if got.Subkeys[i].Fingerprint != want.Subkeys[i].Fingerprint {
					t.Errorf("%s %s: subkey %s, want %s", algo, what, got.Subkeys[i].Fingerprint, want.Subkeys[i].Fingerprint)
				}
			}
			if again, err := Parse(f.Binary); err != nil || again.Secret || len(again.Keys) != 1 {
				t.Errorf("%s %s: the public half alone: %+v, %v", algo, what, again, err)
			}
			if _, err := Parse(data); !errors.Is(err, ErrSecret) {
				t.Errorf("%s %s: Parse says %v", algo, what, err)
			}
		}
	}
}

// TestRead_several: secret and public keys in one file, in any order, packed or not.
func TestRead_several(t *testing.T) {
	g := gpg(t)
	a, b := newKey(t, g, "a", fixture.KeyOptions{Algo: "ed25519"}), newKey(t, g, "b", fixture.KeyOptions{Algo: "ed25519"})
	secret := exported(t, g, "--export-secret-keys", b.Fingerprint)
	armored := exported(t, g, "--armor", "--export-secret-keys", b.Fingerprint)
	pack := func(algorithm byte, data []byte) []byte {
		var z bytes.Buffer
		z.WriteByte(algorithm)
		switch algorithm {
		case 0:
			z.Write(data)
		case 1:
			w, _ := flate.NewWriter(&z, flate.BestSpeed)
			_, _ = w.Write(data)
			_ = w.Close()
		case 2:
			w := zlib.NewWriter(&z)
			_, _ = w.Write(data)
			_ = w.Close()
		}
		return append(binary.BigEndian.AppendUint32([]byte{0xc8, 0xff}, uint32(z.Len())), z.Bytes()...)
	}
	both := slices.Concat(a.Binary, b.Binary)
	for what, tt := range map[string]struct {
		data           []byte
		secret, packed bool
	}{
		"public, secret":         {slices.Concat(a.Binary, secret), true, false},
		"public, armored secret": {slices.Concat(a.Armored, armored), true, false},
		"public, packed":         {slices.Concat(a.Binary, pack(1, b.Binary)), false, true},
		"packed together":        {pack(1, both), false, true},
		"zlib":                   {pack(2, both), false, true},
		"not really packed":      {pack(0, both), false, true},
		"packed twice":           {pack(2, pack(1, both)), false, true},
		"packed secret":          {pack(1, slices.Concat(a.Binary, secret)), true, true},
		"both public":            {both, false, false},
	} {
		f, err := Read(tt.data)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if len(f.Keys) != 2 || f.Keys[0].Fingerprint != a.Fingerprint || f.Keys[1].Fingerprint != b.Fingerprint ||
			f.Secret != tt.secret || f.Packed != tt.packed {
			t.Errorf("%s: %+v", what, f)
		}
	}
	deep := both
	for range maxPacked + 1 {
		deep = pack(1, deep)
	}
	for what, data := range map[string][]byte{
		"too deep": deep, "too large": pack(1, make([]byte, MaxFile+1)), "damaged": pack(1, both)[:200],
		"no algorithm": pack(9, both),
	} {
		if f, err := Read(data); err == nil {
			t.Errorf("%s: %+v", what, f)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{0xc5, 20, 4, 0, 0, 0, 0, 22, 1, 1, 0, 8, 1, 0, 0, 8, 1, 1, 1, 1, 1, 1})
	f.Add([]byte{0xc8, 3, 0, 0xca, 0})
	f.Add([]byte("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nxQ==\n-----END PGP PRIVATE KEY BLOCK-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Read(data)
		if err != nil || file.Kind != OpenPGP {
			return
		}
		if again, err := Parse(file.Binary); err != nil || len(again.Keys) != len(file.Keys) {
			t.Errorf("%x: what was read isn't read again: %v", data, err)
		}
	})
}

// TestParse_versions has go-crypto make keys of version 6, which gpg can't.
func TestParse_versions(t *testing.T) {
	for _, c := range []*packet.Config{
		{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519},
		{V6Keys: true, RSABits: 2048},
		{Algorithm: packet.PubKeyAlgoEd448},
	} {
		e, err := openpgp.NewEntity("x", "", "x@example.com", c)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := e.Serialize(&b); err != nil {
			t.Fatal(err)
		}
		compare(t, parse(t, b.Bytes()), openpgp.EntityList{e})
	}
}

// TestRealKeys reads Red Hat's key files as shipped on RHEL 7 to 10.
func TestRealKeys(t *testing.T) {
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	const (
		release2 = "567E347AD0044ADE55BA8A5F199E2F91FD431D51"
		aux3     = "7E4624258C406535D56D6F135054E4A45A6340B3"
		pqc      = "FCD355B305707A62DA143AB6E422397E50FE8467A2A95343D246D6276AFEDF8F"
	)
	for name, want := range map[string][]string{
		"RPM-GPG-KEY-redhat7-release":     {release2, "43A6E49C4A38F4BE9ABF2A5345689C882FA658E0"},
		"RPM-GPG-KEY-redhat8-release":     {release2, "43A6E49C4A38F4BE9ABF2A5345689C882FA658E0"},
		"RPM-GPG-KEY-redhat9-release":     {release2, aux3},
		"RPM-GPG-KEY-redhat10-release":    {release2, aux3, pqc},
		"RPM-GPG-KEY-redhat9-PQC-release": {pqc},
		"redhat-release-key-3.pem":        {"BA9D26350D78893A20F337E2153A113108BFCF064085AFAEE60D446E63405576"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, "keys", name))
		if err != nil {
			t.Fatal(err)
		}
		f := parse(t, b)
		var got []string
		for _, k := range f.Keys {
			got = append(got, k.Fingerprint)
			if k.Fingerprint == pqc && (k.Algorithm != "ML-DSA-87+Ed448" || k.Version != 6) {
				t.Errorf("%s: got %s v%d", name, k.Algorithm, k.Version)
			}
			if k.Fingerprint == release2 && (k.Bits != 4096 || k.Algorithm != "RSA" || k.Expired(time.Now())) {
				t.Errorf("%s: got %+v", name, k)
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
		var counts []string
		signers, err := Signers([][]byte{b}, time.Now())
		for _, s := range signers {
			if s.State == Usable {
				counts = append(counts, s.Fingerprint)
			}
		}
		if clear := f.Kind == OpenPGP && !slices.Contains(want, pqc); clear != (err == nil) || clear &&
			!slices.Equal(counts, want) {
			t.Errorf("%s: %v count, %v", name, counts, err)
		}
	}
}

func reference(t *testing.T, binary []byte) openpgp.EntityList {
	t.Helper()
	l, err := openpgp.ReadKeyRing(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func compare(t *testing.T, f *File, want openpgp.EntityList) {
	t.Helper()
	if len(f.Keys) != len(want) {
		t.Fatalf("got %d keys, want %d", len(f.Keys), len(want))
	}
	for i, e := range want {
		k := f.Keys[i]
		if k.Fingerprint != upperHex(e.PrimaryKey.Fingerprint) || k.Version != e.PrimaryKey.Version ||
			!k.Created.Equal(e.PrimaryKey.CreationTime) {
			t.Errorf("got %s v%d %v, want %X v%d %v", k.Fingerprint, k.Version, k.Created, e.PrimaryKey.Fingerprint,
				e.PrimaryKey.Version, e.PrimaryKey.CreationTime)
		}
		if k.ID() != e.PrimaryKey.KeyIdString() {
			t.Errorf("got ID %s, want %s", k.ID(), e.PrimaryKey.KeyIdString())
		}
		if len(k.Subkeys) != len(e.Subkeys) {
			t.Errorf("got %d subkeys, want %d", len(k.Subkeys), len(e.Subkeys))
		}
	}
}

// FuzzParse checks that nothing panics, and that what the OpenPGP library reads is read here too, with the same
// fingerprints.
func FuzzParse(f *testing.F) {
	for _, c := range []*packet.Config{
		{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519},
		{RSABits: 2048},
		{Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 100},
	} {
		e, err := openpgp.NewEntity("x", "", "x@example.com", c)
		if err != nil {
			f.Fatal(err)
		}
		var b bytes.Buffer
		if err := e.Serialize(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Parse(data)
		if err != nil || got.Kind != OpenPGP {
			return
		}
		l, err := openpgp.ReadKeyRing(bytes.NewReader(got.Binary))
		if err != nil {
			return
		}
		for _, e := range l { // the library skips what it doesn't know
			if _, ok := got.Find(upperHex(e.PrimaryKey.Fingerprint)); !ok {
				t.Errorf("%X is not found", e.PrimaryKey.Fingerprint)
			}
		}
	})
}
