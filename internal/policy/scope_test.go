package policy

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.podman.io/image/v5/docker"
)

func TestCheckScope(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, s := range []string{
		"registry.redhat.io", "localhost", "localhost:5000", "registry.example.com:5000", "quay.io/corp",
		"quay.io/corp/a/b-c/d.e_f__g---h",
		"*.example.com", "*.com", "docker.io", "docker.io/library/busybox", "docker.io/bitnami", "127.0.0.1:5000/x",
		"quay.io/corp/app:v1.0_x", "quay.io/corp/app@" + digest, "docker.io/library/busybox:1.0",
		"Registry.example.com", "*.Example.com", "quay.io:0", "quay.io:99999/a", "registry-1.docker.io/library/a",
		"index.docker.io:443/a", "a_b.example/c",
		"quay.io/corp/app@sha384:" + strings.Repeat("0a", 48), "quay.io/corp/app@sha512:" + strings.Repeat("0a", 64),
	} {
		if err := CheckScope(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, want := range map[string]string{
		"*":                         `"*" is allowed only`,
		"https://example.com":       "not a URL",
		"docker://quay.io/corp":     "not a URL",
		"example.com/":              "trailing slash",
		"example.com/*":             `"*" is allowed only`,
		"*.example.com:5000":        "can have no port",
		"*.example.com/x":           "no path",
		"a.*.example.com":           `"*" is allowed only`,
		"*.*.com":                   "first label",
		"busybox":                   "docker.io/library/busybox",
		"library/busybox":           "docker.io/library/busybox",
		"docker.io/busybox:1.0":     "docker.io/library/busybox",
		"index.docker.io/library/a": "looked up as docker.io",
		"quay.io/Corp":              "upper case",
		"quay.io/corp//app":         "empty path component",
		"/corp":                     "names no host",
		"quay.io/-corp":             "no part of a repository",
		"quay.io/corp-":             "no part of a repository",
		"quay.io/a..b":              "no part of a repository",
		"quay.io/a___b":             "no part of a repository",
		"quay.io/a b":               "no part of a repository",
		"quay.io:port/x":            "no port",
		"quay.io:":                  "no port",
		"LOCALHOST/a":               "no registry host",
		"quay.\u212Aio":             "no host",
		"quay.io/a:\u212A":          "no tag",
		"quay.io/corp@sha512:" + strings.Repeat("0a", 32): "no digest",
		"quay..io":                            "no host",
		"-quay.io":                            "no host",
		"[::1]:5000/x":                        "IPv6",
		"quay.io/corp/app:":                   "no tag",
		"quay.io/corp/app:.x":                 "no tag",
		"quay.io/corp/app@":                   "empty digest",
		"quay.io/corp/app@sha256:0":           "no digest",
		"quay.io/corp/app:v1@" + digest:       "not both",
		"quay.io@" + digest:                   "no repository",
		"quay.io/" + strings.Repeat("a", 256): "255",
	} {
		if err := CheckScope(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", s, err, want)
		}
	}
}

// libraryChain is what the image library looks up for an image; nil if it parses no such reference.
func libraryChain(image string) []string {
	ref, err := docker.ParseReference("//" + image)
	if err != nil {
		return nil
	}
	return append([]string{ref.PolicyConfigurationIdentity()}, append(ref.PolicyConfigurationNamespaces(), "")...)
}

// alive reports whether the image library looks the scope up for some image: for the scope itself, a tag of it, an
// image below it, or one of a host below a wildcard.
func alive(scope string) bool {
	for _, image := range []string{scope, scope + ":t", scope + "/x:t", "x" + strings.TrimPrefix(scope, "*") + "/x:t"} {
		if slices.Contains(libraryChain(image), scope) {
			return true
		}
	}
	return false
}

// holdScope compares with the image library: a scope is dead here only if it is there, and its chain is that of its
// images.
func holdScope(t *testing.T, s string) {
	t.Helper()
	// no policy with such a wildcard means anything
	if s == "" || strings.HasPrefix(s, "*.") && strings.ContainsAny(s, "/@") {
		return
	}
	err := CheckScope(s)
	if lives := alive(s); lives != (err == nil) {
		t.Errorf("%q: the library looks it up: %v, but %v", s, lives, err)
	}
	if want := libraryChain(s); want != nil && want[0] == s && !slices.Equal(Chain(Docker, s), want) {
		t.Errorf("%q: got %q, want %q", s, Chain(Docker, s), want)
	}
	for _, image := range []string{s + "/x:t", "x" + strings.TrimPrefix(s, "*") + "/x:t"} {
		want := libraryChain(image)
		if i := slices.Index(want, s); i >= 0 && !slices.Equal(Chain(Docker, s), want[i:]) {
			t.Errorf("%q: got %q, want %q", s, Chain(Docker, s), want[i:])
		}
	}
}

// FuzzScope holds scopes against the image library.
func FuzzScope(f *testing.F) {
	for _, s := range []string{
		"quay.io/corp/app:v1", "docker.io/library/busybox", "[::1]:5000/a/b", "localhost/a_b--c", "busybox",
		"a.b/c@sha256:" + strings.Repeat("0", 64), "*.example.com", "*.apps.example.com", "A.b/c", "a.b:1/c:d",
		"a.b.com:5000/x/y@sha256:" + strings.Repeat("0", 64), "127.0.0.1:5000/x/y/z:v1",
		"quay.io/" + strings.Repeat("a", 247), "quay.io/" + strings.Repeat("a", 248), strings.Repeat("a", 249) + ".com",
		strings.Repeat("a", 250) + ".com", "*." + strings.Repeat("a", 251), "*." + strings.Repeat("a", 252),
		"docker.io/" + strings.Repeat("a", 243), "docker.io/" + strings.Repeat("a", 244),
	} {
		f.Add(s)
	}
	f.Fuzz(holdScope)
}

// TestScope_library holds many scopes, made of what scopes are made of, against the image library.
func TestScope_library(t *testing.T) {
	parts := []string{
		"a", "b-c", "io", "com", "docker.io", "index.docker.io", "registry-1.docker.io", "library", "quay.io", "localhost",
		"Quay", "A", "_", "__", "-", "--", ".", ".", ".", "/", "/", "/", ":", ":", "@",
		"*.", "*", "0", "99999", "v1", "sha256:", "sha384:", "sha512:", "md5:", strings.Repeat("0a", 32),
		strings.Repeat("0a", 48), strings.Repeat("0A", 64), strings.Repeat("0a", 64), "\u212A", "é", " ", "\n", "[::1]",
	}
	r := rand.New(rand.NewPCG(5, 6))
	lives := 0
	for range 10_000 {
		var b strings.Builder
		for range 1 + r.IntN(9) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		holdScope(t, b.String())
		if CheckScope(b.String()) == nil {
			lives++
		}
	}
	if lives < 300 {
		t.Errorf("%d scopes only are alive", lives)
	}
}
