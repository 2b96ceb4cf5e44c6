package verify

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/verdict"
)

// TestImage_lookasidePassword has a password in the lookaside's URL: it is used, and in nothing that is said.
func TestImage_lookasidePassword(t *testing.T) {
	w := newWorld(t)
	digest := w.push("team/app", "v1")
	w.sign(w.key, "team/app", digest, w.ref("team/app:v1"), 1)
	w.push("team/none", "v1")
	policy := w.write("policy.json", `{"default":[`+signedBy(w.key)+`]}`)
	p := w.open(policy, strings.Replace(w.lookaside.URL(), "//", "//user:hunter2@", 1), Settings{})
	for image, want := range map[string]verdict.Answer{"team/app:v1": verdict.Accept, "team/none:v1": verdict.Refuse} {
		v := w.judge(p, w.ref(image))
		if v.Verdict != want {
			t.Errorf("%s: %s (%s)", image, v.Verdict, v.Message)
		}
		b, err := json.Marshal(v)
		check(t, err)
		if strings.Contains(string(b), "hunter2") {
			t.Errorf("%s: the verdict tells the password: %s", image, b)
		}
	}
}
