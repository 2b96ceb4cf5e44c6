package detached

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

func TestMain(m *testing.M) {
	verify.TakeEnv()
	fixture.Main(m)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) (*fixture.GPG, *fixture.Key) {
	t.Helper()
	p := fixture.Parts{TB: t}
	gpg := p.GPG()
	return gpg, p.Key(gpg, "signer", fixture.KeyOptions{})
}

func TestVerify_interrupted(t *testing.T) {
	_, key := newKey(t)
	sig, err := key.Sign("sha256:"+strings.Repeat("ab", 32), "quay.io/corp/app:v1")
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, err := Verify(ctx, sig, [][]byte{key.Binary}, Wanted{})
	check(t, err)
	if d.Answer != verdict.Unknown || d.Reason != verdict.Timeout || d.Message != "interrupted" {
		t.Errorf("got %+v", d)
	}
}

func TestVerify(t *testing.T) {
	gpg, key := newKey(t)
	other, err := gpg.NewKey("other", fixture.KeyOptions{})
	check(t, err)
	digest := "sha256:" + strings.Repeat("ab", 32)
	sig, err := key.Sign(digest, "quay.io/corp/app:v1")
	check(t, err)
	json, err := key.SignBytes([]byte(`{"critical":{"type":"other"}}`))
	check(t, err)
	both := [][]byte{other.Binary, key.Armored}
	for _, tt := range []struct {
		name              string
		blob              []byte
		keys              [][]byte
		digest, reference string
		answer            verdict.Answer
		reason            verdict.Reason
	}{
		{"alone", sig, both, "", "", verdict.Accept, ""},
		{
			"two blocks in one file", sig,
			[][]byte{append(append([]byte{}, other.Armored...), key.Armored...)},
			"", "",
			verdict.Accept, "",
		},
		{"digest", sig, both, digest, "", verdict.Accept, ""},
		{"tag", sig, both, digest, "quay.io/corp/app:v1", verdict.Accept, ""},
		{"by digest", sig, both, "", "docker://quay.io/corp/app@" + digest, verdict.Accept, ""},
		{"other digest", sig, both, "sha256:" + strings.Repeat("0", 64), "", verdict.Refuse, verdict.WrongDigest},
		{
			"other digest in the reference", sig, both, "", "quay.io/corp/app@sha256:" + strings.Repeat("0", 64), verdict.Refuse,
			verdict.WrongDigest,
		},
		{"other tag", sig, both, "", "quay.io/corp/app:v2", verdict.Refuse, verdict.WrongIdentity},
		{"other repository", sig, both, "", "quay.io/corp/else:v1", verdict.Refuse, verdict.WrongIdentity},
		{"other key", sig, [][]byte{other.Binary}, digest, "", verdict.Refuse, verdict.WrongKey},
		{"no key", sig, [][]byte{[]byte("no key")}, "", "", verdict.Refuse, verdict.KeyUnreadable},
		{"other content", json, both, "", "", verdict.Refuse, verdict.WeakOrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Verify(t.Context(), tt.blob, tt.keys, Wanted{Digest: tt.digest, Reference: tt.reference})
			check(t, err)
			if d.Answer != tt.answer || d.Reason != tt.reason || d.Message == "" {
				t.Errorf("got %+v, want %s/%s", d, tt.answer, tt.reason)
			}
			if tt.name != "other content" && (d.Digest != digest || d.Reference != "quay.io/corp/app:v1") {
				t.Errorf("claims %+v", d)
			}
			if len(tt.keys) == 2 && d.Signer != key.Fingerprint {
				t.Errorf("signer %s", d.Signer)
			}
		})
	}
	for _, bad := range [][2]string{
		{"sha256:12", ""},
		{"", "Quay.io/X"},
		{"", "quay.io/corp/app"},
		{"sha512:" + strings.Repeat("ab", 64), ""},
		{"", "quay.io/corp/app@sha512:" + strings.Repeat("ab", 64)},
	} {
		if _, err := Verify(t.Context(), sig, both, Wanted{Digest: bad[0], Reference: bad[1]}); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// Identities are those of policy.json.
func TestVerify_identity(t *testing.T) {
	_, key := newKey(t)
	digest := "sha256:" + strings.Repeat("ab", 32)
	sig, err := key.Sign(digest, "quay.io/corp/app:v1")
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
		d, err := Verify(t.Context(), sig, [][]byte{key.Binary}, Wanted{Reference: tt.reference, Identity: tt.identity})
		check(t, err)
		if d.Reason != tt.reason || (d.Answer == verdict.Accept) != (tt.reason == "") {
			t.Errorf("%s %s: %+v", tt.identity, tt.reference, d)
		}
		if d.Creator != "nodetrust fixture" || d.Timestamp == nil ||
			time.Since(time.Unix(*d.Timestamp, 0)).Abs() > time.Hour {
			t.Errorf("creator and timestamp: %+v", d)
		}
	}
	for _, bad := range []Wanted{
		{Identity: "matchExact"},
		{Identity: "matchExact", Reference: "quay.io/corp/app"},
		{Identity: "matchRepoDigestOrExact", Reference: "quay.io/corp/app"},
		{Identity: "exactReference", Reference: "quay.io/corp/app:v1"},
	} {
		if _, err := Verify(t.Context(), sig, [][]byte{key.Binary}, bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
	for optional, ok := range map[string]bool{
		`{}`: true, `{"other":[1]}`: true, `{"creator":"x","timestamp":1}`: true, `{"creator":1}`: false,
		`{"timestamp":"1"}`: false, `{"timestamp":1.5}`: false,
	} {
		text := string(fixture.Payload(digest, "quay.io/corp/app:v1"))
		i := strings.Index(text, `,"optional":`)
		sig, err := key.SignBytes([]byte(text[:i] + `,"optional":` + optional + "}"))
		check(t, err)
		d, err := Verify(t.Context(), sig, [][]byte{key.Binary}, Wanted{})
		check(t, err)
		if (d.Answer == verdict.Accept) != ok {
			t.Errorf("%s: %+v", optional, d)
		}
	}
}

// A genuine signature of a release.
func TestVerify_genuine(t *testing.T) {
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set: no genuine Red Hat signatures to judge")
	}
	const right = "RPM-GPG-KEY-redhat8-release"
	const release = "567E347AD0044ADE55BA8A5F199E2F91FD431D51"
	blob, err := os.ReadFile(filepath.Join(dir, "signatures",
		"sha256=0da6316466d60a3a4535d5fed3589feb0391989982fba59d47d4c729912d6363", "signature-1"))
	check(t, err)
	key, err := os.ReadFile(filepath.Join(dir, "keys", right))
	check(t, err)
	d, err := Verify(t.Context(), blob, [][]byte{key}, Wanted{
		Digest:    "sha256:0da6316466d60a3a4535d5fed3589feb0391989982fba59d47d4c729912d6363",
		Reference: "quay.io/openshift-release-dev/ocp-release:4.15.0-x86_64",
	})
	check(t, err)
	if d.Answer != verdict.Accept || d.Signer != release {
		t.Errorf("release signature: %+v", d)
	}
}
