package key

import (
	"slices"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestIndexOf finds the keys of gpg in every form of key file.
func TestIndexOf(t *testing.T) {
	g := gpg(t)
	a, b := newKey(t, g, "a", fixture.KeyOptions{}), newKey(t, g, "b", fixture.KeyOptions{Algo: "rsa2048"})
	both := []string{a.Fingerprint, b.Fingerprint}
	for name, files := range map[string][][]byte{
		"binary":                  {a.Binary, b.Binary},
		"armored":                 {a.Armored, b.Armored},
		"armored, in one file":    {slices.Concat([]byte("some text\n"), a.Armored, []byte("more text\n"), b.Armored)},
		"binary, in one file":     {slices.Concat(a.Binary, b.Binary)},
		"twice":                   {a.Binary, a.Armored, b.Binary, a.Binary},
		"beside what is no key":   {[]byte("no key"), a.Binary, nil, b.Armored},
		"of one, the ring of all": {Join([][]byte{a.Armored, b.Binary})},
	} {
		x := IndexOf(files)
		if !slices.Equal(x.Primary, both) || x.ByID[b.Fingerprint[24:]] != b.Fingerprint || x.Version6() != "" {
			t.Errorf("%s: %+v", name, x)
		}
		if x.Kinds[b.Fingerprint] != "RSA-2048, OpenPGP v4" {
			t.Errorf("%s: %q", name, x.Kinds)
		}
	}
	if x := IndexOf([][]byte{[]byte("no key"), a.Armored[:80]}); len(x.Primary) != 0 {
		t.Errorf("no key, and the head of one: %+v", x)
	}
}

// Whatever is in a file, reading it ends.
func FuzzIndexOf(f *testing.F) {
	f.Add([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	f.Add([]byte{0xc6, 6, 4, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		x := IndexOf([][]byte{b})
		for _, fpr := range x.Primary {
			if x.ByID[fpr] != fpr || x.Kinds[fpr] == "" {
				t.Errorf("%+v", x)
			}
		}
		Join([][]byte{b, b})
	})
}
