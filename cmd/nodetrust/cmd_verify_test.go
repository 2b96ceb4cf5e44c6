package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TestVerify_exit runs verify, explain and verify-signature against a real registry: exit status and JSON.
func TestVerify_exit(t *testing.T) {
	p := fixture.Parts{TB: t}
	must := p.Must
	key := p.Key(p.GPG(), "signer", fixture.KeyOptions{})
	dir := t.TempDir()
	registry, lookaside := p.Registry(), p.Lookaside(filepath.Join(dir, "sigs"))
	digest := p.Push(registry, "team/app", "v1", "one")
	image := registry.Host + "/team/app"
	sig, err := key.Sign(digest, image+":v1")
	must(err)
	must(lookaside.Put("team/app", digest, 1, sig))
	p.Push(registry, "team/app", "unsigned", "two")
	write := func(name, content string) string { return p.Write(filepath.Join(dir, name), []byte(content)) }
	requirement := fmt.Sprintf(`{"type":"signedBy","keyType":"GPGKeys","keyData":%q}`,
		base64.StdEncoding.EncodeToString(key.Binary))
	write("host/etc/containers/policy.json", fmt.Sprintf(
		`{"default":[{"type":"reject"}],"transports":{"docker":{%q:[%s]}}}`, registry.Host, requirement))
	write("host/etc/containers/registries.d/lab.yaml",
		fmt.Sprintf("docker: {%q: {lookaside: %q}}\n", registry.Host, lookaside.URL()))
	write("host/etc/containers/registries.conf", fixture.Insecure(registry.Host))
	host := filepath.Join(dir, "host")
	trust := write("trust.yaml", fmt.Sprintf(`apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: lab}
spec:
  pools: [worker]
  default: reject
  keys:
  - name: corp
    file: corp.asc
  registries:
  - scope: %q
    require:
    - signedBy: [corp]
    lookaside: %s
`, registry.Host, lookaside.URL()))
	write("corp.asc", string(key.Armored))
	signature := write("signature-1", string(sig))

	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		answer verdict.Answer
		reason verdict.Reason
	}{
		{"accept", []string{"verify", "--root", host, image + ":v1"}, 0, verdict.Accept, ""},
		{
			"refuse",
			[]string{"verify", "--root", host, "docker://" + image + ":unsigned"},
			3, verdict.Refuse,
			verdict.NoSignature,
		},
		{"unknown", []string{"verify", "--root", host, image + ":none"}, 4, verdict.Unknown, verdict.ImageNotFound},
		{"explain accept", []string{"explain", "--root", host, image + ":v1"}, 0, verdict.Accept, ""},
		{"explain refuse", []string{"explain", "--root", host, image + ":unsigned"}, 3, verdict.Refuse, verdict.NoSignature},
		{
			"explain offline",
			[]string{"explain", "--offline", "--root", host, image + ":v1"},
			4, verdict.Unknown,
			verdict.NotAsked,
		},
		{"trust config", []string{"verify", "--config", trust, "--tls-verify=false", image + ":v1"}, 0, verdict.Accept, ""},
		{
			"trust config, with TLS",
			[]string{"verify", "--config", trust, "--tls-verify", image + ":v1"},
			4, verdict.Unknown,
			verdict.RegistryUnreachable,
		},
		{"signature", []string{
			"verify-signature", "--key", filepath.Join(dir, "corp.asc"), "--digest", digest, "--reference",
			image + ":v1", signature,
		}, 0, verdict.Accept, ""},
		{"signature of the repository", []string{
			"verify-signature", "--key", filepath.Join(dir, "corp.asc"), "--reference",
			image + ":v2", "--identity", "matchRepository", signature,
		}, 0, verdict.Accept, ""},
		{"signature of another", []string{
			"verify-signature", "--key", filepath.Join(dir, "corp.asc"), "--reference",
			image + ":v2", signature,
		}, 3, verdict.Refuse, verdict.WrongIdentity},
		{"expected identity", []string{
			"verify-signature", "--key", filepath.Join(dir, "corp.asc"), "--expected-identity",
			image + ":v1", signature,
		}, 0, verdict.Accept, ""},
		{"expected identity by digest", []string{
			"verify-signature", "--key", filepath.Join(dir, "corp.asc"),
			"--expected-identity", image + "@" + digest, signature,
		}, 3, verdict.Refuse, verdict.WrongIdentity},
		{
			"expected identity by another rule",
			[]string{
				"verify-signature", "--key", filepath.Join(dir, "corp.asc"),
				"--expected-identity", image + "@" + digest, "--identity", "matchRepoDigestOrExact", signature,
			},
			0,
			verdict.Accept, "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append(tt.args, "-o", "json"), strings.NewReader(""), &stdout, &stderr)
			var v struct {
				Verdict verdict.Answer
				Reason  *verdict.Reason
				Message string
			}
			if err := json.Unmarshal(stdout.Bytes(), &v); err != nil {
				t.Fatalf("%v: %s %s", err, &stdout, &stderr)
			}
			if code != tt.code || v.Verdict != tt.answer || v.Reason == nil || *v.Reason != tt.reason || stderr.Len() > 0 {
				t.Errorf("exit status %d, want %d\n%s%s", code, tt.code, &stdout, &stderr)
			}
			stdout.Reset()
			if code := run(t.Context(), tt.args, strings.NewReader(""), &stdout, &stderr); code != tt.code ||
				!strings.Contains(stdout.String(), string(tt.answer)+" ") || !strings.Contains(stdout.String(), v.Message) {
				t.Errorf("text: exit status %d\n%s%s", code, &stdout, &stderr)
			}
		})
	}
}

// TestVerify_noTemporaryDirectory is a failure of the operation: neither bad usage, nor a verdict.
func TestVerify_noTemporaryDirectory(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"reject"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	for _, args := range [][]string{{"verify"}, {"explain", "--offline"}, {"audit", "--no-cache", "--images-from", "-"}} {
		var out, errs bytes.Buffer
		args = append(args, "--policy", policy)
		if args[0] != "audit" {
			args = append(args, "127.0.0.1:1/app:v1")
		}
		if code := run(t.Context(), args, strings.NewReader("127.0.0.1:1/app:v1\n"), &out, &errs); code != cli.ExitFailed {
			t.Errorf("%v: exit status %d, %s", args, code, errs.String())
		}
		if !strings.Contains(errs.String(), "making a temporary directory") || out.Len() > 0 {
			t.Errorf("%v: stdout %q, stderr %q", args, out.String(), errs.String())
		}
	}
}
