package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/checksums"
)

func TestVerifyChecksums_exit(t *testing.T) {
	p := fixture.Parts{TB: t}
	must := p.Must
	gpg := p.GPG()
	key, other := p.Key(gpg, "signer", fixture.KeyOptions{}), p.Key(gpg, "other", fixture.KeyOptions{})
	dir := t.TempDir()
	write := func(name string, content []byte) string { return p.Write(filepath.Join(dir, name), content) }
	sign := func(name, list string) string {
		sig, err := key.SignBytes([]byte(list))
		must(err)
		return write(name, sig)
	}
	line := func(name, content string) string {
		return fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(content)), name)
	}
	corp, wrong := write("corp.asc", key.Armored), write("other.asc", other.Armored)
	list := line("oc.tar.gz", "client") + line("oc.zip", "windows")
	signed := sign("sha256sum.txt.gpg", list)
	write("oc.tar.gz", []byte("client"))
	write("full/oc.tar.gz", []byte("client"))
	write("full/oc.zip", []byte("windows"))
	write("forged/oc.tar.gz", []byte("trojan"))
	text := write("list/sha256sum.txt", []byte(list))
	detach := func(name string) string {
		path := filepath.Join(dir, name)
		out, err := exec.Command("gpg", "--homedir", gpg.Home(), "--batch", "--quiet", "--local-user", key.Fingerprint,
			"--output", path, "--detach-sign", text).CombinedOutput()
		if err != nil {
			t.Fatalf("gpg: %v %s", err, out)
		}
		return path
	}
	detached, elsewhere := detach("list/sha256sum.txt.sig"), detach("signature")
	traversal := sign("traversal.sig", line("../"+filepath.Base(dir)+"/oc.tar.gz", "client"))

	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		answer verdict.Answer
		reason verdict.Reason
		files  int
	}{
		{"accept", []string{"--key", corp, "--dir", filepath.Join(dir, "full"), signed}, 0, verdict.Accept, "", 2},
		{
			"two keys",
			[]string{"--key", wrong, "--key", corp, "--dir", filepath.Join(dir, "full"), signed},
			0,
			verdict.Accept, "", 2,
		},
		{"one is missing beside the list", []string{"--key", corp, signed}, 4, verdict.Unknown, verdict.FileMissing, 2},
		{"missing is fine", []string{"--key", corp, "--ignore-missing", signed}, 0, verdict.Accept, "", 1},
		{
			"forged",
			[]string{"--key", corp, "--ignore-missing", "--dir", filepath.Join(dir, "forged"), signed},
			3,
			verdict.Refuse, verdict.WrongDigest, 1,
		},
		{"detached", []string{"--key", corp, "--dir", filepath.Join(dir, "full"), detached}, 0, verdict.Accept, "", 2},
		{
			"detached elsewhere",
			[]string{"--key", corp, "--list", text, "--dir", filepath.Join(dir, "full"), elsewhere},
			0,
			verdict.Accept, "", 2,
		},
		{
			"another key",
			[]string{"--key", wrong, "--dir", filepath.Join(dir, "full"), signed},
			3, verdict.Refuse,
			verdict.WrongKey, 0,
		},
		{"traversal", []string{"--key", corp, "--dir", dir, traversal}, 3, verdict.Refuse, verdict.WeakOrUnsupported, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"verify-checksums"}, tt.args...)
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append(args, "-o", "json"), strings.NewReader(""), &stdout, &stderr)
			var c checksums.Result
			if err := json.Unmarshal(stdout.Bytes(), &c); err != nil {
				t.Fatalf("%v: %s %s", err, &stdout, &stderr)
			}
			if code != tt.code || c.Answer != tt.answer || c.Reason != tt.reason || len(c.Files) != tt.files ||
				stderr.Len() > 0 {
				t.Errorf("exit status %d, want %d\n%s%s", code, tt.code, &stdout, &stderr)
			}
			stdout.Reset()
			if code := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); code != tt.code ||
				!strings.HasPrefix(stdout.String(), string(tt.answer)+" ") || !strings.Contains(stdout.String(), c.Message) ||
				stderr.Len() > 0 {
				t.Errorf("text: exit status %d\n%s%s", code, &stdout, &stderr)
			}
		})
	}
	for name, args := range map[string][]string{
		"no key":         {signed},
		"no key file":    {"--key", filepath.Join(dir, "none"), signed},
		"no file":        {"--key", corp, filepath.Join(dir, "none")},
		"no directory":   {"--key", corp, "--dir", filepath.Join(dir, "none"), signed},
		"no signature":   {"--key", corp, text},
		"which list?":    {"--key", corp, elsewhere},
		"list is inside": {"--key", corp, "--list", text, signed},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"verify-checksums"}, args...), strings.NewReader(""), &stdout,
			&stderr); code != 2 || stdout.Len() > 0 || stderr.Len() == 0 {
			t.Errorf("%s: exit status %d\n%s%s", name, code, &stdout, &stderr)
		}
	}
}
