package key_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
)

// gnupg runs gpg in a home of its own, as of a day.
type gnupg struct {
	t    *testing.T
	home string
}

func (g gnupg) run(stdin string, args ...string) []byte {
	g.t.Helper()
	out, err := g.try(stdin, args...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

func (g gnupg) try(stdin string, args ...string) ([]byte, error) {
	cmd := exec.Command("gpg", append([]string{
		"--homedir", g.home, "--batch", "--yes", "--quiet", "--no-tty",
		"--pinentry-mode", "loopback", "--passphrase", "",
	}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("gpg %q: %w: %s", args, err, errs.String())
	}
	return out.Bytes(), nil
}

// newest is the fingerprint of the key or subkey that was made last.
func (g gnupg) newest(args ...string) (fpr string) {
	for line := range strings.Lines(string(g.run("", append([]string{"--with-colons", "--list-keys"}, args...)...))) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			fpr = f[9]
		}
	}
	return fpr
}

// day is an argument that makes it the n-th day for gpg.
func day(n int) string {
	return "--faked-system-time=" + time.Unix(1_600_000_000+int64(n)*86400, 0).UTC().Format("20060102T150405")
}

// signature is one by a primary key or a subkey.
type signature struct {
	signer string
	data   []byte
}

// states are the public keys of one person in one state each, by name, and the signatures by them.
type states struct {
	name  string
	files map[string][]byte
	order []string
	sigs  []signature
}

func (s *states) put(name string, data []byte) {
	s.files[name] = data
	s.order = append(s.order, name)
}

func (g gnupg) sign(s *states, fpr string) {
	data := g.run("x", day(1), "--local-user", fpr+"!", "--sign")
	s.sigs = append(s.sigs, signature{fpr, data})
}

// life is what happens to a key with a signing subkey, one thing after the other.
func (g gnupg) life(name, algo string) *states {
	s := &states{name: name, files: map[string][]byte{}}
	uid := name + "@example.com"
	g.run("", day(0), "--quick-gen-key", uid, algo, "sign,cert", "never")
	p := g.newest(uid)
	export := func(name string) { s.put(name, g.run("", "--export", p)) }
	g.sign(s, p)
	export("good")
	g.run("", day(1), "--quick-add-key", p, strings.Replace(algo, "nistp521", "nistp521/ecdsa", 1), "sign", "never")
	sub := g.newest(uid)
	g.sign(s, sub)
	export("subkey")
	g.run("", day(2), "--quick-set-expire", p, "2d", sub)
	export("subkey expired")
	g.run("", day(3), "--quick-set-expire", p, "0", sub)
	export("subkey extended")
	g.run("", day(3), "--quick-set-expire", p, "2d")
	export("expired")
	g.run("", day(4), "--quick-set-expire", p, "0")
	export("extended")
	g.run("", day(5), "--quick-add-uid", p, "second-"+uid)
	export("second user ID")
	g.run("", day(6), "--quick-revoke-uid", p, uid)
	export("first user ID revoked")
	g.run("key 1\nrevkey\ny\n0\n\ny\nsave\n", day(7), "--no-batch", "--command-fd", "0", "--edit-key", p)
	export("subkey revoked")
	g.run("change-usage\nS\nQ\nsave\n", day(8), "--command-fd", "0", "--expert", "--edit-key", p)
	export("certifies only")
	cert, err := os.ReadFile(filepath.Join(g.home, "openpgp-revocs.d", p+".rev"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.run(strings.Replace(string(cert), ":-----BEGIN", "-----BEGIN", 1), "--import")
	export("revoked")
	return s
}

// accepted lists the signers whose signatures gpg takes, with the files imported one after the other.
func accepted(t *testing.T, sigs []signature, files ...[]byte) (out []string) {
	t.Helper()
	home, err := os.MkdirTemp("", "nt-gpg-") // neither --import nor --verify wants an agent
	if err != nil {
		t.Fatal(err)
	}
	defer fixture.RemoveGPG(home)
	g := gnupg{t, home}
	for _, f := range files {
		_, _ = g.try(string(f), "--import")
	}
	for _, s := range sigs {
		if status, _ := g.try(string(s.data), "--status-fd", "1", "--verify", "-"); bytes.Contains(status,
			[]byte("] GOODSIG ")) {
			out = append(out, s.signer)
		}
	}
	slices.Sort(out)
	return out
}

// usable lists the signers that count for us.
func usable(files ...[]byte) ([]string, error) {
	signers, err := key.Signers(files, time.Now())
	var out []string
	for _, s := range signers {
		if s.State == key.Usable {
			out = append(out, s.Fingerprint)
		}
	}
	slices.Sort(out)
	return out, err
}

// TestSigners: what gpg says of signatures by keys in every state, alone and merged with every other state, follows
// from Signers.
func TestSigners(t *testing.T) {
	home, err := fixture.NewGPG()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(home.Close)
	g := gnupg{t, home.Home()}
	outcomes := map[string]bool{}
	for _, s := range []*states{
		g.life("ed", "ed25519"), g.life("rsa", "rsa2048"), g.life("p521", "nistp521"),
		g.life("dsa", "dsa2048"),
	} {
		for i, a := range s.order {
			for _, b := range s.order[i:] {
				if s.name != "ed" && a != b {
					continue
				}
				files := [][]byte{s.files[a], s.files[b]}
				if a == b {
					files = files[:1]
				}
				want := accepted(t, s.sigs, files...)
				outcomes[s.name+strings.Join(want, " ")] = true
				got, err := usable(files...)
				if err != nil {
					t.Errorf("%s: %s and %s: %v", s.name, a, b, err)
				} else if !slices.Equal(got, want) {
					t.Errorf("%s: %s and %s: got %q, gpg says %q", s.name, a, b, got, want)
				}
			}
		}
	}
	if len(outcomes) < 4*3 { // none, the primary key, the primary key and its subkey
		t.Errorf("gpg made no difference between the states: %v", outcomes)
	}
}

// TestSigners_forms: a file that is written in an unusual way holds what gpg finds in it, or it can't be told.
func TestSigners_forms(t *testing.T) {
	home, err := fixture.NewGPG()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(home.Close)
	g := gnupg{t, home.Home()}
	var sigs []signature
	var binary, armored [2]string
	for i, name := range []string{"corp", "evil"} {
		g.run("", day(0), "--quick-gen-key", name+"@example.com", "ed25519", "sign", "never")
		fpr := g.newest(name + "@example.com")
		sigs = append(sigs, signature{fpr, g.run("x", "--local-user", fpr, "--sign")})
		binary[i], armored[i] = string(g.run("", "--export", fpr)), string(g.run("", "--armor", "--export", fpr))
	}
	secret := string(g.run("", "--export-secret-keys", sigs[1].signer))
	b, a, e := binary, armored[0], armored[1]
	packet := func(tag byte, body string) string {
		return string([]byte{0xc0 | tag, 0xff, 0, 0, byte(len(body) >> 8), byte(len(body))}) + body
	}
	const head, tail = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
	lines := strings.Split(e, "\n")
	without := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return len(l) == 5 && l[0] == '=' })
	wrong := slices.Clone(lines)
	for i, l := range wrong {
		if len(l) == 5 && l[0] == '=' {
			wrong[i] = "=AAAA"
		}
	}
	user := strings.Index(b[0], "corp@example.com")
	changed := []byte(b[0])
	changed[user] = 'k'
	told := 0
	for name, file := range map[string]string{
		"binary": b[0], "both": b[0] + b[1], "armored": a, "two blocks": a + e, "twice": b[0] + b[0],
		"binary after armor": a + b[1], "armor after binary": b[0] + e,
		"marker": b[0] + packet(10, "PGP") + b[1], "trust": b[0] + packet(12, "xx") + b[1],
		"padding": b[0] + packet(21, "xx") + b[1], "unknown packet": b[0] + packet(60, "xx") + b[1],
		"literal": b[0] + packet(11, "b\x00\x00\x00\x00\x00x") + b[1], "blank lines": b[0] + "\n\n" + b[1],
		"zero": b[0] + "\x00" + b[1], "cut": b[0] + b[1][:len(b[1])-9], "secret": b[0] + secret, "secret only": secret,
		"packed": packet(8, "\x00"+b[0]), "packed beside it": b[0] + packet(8, "\x00"+b[1]),
		"secret packed":  packet(8, "\x00"+secret),
		"secret armored": a + string(g.run("", "--armor", "--export-secret-keys", sigs[1].signer)),
		"text before":    "hello\n" + a, "text between": a + "hello\n" + e, "text after": a + "hello\n",
		"indented": a + strings.Replace(e, head, " "+head, 1), "spaces behind": a + strings.Replace(e, head, head+"  ", 1),
		"no checksum": a + strings.Join(without, "\n"), "wrong checksum": a + strings.Join(wrong, "\n"),
		"wrong checksum first": strings.Join(wrong, "\n") + a, "no end": a + strings.Replace(e, tail, "", 1),
		"no end first":      strings.Replace(a, tail, "", 1) + e,
		"headers":           a + strings.Replace(e, head+"\n", head+"\nComment: x\nFoo: y\n", 1),
		"odd header":        a + strings.Replace(e, head+"\n", head+"\nComment:x\n", 1),
		"no blank line":     a + strings.Replace(e, head+"\n\n", head+"\n", 1),
		"blank with spaces": a + strings.Replace(e, head+"\n\n", head+"\n \t\n", 1),
		"CRLF":              a + strings.ReplaceAll(e, "\n", "\r\n"), "CR": strings.ReplaceAll(a, "\n", "\r"),
		"lower case":       a + strings.Replace(e, "BEGIN PGP PUBLIC", "Begin PGP Public", 1),
		"end in a comment": strings.Replace(a, head+"\n", head+"\nComment: "+tail+"\n", 1) + e,
		"another kind":     a + strings.ReplaceAll(e, "PUBLIC KEY BLOCK", "MESSAGE"), "byte order mark": "\xef\xbb\xbf" + a,
		"in one line":  strings.ReplaceAll(a, "\n", ""),
		"dash escaped": "- " + a, "quoted": "> " + strings.ReplaceAll(a, "\n", "\n> "), "user ID changed": string(changed),
		"key alone": b[0][:user-2], "clear-signed before": "-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n" + a, "empty": "",
		"text":               "hello",
		"equals sign within": strings.Replace(a, "\n\n", "\n\n=\n", 1),
		"text in the block":  strings.Replace(a, "\n"+tail, "\nhello!\n"+tail, 1),
		"long line":          strings.Repeat("x", 30_000) + "\n" + a,
		"header twice":       strings.Replace(a, head, head+"\n"+head, 1),
	} {
		got, err := usable([]byte(file))
		if err != nil {
			continue // can't be told
		}
		told++
		if want := accepted(t, sigs, []byte(file)); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, gpg says %q", name, got, want)
		}
	}
	if told < 8 {
		t.Errorf("of %d files only it could be told", told)
	}
}

