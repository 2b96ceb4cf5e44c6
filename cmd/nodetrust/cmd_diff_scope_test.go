package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestScopes_agree: lint, explain and diff say the same of a scope, whether images have it.
func TestScopes_agree(t *testing.T) {
	parts := fixture.Parts{TB: t}
	dir := t.TempDir()
	reject := parts.Write(filepath.Join(dir, "reject.json"), []byte(`{"default":[{"type":"reject"}]}`))
	for i, tt := range []struct {
		scope, image string
		alive        bool
	}{
		{"Registry.example.com", "Registry.example.com/a/b:1", true},
		{"*.Example.com", "r.Example.com/a:1", true},
		{"quay.io/a@sha384:" + strings.Repeat("0a", 48), "quay.io/a@sha384:" + strings.Repeat("0a", 48), true},
		{"quay.io/a@sha512:" + strings.Repeat("0a", 64), "quay.io/a@sha512:" + strings.Repeat("0a", 64), true},
		{"quay.io:0", "quay.io:0/a:1", true},
		{"quay.io:99999/a", "quay.io:99999/a:1", true},
		{"registry-1.docker.io/library", "registry-1.docker.io/library/a:1", true},
		{"a_b.example", "a_b.example/c:1", true},
		{"index.docker.io", "index.docker.io/library/a:1", false},
		{"https://quay.io/a", "quay.io/a:1", false},
		{"quay.io/a/", "quay.io/a/b:1", false},
		{"busybox", "busybox:1", false},
		{"docker.io/busybox:1", "busybox:1", false},
		{"*.example.com:5000", "r.example.com:5000/a:1", false},
	} {
		policy := parts.Write(filepath.Join(dir, fmt.Sprint(i, ".json")),
			fmt.Appendf(nil, `{"default":[{"type":"reject"}],"transports":{"docker":{%q:[{"type":"insecureAcceptAnything"}]}}}`,
				tt.scope))
		does := func(args ...string) (int, string) {
			var out, errs bytes.Buffer
			code := run(t.Context(), args, strings.NewReader(""), &out, &errs)
			return code, out.String() + errs.String()
		}
		diff, decides := cli.ExitOK, "the policy's default"
		if tt.alive {
			diff, decides = cli.ExitRefused, tt.scope+" ("
		}
		if code, out := does("diff", reject, policy); code != diff {
			t.Errorf("%s: diff: exit status %d\n%s", tt.scope, code, out)
		}
		if _, out := does("explain", "--offline", "--policy", policy, "--registries-d", t.TempDir(),
			tt.image); !strings.Contains(out, "\nscope         "+decides) {
			t.Errorf("%s: explain %s: %s", tt.scope, tt.image, out)
		}
		if _, out := does("lint", policy); strings.Contains(out, "[dead-scope]") == tt.alive {
			t.Errorf("%s: lint: %s", tt.scope, out)
		}
	}
}
