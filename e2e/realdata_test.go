package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealData: the preset judges a genuine Red Hat image whose signatures are OpenPGP v3 packets.
func TestRealData(t *testing.T) {
	data := os.Getenv("NODETRUST_REALDATA")
	if data == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	const (
		repository = "registry.redhat.io/albo/aws-load-balancer-operator-bundle"
		release    = "567E347AD0044ADE55BA8A5F199E2F91FD431D51"
		digest     = "sha256:50b9402635dd4b312a86bed05dcdbda8c00120d3789ec2e9b527045100b3bdb4"
	)
	dir := t.TempDir()
	cli, pure := theLab.Programs.Nodetrust, theLab.Programs.Pure
	r := program(t, dir, cli, "init", "--preset", "redhat")
	if r.code != 0 {
		t.Fatalf("init: %v", r)
	}
	must(t, os.WriteFile(filepath.Join(dir, "trust.yaml"), []byte(r.stdout), 0o644))
	host := func(name, key string) string {
		root := filepath.Join(dir, name)
		if r := program(t, dir, cli, "render", "--to", "files", "-o", root, "trust.yaml"); r.code != 0 {
			t.Fatalf("render: %v", r)
		}
		b, err := os.ReadFile(filepath.Join(data, "keys", key))
		must(t, err)
		path := filepath.Join(root, "etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release")
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, b, 0o644))
		return root
	}
	rightKey, otherKey := host("right", "RPM-GPG-KEY-redhat9-release"), host("other", "RPM-GPG-KEY-redhat9-beta")
	quantum, both := host("quantum", "RPM-GPG-KEY-redhat9-PQC-release"), host("both", "RPM-GPG-KEY-redhat10-release")
	const quantumKey = "FCD355B305707A62DA143AB6E422397E50FE8467A2A95343D246D6276AFEDF8F (ML-DSA-87+Ed448, post-quantum, OpenPGP v6)"

	for _, tt := range []struct {
		name, program, root, tag string
		code                     int
		verdict, reason, message string
	}{
		{"genuine", cli, rightKey, "0.0.1", 0, "accept", "", release},
		{"another tag", cli, rightKey, "latest", 3, "refuse", "WrongIdentity", ":0.0.1"},
		{"another key", cli, otherKey, "0.0.1", 3, "refuse", "WrongKey", release[24:]},
		{"the post-quantum key alone", cli, quantum, "0.0.1", 3, "refuse", "KeyUnreadable", quantumKey},
		{"the post-quantum key beside others", cli, both, "0.0.1", 0, "accept", "", release},
		{"pure Go can't tell", pure, rightKey, "0.0.1", 4, "unknown", "MechanismCannotTell", "v3 packet"},
		{"pure Go can't tell for another tag", pure, rightKey, "latest", 4, "unknown", "MechanismCannotTell", "v3 packet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, command := range []string{"verify", "explain"} {
				r := program(t, dir, tt.program, command, "--root", tt.root, "--as", repository+":"+tt.tag, "-o", "json",
					"dir:"+filepath.Join(data, "albo-bundle"))
				var v struct {
					Verdict, Reason, Message, Digest, Mechanism string
					Requirements                                []struct {
						Signatures []struct {
							Verdict, Signer string
							Packet          int
						}
					}
				}
				if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
					t.Fatalf("%s: %v: %v", command, err, r)
				}
				if r.code != tt.code || v.Verdict != tt.verdict || v.Reason != tt.reason || v.Digest != digest ||
					!strings.Contains(v.Message, tt.message) {
					t.Fatalf("%s: want exit status %d, %s, reason %q, message with %q: %v", command, tt.code, tt.verdict, tt.reason,
						tt.message, r)
				}
				want := "gpgme"
				if tt.program == pure {
					want = "openpgp"
				}
				if v.Mechanism != want {
					t.Errorf("%s: mechanism %q, want %q", command, v.Mechanism, want)
				}
				if tt.verdict != "accept" {
					continue
				}
				accepted := false
				for _, q := range v.Requirements {
					for _, s := range q.Signatures {
						accepted = accepted || s.Verdict == "accept" && s.Signer == release && s.Packet == 3
					}
				}
				if !accepted {
					t.Errorf("%s: no accepted v3 signature by %s: %v", command, release, r)
				}
			}
		})
	}

	// Each detached signature by itself: the image has four names, and each signature is for one of them.
	for n, name := range []string{
		"registry.access.redhat.com/albo/aws-load-balancer-operator-bundle:0.0.1",
		"registry.access.redhat.com/albo/aws-load-balancer-operator-bundle:0.0.1-20",
		repository + ":0.0.1", repository + ":0.0.1-20",
	} {
		for _, tt := range []struct {
			digest, reference, reason string
			code                      int
		}{
			{digest, name, "", 0},
			{digest, name + "x", "WrongIdentity", 3},
			{"sha256:" + strings.Repeat("0", 64), name, "WrongDigest", 3},
		} {
			r := program(t, dir, cli, "verify-signature", "--key",
				filepath.Join(rightKey, "etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"),
				"--digest", tt.digest, "--reference", tt.reference, "-o", "json",
				filepath.Join(data, fmt.Sprintf("albo-bundle/signature-%d", n+1)))
			var d struct{ Reason, Signer, Digest, Reference string }
			if err := json.Unmarshal([]byte(r.stdout), &d); err != nil || r.code != tt.code || d.Reason != tt.reason ||
				d.Signer != release || d.Digest != digest || d.Reference != name {
				t.Errorf("signature-%d for %s: want exit status %d, reason %q: %v", n+1, tt.reference, tt.code, tt.reason, r)
			}
		}
	}
}