// TestSigners_unclear: what is not fully understood is not guessed at.
func TestSigners_unclear(t *testing.T) {
	home, err := fixture.NewGPG()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(home.Close)
	g := gnupg{t, home.Home()}
	export := func(name string, args ...string) []byte {
		g.run("", append([]string{day(0), "--quick-gen-key", name}, args...)...)
		return g.run("", "--export", name)
	}
	forged := bytes.Clone(export("forged@example.com", "ed25519", "sign", "10d"))
	life := bytes.Index(forged, []byte{5, 9, 0, 0x0d, 0x2f, 0}) // ten days, in a subpacket
	if life < 0 {
		t.Fatal("the key has no expiry where one is looked for")
	}
	forged[life+2] = 0x7f
	for name, file := range map[string][]byte{
		"a curve that is not known": export("curve@example.com", "secp256k1", "sign", "never"),
		"an expiry that is forged":  forged,
		"a revoker":                 nil,
	} {
		if name == "a revoker" {
			_ = export("revoked@example.com", "ed25519", "sign", "never")
			g.run(fmt.Sprintf("addrevoker\n%s\ny\nsave\n", g.newest("curve@example.com")), "--no-batch", "--command-fd", "0",
				"--edit-key", g.newest("revoked@example.com"))
			file = g.run("", "--export", "revoked@example.com")
		}
		if got, err := key.Signers([][]byte{file}, time.Now()); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
