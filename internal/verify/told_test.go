package verify

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TestImage_echo has a registry that tells in its errors what it was sent, and some more: a token that looks like
// none, the login that the token was got with, control characters, text without end.
func TestImage_echo(t *testing.T) {
	w := newWorld(t)
	w.push("team/app", "v1")
	const token, password = "opaque.token_of/this+kind", "hunter2 & Söhne"
	login := base64.StdEncoding.EncodeToString([]byte("user:" + password))
	o := testOptions()
	o.AuthFile = w.write("auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, w.registry.Host, login))
	p := w.policy(signedBy(w.key))
	image := w.ref("team/app:v1")
	var sent, got bool
	for _, status := range []int{400, 401, 403, 404, 500} {
		w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
			auth := r.Header.Get("Authorization")
			switch {
			case r.URL.Path == "/token":
				sent = auth == "Basic "+login
				fmt.Fprintf(rw, `{"token":%q}`, token)
				return
			case auth == "":
				rw.Header().Set("WWW-Authenticate", `Bearer realm="http://`+w.registry.Host+`/token",service="lab"`)
				rw.WriteHeader(401)
				return
			case r.URL.Path == "/v2/":
				return
			}
			got = auth == "Bearer "+token
			value := strings.TrimPrefix(auth, "Bearer ")
			text, _ := json.Marshal("you sent " + auth + ", that is \u202e" + value + "\x1b[2J\r\naccept " + login + " " +
				password + "\u009b" + strings.Repeat("[", 1<<20))
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(status)
			fmt.Fprintf(rw, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":%s,"detail":%s}]}`, text, text)
		})
		session := newSession(w.T, p, o, DefaultPerHost)
		for name, judge := range map[string]func() (any, string, error){
			"image": func() (any, string, error) {
				v, err := judgeImage(t.Context(), image, "", p, o)
				return v, v.Message, err
			},
			"explain": func() (any, string, error) {
				s, err := explained(t.Context(), image, p, o)
				return s, s.Message, err
			},
			"session": func() (any, string, error) {
				v, err := session.Image(t.Context(), image)
				return v, v.Message, err
			},
		} {
			v, message, err := judge()
			check(t, err)
			b, err := json.Marshal(v)
			check(t, err)
			for _, secret := range []string{token, login, password, "\u202e", "\u009b", `\u001b`, `\r`, `\n`} {
				if strings.Contains(string(b), secret) {
					t.Errorf("%d: %s tells %q: %.600s", status, name, secret, b)
				}
			}
			if len(b) > 16<<10 || len(message) > outside.Most || message == "" {
				t.Errorf("%d: %s is of %d bytes, its message of %d", status, name, len(b), len(message))
			}
		}
		session.Close()
	}
	if !sent || !got {
		t.Errorf("login sent: %v, token sent: %v: nothing was tested", sent, got)
	}
}

// TestImage_printable has the names of places where control characters are data: what a signature claims is told, and
// can't command a terminal.
func TestImage_printable(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, "registry.example/\u202eppa:v1", 1)
	v := w.judge(w.policy(signedBy(w.key)), w.ref("team/app:v1"))
	b, err := json.Marshal(v)
	check(t, err)
	if v.Answer == verdict.Accept || strings.Contains(string(b), "\u202e") ||
		!strings.Contains(string(b), "registry.example/?ppa:v1") {
		t.Errorf("%s", b)
	}
}
