package verify

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

func TestImage_accept(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	p := w.policy(signedBy(w.key))
	v := w.judge(p, "docker://"+w.ref("team/app:v1"))
	w.want(v, verdict.Accept, "")
	if v.Image != w.ref("team/app:v1") || v.Digest != d || v.Index != "" {
		t.Errorf("image %q digest %q index %q", v.Image, v.Digest, v.Index)
	}
	if s := *v.Scope; s != (verdict.Scope{Transport: "docker", Name: w.registry.Host, Matched: "host"}) {
		t.Errorf("scope %+v", s)
	}
	if l := *v.Lookaside; l.URL != w.lookaside.URL()+"/team/app" || l.File != w.path("registries.d/lab.yaml") {
		t.Errorf("lookaside %+v", l)
	}
	if len(v.Requirements) != 1 || len(v.Requirements[0].Signatures) != 1 {
		t.Fatalf("requirements %+v", v.Requirements)
	}
	r := v.Requirements[0]
	s := r.Signatures[0]
	want := verdict.Signature{
		Source: w.lookaside.URL() + "/team/app@sha256=" + d[7:] + "/signature-1", Answer: verdict.Accept,
		Signer: w.key.Fingerprint,
		Packet: 4, Digest: d, Reference: w.ref("team/app:v1"),
	}
	if s != want {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	if r.Type != "signedBy" || len(r.Keys) != 1 || r.Keys[0] != w.key.Fingerprint ||
		r.Identity != "matchRepoDigestOrExact" || r.Answer != verdict.Accept {
		t.Errorf("requirement %+v", r)
	}
	// By tag and digest: the tag counts for nothing, as podman and CRI-O have it.
	w.want(w.judge(p, w.ref("team/app:other@"+d)), verdict.Accept, "")
}

// A subkey's signature is accepted as current libraries do it, and it is said that older ones refuse; not so where the
// primary key has signed too.
func TestImage_subkey(t *testing.T) {
	w := newWorld(t)
	primary, err := w.gpg.NewKey("with-subkey", fixture.KeyOptions{})
	check(t, err)
	both := w.push("team/both", "v1")
	w.sign(primary, "team/both", both, w.ref("team/both:v1"), 1)
	subkey, err := primary.Subkey()
	check(t, err)
	w.sign(subkey, "team/both", both, w.ref("team/both:v1"), 2)
	d := w.push("team/app", "v1")
	w.sign(subkey, "team/app", d, w.ref("team/app:v1"), 1)

	p := w.policy(signedBy(subkey))
	v := w.judge(p, w.ref("team/app:v1"))
	if v.Answer != verdict.Accept || !strings.Contains(v.Hint, "libraries before 5.37") {
		t.Fatalf("%s, hint %q", v.Answer, v.Hint)
	}
	s := v.Requirements[0].Signatures[0]
	if maker, ok := strings.CutPrefix(s.Message, "made by subkey "); !ok || maker == "" ||
		s.Signer != primary.Fingerprint || strings.HasSuffix(s.Signer, maker) {
		t.Errorf("signature %+v", s)
	}
	w.want(w.judge(p, w.ref("team/both:v1")), verdict.Accept, "")
}

// Runtimes import the public half of a secret key, and keys in a compressed packet. A session and the library alone
// agree.
func TestImage_keyForms(t *testing.T) {
	w := newWorld(t)
	other, err := w.gpg.NewKey("other", fixture.KeyOptions{Algo: "ed25519"})
	check(t, err)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	export := func(k *fixture.Key, args ...string) []byte {
		args = append([]string{
			"--homedir", w.gpg.Home(), "--batch", "--passphrase", "", "--pinentry-mode", "loopback",
			"--export-secret-keys", k.Fingerprint,
		}, args...)
		out, err := exec.Command("gpg", args...).Output()
		check(t, err)
		return out
	}
	secret := export(w.key)
	packed := append(binary.BigEndian.AppendUint32([]byte{0xc8, 0xff}, uint32(len(w.key.Binary)+1)),
		append([]byte{0}, w.key.Binary...)...)
	for _, tt := range []struct {
		name   string
		keys   []byte
		answer verdict.Answer
		reason verdict.Reason
	}{
		{"secret", secret, verdict.Accept, ""},
		{"secret, with another", append(slices.Clone(secret), other.Binary...), verdict.Accept, ""},
		{"another's secret", export(other), verdict.Refuse, verdict.WrongKey},
		{"packed", packed, verdict.Accept, ""},
		{"none", []byte("hello"), verdict.Refuse, verdict.KeyUnreadable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if mechanism.Name != "gpgme" && tt.name == "packed" {
				t.Skip("the mechanism of this build unpacks no keys")
			}
			w := *w
			w.T = t
			file := w.write("key", string(tt.keys))
			for _, source := range []string{
				`"keyData":` + quote(base64.StdEncoding.EncodeToString(tt.keys)), `"keyPath":` + quote(file),
				`"keyPaths":[` + quote(file) + `]`,
			} {
				v := w.likeImage(w.policy(`{"type":"signedBy","keyType":"GPGKeys",`+source+`}`), w.ref("team/app:v1"),
					testOptions())
				w.want(v, tt.answer, tt.reason)
				if tt.answer == verdict.Accept && v.Requirements[0].Keys[0] != w.key.Fingerprint {
					t.Errorf("keys %q", v.Requirements[0].Keys)
				}
			}
		})
	}
}

