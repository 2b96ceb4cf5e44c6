package checksums

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

func TestMain(m *testing.M) { fixture.Main(m) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a key, and a directory for files.
type world struct {
	*testing.T
	gpg *fixture.GPG
	key *fixture.Key
	dir string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	p := fixture.Parts{TB: t}
	gpg := p.GPG()
	return &world{T: t, gpg: gpg, key: p.Key(gpg, "signer", fixture.KeyOptions{}), dir: t.TempDir()}
}

// gpgSign runs gpg on text with these arguments and returns what it writes.
func gpgSign(w *world, k *fixture.Key, text string, args ...string) []byte {
	w.Helper()
	cmd := exec.Command("gpg", append([]string{
		"--homedir", w.gpg.Home(), "--batch", "--quiet", "--no-tty", "--passphrase",
		"", "--pinentry-mode", "loopback", "--local-user", k.Fingerprint + "!",
	}, args...)...)
	cmd.Stdin = strings.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.Fatalf("gpg %v: %v %s", args, err, &stderr)
	}
	return out
}

// checksums writes files named after their content and returns their list.
func checksums(t *testing.T, dir string, names ...string) (list string) {
	t.Helper()
	for _, name := range names {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
		list += fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(name)), name)
	}
	return list
}

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	check(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// Every form in which lists are signed, made by gpg itself.
func TestVerify_forms(t *testing.T) {
	w := newWorld(t)
	other, err := w.gpg.NewKey("other", fixture.KeyOptions{})
	check(t, err)
	list := checksums(t, w.dir, "oc.tar.gz", "-dashed", "below/file")
	for _, tt := range []struct {
		name     string
		args     []string
		detached bool
	}{
		{"clear-signed", []string{"--clearsign"}, false},
		{"signed message", []string{"--sign"}, false},
		{"not compressed", []string{"--compress-algo", "none", "--sign"}, false},
		{"bzip2", []string{"--compress-algo", "bzip2", "--sign"}, false},
		{"armored message", []string{"--armor", "--sign"}, false},
		{"detached", []string{"--detach-sign"}, true},
		{"detached and armored", []string{"--armor", "--detach-sign"}, true},
		{"detached, text mode", []string{"--textmode", "--detach-sign"}, true},
		{"SHA-512", []string{"--digest-algo", "SHA512", "--detach-sign"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sig := gpgSign(w, w.key, list, tt.args...)
			if got := openpgp.IsDetached(sig); got != tt.detached {
				t.Fatalf("IsDetached is %v", got)
			}
			f := List{Signature: sig, Keys: [][]byte{other.Armored, w.key.Armored}, Dir: openRoot(t, w.dir)}
			if tt.detached {
				f.Text = []byte(list)
			}
			c, err := Verify(t.Context(), f)
			check(t, err)
			if c.Answer != verdict.Accept || c.Signer != w.key.Fingerprint || len(c.Files) != 3 {
				t.Fatalf("%+v", c)
			}
			for _, file := range c.Files {
				if file.Answer != verdict.Accept || file.Got != file.Want {
					t.Errorf("%+v", file)
				}
			}
			f.Keys = [][]byte{other.Armored}
			if c, err = Verify(t.Context(), f); err != nil || c.Answer != verdict.Refuse || c.Reason != verdict.WrongKey ||
				len(c.Files) != 0 {
				t.Errorf("another key: %+v %v", c, err)
			}
			if tt.detached {
				f.Keys, f.Text = [][]byte{w.key.Binary}, []byte(strings.Replace(list, "oc", "od", 1))
			} else if bytes.HasPrefix(sig, []byte("-----BEGIN PGP SIGNED")) {
				f.Keys, f.Signature = [][]byte{w.key.Binary}, bytes.Replace(sig, []byte("oc"), []byte("od"), 1)
			} else {
				return
			}
			if c, err = Verify(t.Context(), f); err != nil || c.Answer == verdict.Accept || len(c.Files) != 0 {
				t.Errorf("altered: %+v %v", c, err)
			}
		})
	}
}

func TestVerify_files(t *testing.T) {
	w := newWorld(t)
	sum := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	for _, tt := range []struct {
		name, list string
		ignore     bool
		answer     verdict.Answer
		reason     verdict.Reason
		files      int
	}{
		{
			"right", sum("a") + "  a\n" + sum("b") + " *b\r\n\n# note\nSHA256 (c) = " + strings.ToUpper(sum("c")) + "\n", false,
			verdict.Accept, "", 3,
		},
		{"another hash", sum("a") + "  a\n" + sum("a") + "  b\n", false, verdict.Refuse, verdict.WrongDigest, 2},
		{"missing", sum("a") + "  a\n" + sum("x") + "  x\n", false, verdict.Unknown, verdict.FileMissing, 2},
		{"missing, ignored", sum("a") + "  a\n" + sum("x") + "  x\n", true, verdict.Accept, "", 1},
		{"all missing, ignored", sum("x") + "  x\n", true, verdict.Unknown, verdict.FileMissing, 0},
		{"missing and another hash", sum("x") + "  x\n" + sum("a") + "  b\n", false, verdict.Refuse, verdict.WrongDigest, 2},
		{"a pipe", sum("") + "  pipe\n", false, verdict.Unknown, verdict.FileMissing, 1},
		{"a directory", sum("") + "  sub\n", false, verdict.Unknown, verdict.FileMissing, 1},
		{"a link out of it", sum("secret") + "  link\n", false, verdict.Unknown, verdict.FileMissing, 1},
		{"a link out of it, ignored", sum("secret") + "  link\n", true, verdict.Unknown, verdict.FileMissing, 1},
		{"parent", sum("a") + "  a\n" + sum("secret") + "  ../secret\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"hidden parent", sum("secret") + "  sub/../../secret\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"absolute", sum("") + "  /etc/hostname\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"absolute, BSD", "SHA256 (/etc/hostname) = " + sum("") + "\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"backslash", sum("a") + "  a\\nb\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"MD5", strings.Repeat("0", 32) + "  a\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"wrong tag", "SHA512 (a) = " + sum("a") + "\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"twice", sum("a") + "  a\n" + sum("b") + "  ./a\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"other text", "hello\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
		{"nothing", "\n", false, verdict.Refuse, verdict.WeakOrUnsupported, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "dir")
			checksums(t, top, "secret")
			checksums(t, dir, "a", "b", "c", "sub/d")
			check(t, os.Symlink("../secret", filepath.Join(dir, "link")))
			check(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
			var done, total int64
			sig, err := w.key.SignBytes([]byte(tt.list))
			check(t, err)
			c, err := Verify(t.Context(), List{
				Signature: sig, Keys: [][]byte{w.key.Binary}, Dir: openRoot(t, dir), IgnoreMissing: tt.ignore,
				Progress: func(_ string, d, t int64) { done, total = d, t },
			})
			check(t, err)
			if c.Answer != tt.answer || c.Reason != tt.reason || len(c.Files) != tt.files || c.Message == "" {
				t.Errorf("%+v", c)
			}
			if tt.name == "right" && (done != 3 || total != 3) {
				t.Errorf("progress ended at %d of %d bytes", done, total)
			}
		})
	}
}

func TestVerify_hostile(t *testing.T) {
	w := newWorld(t)
	dir := openRoot(t, w.dir)
	bomb := gpgSign(w, w.key, strings.Repeat("\n", 8*MaxSize), "--sign")
	if len(bomb) > MaxSize {
		t.Fatalf("%d bytes are no bomb", len(bomb))
	}
	clear := gpgSign(w, w.key, checksums(t, w.dir, "c"), "--clearsign")
	for name, sig := range map[string][]byte{
		"empty": nil, "text": []byte("0000  a\n"), "a key": w.key.Binary, "an armored key": w.key.Armored, "bomb": bomb,
		"cut off": clear[:len(clear)/2], "two megabytes": make([]byte, 2*MaxSize),
		"lines after it": []byte(string(clear) + "0000  d\n"), "twice": []byte(string(clear) + "\n" + string(clear)),
	} {
		if c, err := Verify(t.Context(), List{Signature: sig, Keys: [][]byte{w.key.Binary}, Dir: dir}); err == nil {
			t.Errorf("%s: no error, %+v", name, c)
		}
	}
	list := checksums(t, w.dir, "a")
	sig := gpgSign(w, w.key, list, "--sign")
	if c, err := Verify(t.Context(), List{
		Signature: sig[:len(sig)-20], Keys: [][]byte{w.key.Binary},
		Dir: dir,
	}); err == nil && c.Answer == verdict.Accept {
		t.Errorf("cut off: %+v", c)
	}
	if c, err := Verify(t.Context(), List{Signature: sig, Keys: [][]byte{[]byte("no key")}, Dir: dir}); err != nil ||
		c.Reason != verdict.KeyUnreadable {
		t.Errorf("no key: %+v %v", c, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Verify(ctx, List{Signature: sig, Keys: [][]byte{w.key.Binary}, Dir: dir}); err != nil ||
		c.Answer != verdict.Unknown || c.Reason != verdict.Timeout {
		t.Errorf("interrupted: %+v %v", c, err)
	}
}

// Whatever is in a signature file or a list, reading it ends, and names that are taken lie below the directory.
func FuzzChecksums(f *testing.F) {
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx\n-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n"), []byte(strings.Repeat("0", 64)+"  a\n"))
	f.Add([]byte{0xc2, 4, 4, 1, 1, 8}, []byte("SHA256 (../a) = "+strings.Repeat("0", 64)))
	f.Add([]byte{0x88, 0}, []byte("#"))
	f.Fuzz(func(t *testing.T, sig, text []byte) {
		messages, _, err := openpgp.SignedMessages(sig, text)
		if err == nil && len(messages) == 0 {
			t.Error("neither message nor error")
		}
		for _, m := range messages {
			openpgp.ReadClaims(m)
		}
		list, _ := parse(text)
		for _, file := range list {
			if !filepath.IsLocal(file.Name) || strings.Contains(file.Name, "\\") || file.Want == "" {
				t.Errorf("%+v", file)
			}
		}
	})
}
