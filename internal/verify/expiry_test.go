package verify

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TestExpires: an accept says when what it rests on ends, which whoever keeps verdicts goes by.
func TestExpires(t *testing.T) {
	w := newWorld(t)
	const repo = "team/app"
	d, ref := w.push(repo, "v1"), w.ref(repo+":v1")
	expires := func(p *Policy) time.Time {
		t.Helper()
		v := w.judge(p, ref)
		w.want(v, verdict.Accept, "")
		if len(v.Requirements) != 1 || len(v.Requirements[0].Signatures) != 1 {
			t.Fatalf("requirements %+v", v.Requirements)
		}
		return v.Requirements[0].Signatures[0].Expires
	}

	for _, tt := range []struct {
		name string
		args []string
		want time.Duration
	}{
		{"never", nil, 0},
		{"in a day", []string{"--default-sig-expire", "1d"}, 24 * time.Hour},
		{"in a day, compressed", []string{"--default-sig-expire", "1d", "--compress-algo", "zlib"}, 24 * time.Hour},
	} {
		b, err := w.key.SignBytes(fixture.Payload(d, ref), tt.args...)
		check(t, err)
		check(t, w.lookaside.Put(repo, d, 1, b))
		got := expires(w.policy(signedBy(w.key)))
		if tt.want == 0 && !got.IsZero() || tt.want > 0 &&
			(got.After(time.Now().Add(tt.want)) || got.Before(time.Now().Add(tt.want-time.Hour))) {
			t.Errorf("GPG, %s: expires %s", tt.name, got)
		}
	}

	key, root := newCosignKey(t), newAuthority(t, nil)
	between := newAuthority(t, root)
	from := time.Now().Add(-time.Minute).Truncate(time.Second).UTC()
	leaf := between.issue(t, key, "dev@example.com", "", "", from)
	payload, signed := key.sign(t, d, ref)
	certified := maps.Clone(signed)
	maps.Copy(certified, map[string]string{
		cosignCert:  string(leaf),
		cosignChain: string(certPEM(between.cert.Raw, root.cert.Raw)),
	})
	w.write("attached/lab.yaml", "docker:\n  "+w.registry.Host+
		":\n    use-sigstore-attachments: true\n    lookaside: file://"+w.path("none")+"\n")
	for _, tt := range []struct {
		name, source string
		annotations  map[string]string
		want         time.Time
	}{
		// certificates don't count
		{"key", `"keyData":"` + base64.StdEncoding.EncodeToString(key.public(t)) + `"`, certified, time.Time{}},
		{"PKI", fmt.Sprintf(`"pki":{"caRootsData":%q,"subjectEmail":"dev@example.com"}`,
			base64.StdEncoding.EncodeToString(certPEM(root.cert.Raw))), certified, from.Add(10 * time.Minute)},
	} {
		w.attach(repo, d, payload, tt.annotations)
		p, err := openFiles(w.write("policy.json", `{"default":[{"type":"sigstoreSigned",`+tt.source+`}]}`),
			[]string{w.path("attached")}, Source{})
		check(t, err)
		if got := expires(p); !got.Equal(tt.want) {
			t.Errorf("sigstore, %s: expires %s, want %s", tt.name, got, tt.want)
		}
		check(t, p.Close())
	}
}

// TestFingerprint_keys: what a fingerprint was made of is what judges, though a key file is replaced meanwhile.
func TestFingerprint_keys(t *testing.T) {
	w := newWorld(t)
	other, err := w.gpg.NewKey("other", fixture.KeyOptions{Algo: "ed25519"})
	check(t, err)
	d, ref := w.push("team/app", "v1"), w.ref("team/app:v1")
	w.sign(other, "team/app", d, ref, 1)
	file := w.write("key.gpg", string(w.key.Binary))
	p := w.policy(keyPath(file))
	sum := func(p *Policy) string {
		s, _, err := fingerprintOf(p, Options{}, time.Now())
		check(t, err)
		return s
	}
	before := sum(p)
	check(t, os.WriteFile(file, other.Binary, 0o644))
	w.want(w.judge(p, ref), verdict.Refuse, verdict.WrongKey)
	if sum(p) != before {
		t.Error("the fingerprint of an open policy changed")
	}
	again := w.policy(keyPath(file))
	w.want(w.judge(again, ref), verdict.Accept, "")
	if sum(again) == before {
		t.Error("the same fingerprint with another key")
	}
}

// TestFingerprint_damaged: of a key file that is damaged in part nobody knows when its keys expire.
func TestFingerprint_damaged(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	for name, want := range map[string]bool{"whole": false, "damaged": true} {
		data := append([]byte{}, w.key.Binary...)
		if name == "damaged" {
			data = append(data, 0x98, 0xff, 4, 0)
		}
		p := w.policy(keyPath(w.write(name+".gpg", string(data))))
		if _, until, err := fingerprintOf(p, Options{}, now); err != nil || until.Equal(now) != want {
			t.Errorf("%s: until %s, now %s (%v)", name, until, now, err)
		}
	}
}
