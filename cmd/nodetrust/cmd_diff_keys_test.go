package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestDiff_keyStates: policies that differ only in what became of a key are compared as runtimes, and
// verify-signature, judge signatures by it.
func TestDiff_keyStates(t *testing.T) {
	parts := fixture.Parts{TB: t}
	g := parts.GPG()
	dir := t.TempDir()
	files := map[string]string{}
	put := func(name string, data []byte) {
		policy := fmt.Sprintf(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":%q}]}`,
			base64.StdEncoding.EncodeToString(data))
		files[name] = filepath.Join(dir, name+".json")
		if err := os.WriteFile(files[name], []byte(policy), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".gpg"), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	k := parts.Key(g, "corp", fixture.KeyOptions{Algo: "ed25519"})
	sig, err := k.Sign(digest, "r.example/a:1")
	if err != nil {
		t.Fatal(err)
	}
	put("good", k.Binary)
	put("armored", k.Armored)
	if err := k.Revoke(); err != nil {
		t.Fatal(err)
	}
	put("revoked", k.Binary)
	put("good-and-revoked", bytes.Join([][]byte{must(os.ReadFile(filepath.Join(dir, "good.gpg"))), k.Binary}, nil))
	other := parts.Key(g, "other", fixture.KeyOptions{Algo: "ed25519"})
	put("good-and-other", append(must(os.ReadFile(filepath.Join(dir, "good.gpg"))), other.Binary...))
	sigFile := parts.Write(filepath.Join(dir, "sig"), sig)
	for _, tt := range []struct {
		a, b     string
		code     int
		relation string
		says     string
	}{
		{"revoked", "good", 3, "weaker", "b accepts key " + k.Fingerprint + ", which is revoked in a"},
		{"good", "revoked", 0, "stronger", "a accepts key " + k.Fingerprint + ", which is revoked in b"},
		{"good-and-revoked", "good", 3, "weaker", "which is revoked in a"},
		{"revoked", "good-and-revoked", 0, "equal", ""},
		{"good", "armored", 0, "equal", ""},
		{"good", "good-and-other", 3, "weaker", "b accepts keys that a does not have: " + other.Fingerprint},
		{"revoked", "good-and-other", 3, "weaker", "b accepts keys that a does not have: "},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"diff", files[tt.a], files[tt.b]}, strings.NewReader(""), &out, &errs)
		if code != tt.code || !strings.Contains(out.String(), tt.says) ||
			!strings.Contains(out.String(), "b is "+tt.relation) {
			t.Errorf("%s, %s: exit status %d, %s%s", tt.a, tt.b, code, out.String(), errs.String())
		}
	}
	for name, want := range map[string]int{
		"good": 0, "armored": 0, "revoked": 3, "good-and-revoked": 3,
		"good-and-other": 0,
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"verify-signature", "--key", filepath.Join(dir, name+".gpg"), sigFile},
			strings.NewReader(""), &out, &errs); code != want {
			t.Errorf("verify-signature with %s: exit status %d, want %d\n%s%s", name, code, want, out.String(), errs.String())
		}
	}
}

// TestDiff_at: an expiry counts at the time that --at names. Unchanged bytes are equal whatever is in them.
func TestDiff_at(t *testing.T) {
	parts := fixture.Parts{TB: t}
	k := parts.Key(parts.GPG(), "corp", fixture.KeyOptions{
		Algo: "ed25519", FakedTime: "20200101T000000",
		Expire: "2030-01-01",
	})
	later := parts.Key(parts.GPG(), "corp", fixture.KeyOptions{Algo: "ed25519"})
	policy := func(name string, data []byte) string {
		return parts.Write(filepath.Join(t.TempDir(), name),
			fmt.Appendf(nil, `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":%q}]}`,
				base64.StdEncoding.EncodeToString(data)))
	}
	one, both, none := policy("one", k.Binary), policy("both", append(bytes.Clone(k.Binary), later.Binary...)),
		policy("none", []byte("no key"))
	tomorrow := time.Now().AddDate(0, 0, 1).Format(time.DateOnly)
	for _, tt := range []struct {
		a, b, at string
		code     int
		says     string
	}{
		{both, one, "2029-12-31", 0, "b is stronger than a"},
		{one, both, tomorrow, 3, "b is weaker than a"},
		{one, both, "2021-01-01", 0, "b is equal to a"}, // the second key is not made yet
		{one, policy("again", k.Armored), "2031-01-01T00:00:00Z", 0, "b is equal to a"},
		{one, none, "2031-01-01", 4, "it can't be told which keys count in b (holds no public key)"},
		{none, none, "2031-01-01", 0, "b is equal to a"},
		{one, both, "soon", 2, "--at soon: must be a time"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"diff", tt.a, tt.b, "--at", tt.at}, strings.NewReader(""), &out, &errs)
		if code != tt.code || !strings.Contains(out.String()+errs.String(), tt.says) {
			t.Errorf("%s, %s at %s: exit status %d, %s%s", filepath.Base(tt.a), filepath.Base(tt.b), tt.at, code, out.String(),
				errs.String())
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
