package locate

import (
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	sha := "sha256:" + strings.Repeat("0", 64)
	for image, want := range map[string]string{
		"nginx":                   "docker.io/library/nginx:latest",
		"quay.io/a/b":             "quay.io/a/b:latest",
		"quay.io/a/b:v1":          "quay.io/a/b:v1",
		"quay.io/a/b:v1@" + sha:   "quay.io/a/b@" + sha,
		"localhost:5000/a@" + sha: "localhost:5000/a@" + sha,
		"dir:/etc":                "",
		"containers-storage:[x]a": "",
		sha:                       "",
		"Upper/case":              "",
		"":                        "",
		"a b":                     "",
	} {
		switch got, err := Canonical(image); {
		case want == "" && err == nil:
			t.Errorf("%q: %q is a reference", image, got)
		case want != "" && (err != nil || got != want):
			t.Errorf("%q: %q, %v, want %q", image, got, err, want)
		}
	}
}
