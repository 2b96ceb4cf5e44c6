package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// TestWhichPolicy: on a host whose passwd says that root's home is elsewhere, all who read a host name the same
// policy.json as that which masks /etc's; and nobody takes /root for the home where passwd can't be read.
func TestWhichPolicy(t *testing.T) {
	const masking = "/home/admin/.config/containers/policy.json"
	host := t.TempDir()
	write := func(path, data string) {
		t.Helper()
		name := filepath.Join(host, path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const rejects = `{"default": [{"type": "reject"}]}`
	write("etc/passwd", "root:x:0:0:root:/home/admin:/bin/sh\n")
	write(masking, `{"default": [{"type": "insecureAcceptAnything"}]}`)
	write(trust.PolicyPath, rejects)
	other := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(other, []byte(rejects), 0o644); err != nil {
		t.Fatal(err)
	}

	agent := func() (paths []string) {
		root, err := os.OpenRoot(host)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		for _, d := range new(disk.Comparer).Compare(root, nil, nil) {
			paths = append(paths, string(d.Kind)+" "+d.Path)
		}
		return paths
	}
	readers := []struct {
		args []string
		// says is what the command tells of the policies, and of a passwd that can't be read; code is its exit status then.
		says, unread string
		code         int
	}{
		{
			[]string{"lint", "--root", host},
			masking + ": error: is read instead of " + trust.PolicyPath,
			"/etc/passwd: error: where root's home is can't be told", cli.ExitRefused,
		},
		{
			[]string{"explain", "--root", host, "--offline", "registry.example.com/a:1"},
			"policy        " + masking + "\n  masked      " + trust.PolicyPath,
			"finding root's home: read /etc/passwd", cli.ExitUsage,
		},
		{[]string{"diff", host, other}, "a: accept\n  b: reject", "/etc/passwd", cli.ExitUnknown},
	}
	say := func(args []string) (string, int) {
		var out bytes.Buffer
		code := run(t.Context(), args, strings.NewReader(""), &out, &out)
		return strings.ReplaceAll(out.String(), host, ""), code
	}
	for _, r := range readers {
		if got, _ := say(r.args); !strings.Contains(got, r.says) {
			t.Errorf("%s says\n%swithout %q", r.args[0], got, r.says)
		}
	}
	if got, want := strings.Join(agent(), "\n"), string(judge.Masks)+" "+masking; got != want {
		t.Errorf("the agent finds %q, not %q", got, want)
	}

	passwd := filepath.Join(host, "etc/passwd")
	if err := os.Remove(passwd); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(passwd, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, r := range readers {
		if got, code := say(r.args); !strings.Contains(got, r.unread) || code != r.code {
			t.Errorf("%s without a passwd that can be read: exit %d, says\n%swithout %q", r.args[0], code, got, r.unread)
		}
	}
	if got, want := strings.Join(agent(), "\n"), string(judge.Unreadable)+" /etc/passwd"; got != want {
		t.Errorf("the agent finds %q without a passwd that can be read, not %q", got, want)
	}
}

// TestWhichRegistriesConf: lint and explain read the drop-ins of registries.conf that the image library reads, in its
// order: by name, wherever they lie.
func TestWhichRegistriesConf(t *testing.T) {
	const policy = `{"default": [{"type": "reject"}], "transports": {"docker": {"registry.example.com": [
		{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/key"}]}}}`
	conf := func(location string) string {
		return "[[registry]]\nprefix = \"registry.example.com\"\nlocation = \"" + location + "\"\ninsecure = true\n"
	}
	host := t.TempDir()
	for path, data := range map[string]string{
		trust.PolicyPath: policy,
		"/etc/containers/registries.conf.d/10-a.conf":       conf("one.example.com"),
		"/usr/share/containers/registries.conf.d/20-a.conf": conf("two.example.com"),
	} {
		name := filepath.Join(host, path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"lint", "--root", host}, {"explain", "--root", host, "--offline", "registry.example.com/a:1"},
	} {
		var out bytes.Buffer
		run(t.Context(), args, strings.NewReader(""), &out, &out)
		if got := out.String(); strings.Contains(got, "one.example.com") || !strings.Contains(got, "two.example.com") {
			t.Errorf("%s goes by another file than 20-a.conf:\n%s", args[0], got)
		}
	}
}
