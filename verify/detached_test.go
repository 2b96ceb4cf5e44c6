package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/verdict"
)

func TestSignature(t *testing.T) {
	w := newWorld(t)
	other, err := w.gpg.NewKey("other", fixture.KeyOptions{})
	check(t, err)
	digest := "sha256:" + strings.Repeat("ab", 32)
	sig, err := w.key.Sign(digest, "quay.io/corp/app:v1")
	check(t, err)
	json, err := w.key.SignBytes([]byte(`{"critical":{"type":"other"}}`))
	check(t, err)
	both := [][]byte{other.Binary, w.key.Armored}
	for _, tt := range []struct {
		name              string
		blob              []byte
		keys              [][]byte
		digest, reference string
		answer            verdict.Answer
		reason            verdict.Reason
	}{
		{"alone", sig, both, "", "", verdict.Accept, ""},
		{"two blocks in one file", sig, [][]byte{append(append([]byte{}, other.Armored...), w.key.Armored...)}, "", "", verdict.Accept, ""},
		{"digest", sig, both, digest, "", verdict.Accept, ""},
		{"tag", sig, both, digest, "quay.io/corp/app:v1", verdict.Accept, ""},
		{"repository", sig, both, "", "quay.io/corp/app", verdict.Accept, ""},
		{"by digest", sig, both, "", "docker://quay.io/corp/app@" + digest, verdict.Accept, ""},
		{"other digest", sig, both, "sha256:" + strings.Repeat("0", 64), "", verdict.Refuse, verdict.WrongDigest},
		{"other digest in the reference", sig, both, "", "quay.io/corp/app@sha256:" + strings.Repeat("0", 64), verdict.Refuse, verdict.WrongDigest},
		{"other tag", sig, both, "", "quay.io/corp/app:v2", verdict.Refuse, verdict.WrongIdentity},
		{"other repository", sig, both, "", "quay.io/corp/else", verdict.Refuse, verdict.WrongIdentity},
		{"other key", sig, [][]byte{other.Binary}, digest, "", verdict.Refuse, verdict.WrongKey},
		{"no key", sig, [][]byte{[]byte("no key")}, "", "", verdict.Refuse, verdict.KeyUnreadable},
		{"other content", json, both, "", "", verdict.Refuse, verdict.WeakOrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Signature(t.Context(), tt.blob, tt.keys, Wanted{Digest: tt.digest, Reference: tt.reference})
			check(t, err)
			if d.Verdict != tt.answer || d.Reason != tt.reason || d.Message == "" {
				t.Errorf("got %+v, want %s/%s", d, tt.answer, tt.reason)
			}
			if tt.name != "other content" && (d.Digest != digest || d.Reference != "quay.io/corp/app:v1") {
				t.Errorf("claims %+v", d)
			}
			if len(tt.keys) == 2 && d.Signer != w.key.Fingerprint {
				t.Errorf("signer %s", d.Signer)
			}
		})
	}
	for _, bad := range [][2]string{{"sha256:12", ""}, {"", "Quay.io/X"}} {
		if _, err := Signature(t.Context(), sig, both, Wanted{Digest: bad[0], Reference: bad[1]}); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// Identities are those of policy.json.
func TestSignature_identity(t *testing.T) {
	w := newWorld(t)
	digest := "sha256:" + strings.Repeat("ab", 32)
	sig, err := w.key.Sign(digest, "quay.io/corp/app:v1")
	check(t, err)
	for _, tt := range []struct {
		identity, reference string
		reason              verdict.Reason
	}{
		{"matchExact", "quay.io/corp/app:v1", ""},
		{"matchExact", "quay.io/corp/app:v2", verdict.WrongIdentity},
		{"matchExact", "quay.io/corp/app@" + digest, verdict.WrongIdentity},
		{"matchRepoDigestOrExact", "quay.io/corp/app:v1", ""},
		{"matchRepoDigestOrExact", "quay.io/corp/app:v2", verdict.WrongIdentity},
		{"matchRepoDigestOrExact", "quay.io/corp/app@" + digest, ""},
		{"matchRepoDigestOrExact", "quay.io/corp/app:v2@" + digest, ""},
		{"matchRepoDigestOrExact", "quay.io/corp/else@" + digest, verdict.WrongIdentity},
		{"matchRepository", "quay.io/corp/app", ""},
		{"matchRepository", "quay.io/corp/app:v2", ""},
		{"matchRepository", "quay.io/corp/app2", verdict.WrongIdentity},
		{"matchRepository", "quay.io/corp/app@sha256:" + strings.Repeat("0", 64), verdict.WrongDigest},
	} {
		d, err := Signature(t.Context(), sig, [][]byte{w.key.Binary}, Wanted{Reference: tt.reference, Identity: tt.identity})
		check(t, err)
		if d.Reason != tt.reason || (d.Verdict == verdict.Accept) != (tt.reason == "") {
			t.Errorf("%s %s: %+v", tt.identity, tt.reference, d)
		}
		if d.Creator != "nodetrust fixture" || d.Timestamp == nil || time.Since(time.Unix(*d.Timestamp, 0)).Abs() > time.Hour {
			t.Errorf("creator and timestamp: %+v", d)
		}
	}
	for _, bad := range []Wanted{
		{Identity: "matchExact"},
		{Identity: "matchExact", Reference: "quay.io/corp/app"},
		{Identity: "matchRepoDigestOrExact", Reference: "quay.io/corp/app"},
		{Identity: "exactReference", Reference: "quay.io/corp/app:v1"},
	} {
		if _, err := Signature(t.Context(), sig, [][]byte{w.key.Binary}, bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
	for optional, ok := range map[string]bool{
		`{}`: true, `{"other":[1]}`: true, `{"creator":"x","timestamp":1}`: true, `{"creator":1}`: false, `{"timestamp":"1"}`: false, `{"timestamp":1.5}`: false,
	} {
		text := string(fixture.Payload(digest, "quay.io/corp/app:v1"))
		i := strings.Index(text, `,"optional":`)
		sig, err := w.key.SignBytes([]byte(text[:i] + `,"optional":` + optional + "}"))
		check(t, err)
		d, err := Signature(t.Context(), sig, [][]byte{w.key.Binary}, Wanted{})
		check(t, err)
		if (d.Verdict == verdict.Accept) != ok {
			t.Errorf("%s: %+v", optional, d)
		}
	}
}

// realdata is the folder of genuine signatures, or skips the test.
func realdata(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set: no genuine Red Hat signatures to judge")
	}
	return dir
}

// The genuine signatures of this image are OpenPGP v3 packets.
func TestGenuine(t *testing.T) {
	dir := realdata(t)
	bundle := filepath.Join(dir, "albo-bundle")
	const name = "registry.redhat.io/albo/aws-load-balancer-operator-bundle"
	const release = "567E347AD0044ADE55BA8A5F199E2F91FD431D51"
	policy := func(key string) *Policy {
		t.Helper()
		text := `{"default":[{"type":"reject"}],"transports":{"docker":{"registry.redhat.io":[` + keyPath(filepath.Join(dir, "keys", key)) + `]}}}`
		p, err := Rendered(File{Path: "/policy.json", Data: []byte(text)}, nil, Settings{})
		check(t, err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	const right, other = "RPM-GPG-KEY-redhat8-release", "RPM-GPG-KEY-redhat9-beta"
	for _, tt := range []struct {
		name, as, key string
		answer        verdict.Answer
		reason        verdict.Reason
	}{
		{"as signed", name + ":0.0.1", right, verdict.Accept, ""},
		{"other tag", name + ":latest", right, verdict.Refuse, verdict.WrongIdentity},
		{"other key", name + ":0.0.1", other, verdict.Refuse, verdict.WrongKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Image(t.Context(), "dir:"+bundle, policy(tt.key), Options{As: tt.as})
			check(t, err)
			if pure {
				tt.answer, tt.reason = verdict.Unknown, verdict.MechanismCannotTell
			}
			if v.Verdict != tt.answer || v.Reason != tt.reason {
				t.Errorf("got %s/%s (%s), want %s/%s", v.Verdict, v.Reason, v.Message, tt.answer, tt.reason)
			}
			sigs := v.Requirements[0].Signatures
			if len(sigs) != 4 {
				t.Fatalf("%d signatures, want 4", len(sigs))
			}
			signer := release
			if tt.key == other {
				signer = release[24:] // only the key ID is in a v3 packet
			}
			for _, s := range sigs {
				if s.Packet != 3 || s.Signer != signer || s.Digest != v.Digest {
					t.Errorf("signature %+v", s)
				}
			}
		})
	}
	if !pure {
		// Red Hat's post-quantum key: gpg 2.2 reads nothing of a file that holds it alone; beside others it does no harm.
		const pqc = "FCD355B305707A62DA143AB6E422397E50FE8467A2A95343D246D6276AFEDF8F (ML-DSA-87+Ed448, post-quantum, OpenPGP v6)"
		v, err := Image(t.Context(), "dir:"+bundle, policy("RPM-GPG-KEY-redhat9-PQC-release"), Options{As: name + ":0.0.1"})
		check(t, err)
		if v.Reason != verdict.KeyUnreadable || !strings.Contains(v.Message, pqc) || !strings.Contains(v.Hint, "version 4") {
			t.Errorf("post-quantum key: %+v", v)
		}
		if v, err = Image(t.Context(), "dir:"+bundle, policy("RPM-GPG-KEY-redhat10-release"), Options{As: name + ":0.0.1"}); err != nil || v.Verdict != verdict.Accept {
			t.Errorf("post-quantum key beside others: %+v %v", v, err)
		}
	}
	blob, err := os.ReadFile(filepath.Join(dir, "signatures", "sha256=0da6316466d60a3a4535d5fed3589feb0391989982fba59d47d4c729912d6363", "signature-1"))
	check(t, err)
	key, err := os.ReadFile(filepath.Join(dir, "keys", right))
	check(t, err)
	d, err := Signature(t.Context(), blob, [][]byte{key}, Wanted{
		Digest: "sha256:0da6316466d60a3a4535d5fed3589feb0391989982fba59d47d4c729912d6363", Reference: "quay.io/openshift-release-dev/ocp-release:4.15.0-x86_64",
	})
	check(t, err)
	if d.Verdict != verdict.Accept || d.Signer != release {
		t.Errorf("release signature: %+v", d)
	}
}
