package trust

import (
	"slices"
	"strings"
	"testing"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
)

func TestCheckScope(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, s := range []string{
		"registry.redhat.io", "localhost", "localhost:5000", "registry.example.com:5000", "quay.io/corp", "quay.io/corp/a/b-c/d.e_f__g---h",
		"*.example.com", "*.com", "docker.io", "docker.io/library/busybox", "docker.io/bitnami", "127.0.0.1:5000/x",
		"quay.io/corp/app:v1.0_x", "quay.io/corp/app@" + digest, "docker.io/library/busybox:1.0",
	} {
		if err := checkScope(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, want := range map[string]string{
		"*":                                   `"*" is allowed only`,
		"https://example.com":                 "not a URL",
		"docker://quay.io/corp":               "not a URL",
		"example.com/":                        "trailing slash",
		"example.com/*":                       `"*" is allowed only`,
		"*.example.com:5000":                  "can have no port",
		"*.example.com/x":                     "no path",
		"a.*.example.com":                     `"*" is allowed only`,
		"*.*.com":                             "first label",
		"busybox":                             "docker.io/library/busybox",
		"library/busybox":                     "docker.io/library/busybox",
		"docker.io/busybox:1.0":               "docker.io/library/busybox",
		"index.docker.io/library/a":           "looked up as docker.io",
		"Registry.example.com":                "upper case",
		"quay.io/Corp":                        "upper case",
		"quay.io/corp//app":                   "empty path component",
		"/corp":                               "names no host",
		"quay.io/-corp":                       "no part of a repository",
		"quay.io/corp-":                       "no part of a repository",
		"quay.io/a..b":                        "no part of a repository",
		"quay.io/a___b":                       "no part of a repository",
		"quay.io/a b":                         "no part of a repository",
		"quay.io:port/x":                      "no port",
		"quay.io:0":                           "no port",
		"quay.io:70000":                       "no port",
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
		if err := checkScope(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", s, err, want)
		}
	}
}

// FuzzScope holds scopes against the grammar of references in the image library: a name that we take for a repository is one
// there, spelled the same way; a name that is a canonical reference there is a scope here.
func FuzzScope(f *testing.F) {
	for _, s := range []string{"quay.io/corp/app:v1", "docker.io/library/busybox", "[::1]:5000/a/b", "localhost/a_b--c", "busybox", "a.b/c@sha256:" + strings.Repeat("0", 64), "*.example.com", "A.b/c", "a.b:1/c:d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := checkScope(s)
		covers(s)
		if !strings.Contains(s, "/") || strings.HasPrefix(s, "*") {
			return
		}
		ref, refErr := reference.ParseNormalizedNamed(s)
		if err == nil {
			single := strings.HasPrefix(s, "docker.io/") && strings.Count(s, "/") == 1 // a namespace of Docker Hub
			if refErr != nil || ref.String() != s && !single {
				t.Errorf("%q is taken for a scope, but the library says %v, %v", s, ref, refErr)
			}
			return
		}
		if refErr != nil || ref.String() != s {
			return
		}
		_, tagged := ref.(reference.Tagged)
		_, digested := ref.(reference.Digested)
		host := reference.Domain(ref)
		if tagged && digested || strings.ToLower(host) != host || strings.Contains(host, "docker.io") || strings.Contains(s, "@") || strings.HasPrefix(host, "[") || strings.ContainsAny(host, ":_") {
			return // refused on purpose, or a host that is none
		}
		t.Errorf("%q is a reference, but: %v", s, err)
	})
}

// TestCovers compares with the lookup order of the image library.
func TestCovers(t *testing.T) {
	for _, image := range []string{
		"a.b.com:5000/x/y@sha256:" + strings.Repeat("0", 64), "a.b.com/x:v1", "localhost/x@sha256:" + strings.Repeat("0", 64), "docker.io/library/busybox:v1", "127.0.0.1:5000/x/y/z:v1",
	} {
		named, err := reference.ParseNormalizedNamed(image)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := docker.NewReference(named)
		if err != nil {
			t.Fatal(err)
		}
		want := append([]string{ref.PolicyConfigurationIdentity()}, ref.PolicyConfigurationNamespaces()...)
		if got := covers(image); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
