package verify

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// TestImage_lookasidePassword has a password in the lookaside's URL: it is used, and in nothing that is said.
func TestImage_lookasidePassword(t *testing.T) {
	w := newWorld(t)
	digest := w.push("team/app", "v1")
	w.sign(w.key, "team/app", digest, w.ref("team/app:v1"), 1)
	w.push("team/none", "v1")
	policy := w.write("policy.json", `{"default":[`+signedBy(w.key)+`]}`)
	p := w.open(policy, strings.Replace(w.lookaside.URL(), "//", "//user:hunter2@", 1), Source{})
	for image, want := range map[string]verdict.Answer{"team/app:v1": verdict.Accept, "team/none:v1": verdict.Refuse} {
		v := w.judge(p, w.ref(image))
		if v.Answer != want {
			t.Errorf("%s: %s (%s)", image, v.Answer, v.Message)
		}
		b, err := json.Marshal(v)
		check(t, err)
		if strings.Contains(string(b), "hunter2") {
			t.Errorf("%s: the verdict tells the password: %s", image, b)
		}
	}
}

// TestImage_badLookasidePassword has it in URLs that are none, or of an unknown kind.
func TestImage_badLookasidePassword(t *testing.T) {
	w := newWorld(t)
	w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	policy := w.write("policy.json", `{"default":[`+signedBy(w.key)+`]}`)
	for _, lookaside := range []string{
		"https://user:hunter2@sigs.example:port/x",
		"https://user:hunter2@sigs example/x",
		"https://user:hunter2@[::1/x",
		"https://user:hunter2%zz@sigs.example/x",
		"https://user:hun/hunter2@sigs.example/x",
		"https://user:hun@hunter2@sigs example/x",
		"user:hunter2@sigs.example/x",
		"https:user:hunter2@sigs.example/x",
		"https:/user:hunter2@sigs.example/x",
		"ftp://user:hunter2@sigs.example/x",
	} {
		p := w.open(policy, quote(lookaside), Source{})
		for _, offline := range []bool{false, true} {
			o := testOptions()
			o.Offline = offline
			s, err := explained(t.Context(), image, p, o)
			check(t, err)
			b, err := json.MarshalIndent(s, "", " ")
			check(t, err)
			if strings.Contains(string(b), "hun") || !strings.Contains(s.Lookaside.URL, "xxxxx@") {
				t.Errorf("%s: %s", lookaside, b)
			}
			want := verdict.LookasideUnreachable
			if _, err := url.Parse(lookaside); err != nil {
				want = verdict.RegistriesDInvalid
			} else if offline {
				want = verdict.NotAsked
			}
			if s.Answer != verdict.Unknown || s.Reason != want {
				t.Errorf("%s: %s/%s (%s)", lookaside, s.Answer, s.Reason, s.Message)
			}
		}
		session := newSession(w.T, p, testOptions(), DefaultPerHost)
		v, err := session.Image(t.Context(), image)
		check(t, err)
		if b, _ := json.Marshal(v); strings.Contains(string(b), "hun") || v.Answer != verdict.Unknown {
			t.Errorf("%s: a session says %s", lookaside, b)
		}
		session.Close()

		dir := filepath.Join(t.TempDir(), "registries.d")
		check(t, os.Mkdir(dir, 0o700))
		check(t, os.WriteFile(filepath.Join(dir, "default.yaml"),
			[]byte("default-docker: {lookaside: "+quote(lookaside)+"}\n"), 0o600))
		files, err := hostfs.ThisMachine.RegistriesD([]string{dir})
		check(t, err)
		if err := library.Load(files); err != nil && strings.Contains(err.Error(), "hun") {
			t.Errorf("%s: loading it says %v", lookaside, err)
		}
	}
}