// Limits may be lower than ours, or as high as the library's, for the lookaside and for directories.
func TestImage_limits(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	w.sign(w.key, "team/app", d, image, 1)
	w.sign(w.key, "team/app", d, image, 2)
	p := w.policy(signedBy(w.key))
	w.want(w.judgeWith(p, image, Options{MaxSignatures: 2}), verdict.Accept, "")
	w.want(w.judgeWith(p, image, Options{MaxSignatures: 1}), verdict.Unknown, verdict.LookasideNotSignature)
	w.want(w.judgeWith(p, image, Options{MaxSignatureSize: 100}), verdict.Unknown, verdict.LookasideNotSignature)
	large, err := w.key.SignBytes(append(fixture.Payload(d, image), strings.Repeat(" ", 2*MaxSignatureSize)...))
	check(t, err)
	check(t, w.lookaside.Put("team/app", d, 2, large))
	w.want(w.judge(p, image), verdict.Unknown, verdict.LookasideNotSignature)
	w.want(w.judgeWith(p, image, Options{MaxSignatureSize: 4 << 20}), verdict.Accept, "")
	files := w.open(w.path("policy.json"), "file://"+w.lookaside.Dir, Source{})
	w.want(w.judge(files, image), verdict.Unknown, verdict.LookasideNotSignature)
	w.want(w.judgeWith(files, image, Options{MaxSignatureSize: 4 << 20}), verdict.Accept, "")
	w.want(w.judgeWith(files, image, Options{MaxSignatureSize: 4 << 20, MaxSignatures: 1}), verdict.Unknown,
		verdict.LookasideNotSignature)
	for _, o := range []Options{
		{MaxSignatures: -1},
		{MaxSignatures: 129},
		{MaxSignatureSize: -1},
		{MaxSignatureSize: 4<<20 + 1},
	} {
		if _, err := judgeImage(t.Context(), image, "", p, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

// Whenever the caller gives up, Image returns soon, with nothing left behind: TestMain looks.
func TestImage_interrupted(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	for n := range 4 {
		w.sign(w.key, "team/app", d, w.ref("team/else:v1"), n+1)
	}
	p := w.policy(signedBy(w.key))
	insecure := false
	for delay := time.Duration(0); delay < 100*time.Millisecond; delay += 7 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), delay)
		start := time.Now()
		v, err := judgeImage(ctx, w.ref("team/app:v1"), "", p, Options{TLSVerify: &insecure})
		cancel()
		check(t, err)
		if v.Answer == verdict.Accept || v.Answer == verdict.Unknown && v.Reason != verdict.Timeout {
			t.Errorf("after %s: %s/%s", delay, v.Answer, v.Reason)
		}
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("after %s: returned after %s", delay, d)
		}
	}
}

// Who interrupted is not told to have more patience.
func TestImage_interruptedHint(t *testing.T) {
	w := newWorld(t)
	p := w.policy(signedBy(w.key))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v, err := judgeImage(ctx, w.ref("team/app:v1"), "", p, Options{})
	check(t, err)
	if v.Answer != verdict.Unknown || v.Reason != verdict.Timeout || v.Message != "interrupted" ||
		v.Hint != "run it again" {
		t.Errorf("got %s/%s: %s; hint %q", v.Answer, v.Reason, v.Message, v.Hint)
	}
}

// In an enclosed process the verdicts are the same, and keyrings are told to do without a gpg-agent.
func TestUsePrivateTempDir(t *testing.T) {
	if pure {
		t.Skip("gpg is not used in a pure-Go build")
	}
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	w.sign(w.key, "team/app", d, w.ref("team/else:v1"), 2)
	p := w.policy(signedBy(w.key))
	before := os.TempDir()
	check(t, p.usePrivateTempDir())
	w.want(w.judge(p, w.ref("team/app:v1")), verdict.Accept, "")
	w.want(w.judge(p, w.ref("team/app:v2@"+d)), verdict.Accept, "")
	w.want(w.judge(p, w.ref("team/app:v1")), verdict.Accept, "")

	importKey := func(keyring string) (agents []string) {
		t.Helper()
		cmd := exec.Command("gpg", "--homedir", keyring, "--batch", "--quiet", "--import")
		cmd.Stdin = bytes.NewReader(w.key.Binary)
		check(t, cmd.Run())
		return fixture.ProcessesIn(keyring)
	}
	plain := filepath.Join(p.Temp, "plain")
	check(t, os.Mkdir(plain, 0o700))
	if len(importKey(plain)) == 0 {
		t.Error("gpg starts no agent by itself: this test can't see the difference")
	}
	stop := mechanism.WithoutAgents(p.KeyringDir)
	keyring, err := os.MkdirTemp("", "containers-ephemeral-gpg-")
	check(t, err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(keyring, "gpg.conf")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the keyring was not seen")
		}
	}
	stop()
	if agents := importKey(keyring); len(agents) > 0 {
		t.Errorf("agents: %v", agents)
	}
	check(t, p.Close())
	if os.TempDir() != before {
		t.Errorf("temporary directory is %s, was %s", os.TempDir(), before)
	}
}
