package ref

import "testing"

func TestParts(t *testing.T) {
	for _, tt := range []struct{ reference, host, name, digest string }{
		{"quay.io/corp/app", "quay.io", "quay.io/corp/app", ""},
		{"quay.io/corp/app:v1", "quay.io", "quay.io/corp/app", ""},
		{"quay.io/corp/app@sha256:ab", "quay.io", "quay.io/corp/app", "sha256:ab"},
		{"quay.io/corp/app:v1@sha256:ab", "quay.io", "quay.io/corp/app", "sha256:ab"},
		{"registry.example:5000/app", "registry.example:5000", "registry.example:5000/app", ""},
		{"registry.example:5000/app:v1", "registry.example:5000", "registry.example:5000/app", ""},
		{"[::1]:5000/app:v1", "[::1]:5000", "[::1]:5000/app", ""},
		{"app:v1", "app:v1", "app", ""},
		{"", "", "", ""},
	} {
		if h, n, d := Host(tt.reference), Name(tt.reference), Digest(tt.reference); h != tt.host || n != tt.name ||
			d != tt.digest {
			t.Errorf("%q: host %q, name %q, digest %q", tt.reference, h, n, d)
		}
	}
}
