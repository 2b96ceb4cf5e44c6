package probe

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

func lyingRegistry(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprint(w, `{"errors":[{"code":"UNKNOWN","message":"Source image rejected: A signature was required, but no signature exists\nError: Source image rejected: A signature was required, but no signature exists"}]}`)
}

func TestCheckCanaries(t *testing.T) {
	good := trust.Canary{Image: "example.com/a@sha256:" + strings.Repeat("a", 64), Expect: verdict.Accept}
	for _, tt := range []struct {
		name string
		in   []trust.Canary
		want string
	}{
		{"none", nil, "no canaries given"},
		{"good", []trust.Canary{good}, ""},
		{"no digest", []trust.Canary{{Image: "example.com/a:v1", Expect: verdict.Accept}}, "canaries[0].image: must be"},
		{
			"option",
			[]trust.Canary{{Image: "--root/a@sha256:" + strings.Repeat("a", 64), Expect: verdict.Accept}},
			"canaries[0].image: must be",
		},
		{"expect", []trust.Canary{{Image: good.Image, Expect: "perhaps"}}, "canaries[0].expect: must be accept or refuse"},
		{"twice", []trust.Canary{good, good}, "canaries[1].image: listed twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckCanaries(tt.in)
			if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && !strings.Contains(got, tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestInContainer(t *testing.T) {
	none := func(string) string { return "" }
	if inContainer(t.TempDir(), none) {
		t.Error("an empty root is no container")
	}
	if !inContainer(t.TempDir(), func(n string) string { return map[string]string{"container": "podman"}[n] }) {
		t.Error("$container says container")
	}
}
