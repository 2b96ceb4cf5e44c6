package verify

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestFingerprint changes everything that verdicts depend on, one after the other.
func TestFingerprint(t *testing.T) {
	gpg, err := fixture.NewGPG()
	if err != nil {
		t.Fatal(err)
	}
	defer gpg.Close()
	root := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key, err := gpg.NewKey("one", fixture.KeyOptions{Algo: "ed25519"})
	if err != nil {
		t.Fatal(err)
	}
	expiring, err := gpg.NewKey("two", fixture.KeyOptions{Algo: "ed25519", Expire: "2d"})
	if err != nil {
		t.Fatal(err)
	}
	const policy = `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/etc/key.gpg"}]}`
	write("etc/containers/policy.json", []byte(policy))
	write("etc/key.gpg", key.Binary)
	write("auth.json", []byte(`{}`))
	var o Options
	now := time.Now()
	fingerprint := func() (string, time.Time) {
		t.Helper()
		p, err := Open(Source{Root: root}, Env{})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		sum, until, err := fingerprintOf(p, o, now)
		if err != nil {
			t.Fatal(err)
		}
		return sum, until
	}

	seen := map[string]string{}
	first, until := fingerprint()
	seen[first] = "nothing"
	if again, _ := fingerprint(); again != first {
		t.Error("two fingerprints of the same differ")
	}
	if !until.IsZero() {
		t.Errorf("a key without expiry expires at %s", until)
	}
	for _, change := range []struct {
		name string
		do   func()
	}{
		{"policy", func() { write("etc/containers/policy.json", []byte(`{"default":[{"type":"reject"}]}`)) }},
		{"policy with another scope", func() {
			write("etc/containers/policy.json", []byte(policy[:len(policy)-1]+
				`,"transports":{"docker":{"h.example":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/etc/key.gpg","/etc/missing.gpg"]}]}}}`))
		}},
		{"a key that was missing", func() { write("etc/missing.gpg", key.Binary) }},
		{"a key's bytes", func() { write("etc/key.gpg", expiring.Binary) }},
		{"registries.d", func() {
			write("etc/containers/registries.d/x.yaml", []byte("docker: {h.example: {lookaside: https://h.example/sigs}}"))
		}},
		{"registries.conf", func() {
			write("etc/containers/registries.conf", []byte("[[registry]]\nlocation = \"h.example\"\ninsecure = true\n"))
		}},
		{"a drop-in", func() {
			write("etc/containers/registries.conf.d/x.conf", []byte("[[registry]]\nlocation = \"i.example\"\nblocked = true\n"))
		}},
		{"certificates", func() { write("etc/containers/certs.d/h.example/ca.crt", []byte("one")) }},
		{"other certificates", func() { write("etc/containers/certs.d/h.example/ca.crt", []byte("two")) }},
		{"platform", func() { o.Platform = "linux/s390x" }},
		{"limits", func() { o.MaxSignatures = 3 }},
		{"TLS", func() { no := false; o.TLSVerify = &no }},
		{"logins", func() { o.AuthFile = filepath.Join(root, "auth.json") }},
		{"other logins", func() { write("auth.json", []byte(`{"auths":{}}`)) }},
		{"directory of certificates", func() { o.CertDir = filepath.Join(root, "etc/containers/certs.d/h.example") }},
	} {
		change.do()
		sum, _ := fingerprint()
		if other, ok := seen[sum]; ok {
			t.Errorf("%s: the same fingerprint as after %s", change.name, other)
		}
		seen[sum] = change.name
	}
	if _, until := fingerprint(); until.Before(now.Add(47*time.Hour)) || until.After(now.Add(49*time.Hour)) {
		t.Errorf("a key that expires in two days expires at %s", until)
	}
	write("etc/containers/policy.json", []byte(`{"default":[{"type":"reject"}]}`))
	if _, until := fingerprint(); !until.IsZero() {
		t.Errorf("a policy without keys ends at %s", until)
	}
}
