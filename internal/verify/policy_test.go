package verify

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/configuration"
)

func TestHost(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(content), 0o644))
	}
	reason := func() verdict.Reason {
		t.Helper()
		p, err := Open(Source{Root: root}, Env{})
		if err == nil {
			p.Close()
			return ""
		}
		var bad *InvalidError
		if !errors.As(err, &bad) {
			t.Fatal(err)
		}
		return bad.Reason
	}
	lookaside := func() verdict.Lookaside {
		t.Helper()
		p, err := Open(Source{Root: root}, Env{})
		check(t, err)
		defer p.Close()
		v, err := judgeImage(t.Context(), "h.example.com/x:1", "", p, Options{Offline: true})
		check(t, err)
		return *v.Lookaside
	}
	if r := reason(); r != verdict.PolicyInvalid {
		t.Errorf("without policy: %q", r)
	}
	write("/usr/share/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	write("/etc/containers/policy.json", `{"default":[{"type":"reject"}]}`)
	if l := lookaside(); l != (verdict.Lookaside{URL: "file:///var/lib/containers/sigstore/x"}) {
		t.Errorf("built-in default: %+v", l)
	}
	write("/usr/share/containers/registries.d/h.yaml", "docker: {h.example.com: {lookaside: https://vendor}}\n")
	if l := lookaside(); l != (verdict.Lookaside{
		URL:  "https://vendor/x",
		File: "/usr/share/containers/registries.d/h.yaml",
	}) {
		t.Errorf("vendor: %+v", l)
	}
	write("/etc/containers/registries.d/h.yaml", "docker: {h.example.com: {lookaside: https://etc/}}\n")
	if l := lookaside(); l != (verdict.Lookaside{URL: "https://etc//x", File: "/etc/containers/registries.d/h.yaml"}) {
		t.Errorf("etc: %+v", l)
	}
	write("/root/.config/containers/registries.d/z.yaml", "default-docker: {lookaside: https://user}\n")
	if l := lookaside(); l != (verdict.Lookaside{
		URL:  "https://user/x",
		File: "/root/.config/containers/registries.d/z.yaml",
	}) {
		t.Errorf("user: %+v", l)
	}
	write("/root/.config/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	p, err := Open(Source{Root: root}, Env{})
	check(t, err)
	p.Close()
	masked := []configuration.Masked{
		{Path: trust.PolicyPath, By: userPolicy},
		{Path: "/usr/share/containers/policy.json", By: userPolicy},
		{Path: trust.RegistriesDir + "/h.yaml", By: userRegistriesD},
		{Path: "/usr/share/containers/registries.d/h.yaml", By: userRegistriesD},
	}
	if p.File != userPolicy || !slices.Equal(p.Masked, masked) {
		t.Errorf("file %s masked %v", p.File, p.Masked)
	}
	write("/root/.config/containers/policy.json", `{`)
	if r := reason(); r != verdict.PolicyInvalid {
		t.Errorf("broken policy: %q", r)
	}
	check(t, os.Remove(filepath.Join(root, userPolicy)))
	write("/root/.config/containers/registries.d/y.yaml", "default-docker: {lookaside: https://other}\n")
	if r := reason(); r != verdict.RegistriesDInvalid {
		t.Errorf("two defaults: %q", r)
	}
	check(t, os.RemoveAll(filepath.Join(root, "root")))
	write("/etc/containers/registries.conf", "[[registry]]\nprefix = 1\n")
	if r := reason(); r != verdict.RegistriesDInvalid {
		t.Errorf("broken registries.conf: %q", r)
	}
}

// Where root's home is /root.
const (
	userPolicy      = "/root/.config/containers/policy.json"
	userRegistriesD = "/root/.config/containers/registries.d"
)

// TestLookup compares our lookup of the scope with the library's verdicts: every section but one rejects, and the
// library accepts exactly when that one is the section we found.
func TestLookup(t *testing.T) {
	scopes := []string{
		"h.example.com/a/b:v1", "h.example.com/a/b", "h.example.com/a", "h.example.com", "*.example.com", "*.com",
		"h.example.com:5000", "h.example.com:5000/a",
		"docker.io/library/busybox", "docker.io/library", "docker.io",
		"h.example.com/a/b@sha256:" + strings.Repeat("a", 64), "",
	}
	images := []struct{ image, name, matched string }{
		{"h.example.com/a/b:v1", "h.example.com/a/b:v1", "exact"},
		{"h.example.com/a/b:v2", "h.example.com/a/b", "repository"},
		{
			"h.example.com/a/b@sha256:" + strings.Repeat("a", 64),
			"h.example.com/a/b@sha256:" + strings.Repeat("a", 64), "exact",
		},
		{"h.example.com/a/b:v1@sha256:" + strings.Repeat("b", 64), "h.example.com/a/b", "repository"},
		{"h.example.com/a/c/d", "h.example.com/a", "namespace"},
		{"h.example.com/z", "h.example.com", "host"},
		{"h.example.com:5000/a/b", "h.example.com:5000/a", "namespace"},
		{"h.example.com:5001/a/b", "*.example.com", "wildcard"},
		{"x.y.com/a/b", "*.com", "wildcard"},
		{"busybox", "docker.io/library/busybox", "repository"},
		{"docker.io/other/thing", "docker.io", "host"},
		{"localhost:5000/x", "", "transport-default"},
	}
	for _, tt := range images {
		t.Run(tt.image, func(t *testing.T) {
			target, err := ParseImage(tt.image)
			check(t, err)
			// Remove the section that was found until only the default is left: each time the next must be right too.
			left := append([]string{}, scopes...)
			for first := true; ; first = false {
				found := lookupIn(t, left, target.Logical)
				if first && (found.Name != tt.name || found.Matched != tt.matched) {
					t.Fatalf("found %+v, want %q %q", found, tt.name, tt.matched)
				}
				if !libraryUses(t, left, found, target.Logical) {
					t.Fatalf("with %q the library does not use %+v", left, found)
				}
				if found.Matched == "default" {
					return
				}
				for i, s := range left {
					if s == found.Name {
						left = append(left[:i:i], left[i+1:]...)
						break
					}
				}
			}
		})
	}
}

func policyOf(scopes []string, accept func(string, bool) bool) string {
	req := func(ok bool) string {
		if ok {
			return `[{"type":"insecureAcceptAnything"}]`
		}
		return `[{"type":"reject"}]`
	}
	var sections []string
	for _, s := range scopes {
		sections = append(sections, quote(s)+":"+req(accept(s, false)))
	}
	return `{"default":` + req(accept("", true)) + `,"transports":{"docker":{` + strings.Join(sections, ",") + `}}}`
}

func lookupIn(t *testing.T, scopes []string, ref types.ImageReference) verdict.Scope {
	t.Helper()
	p, err := Open(Source{Files: trust.FileSet{
		{Path: trust.PolicyPath, Data: []byte(policyOf(scopes, func(string, bool) bool { return false }))},
	}}, Env{})
	check(t, err)
	defer p.Close()
	s, err := p.Section(ref)
	check(t, err)
	return s.Scope
}

// unsigned is an image without signatures, of which only the reference counts.
type unsigned struct{ types.ImageReference }

func (u unsigned) Reference() types.ImageReference { return u.ImageReference }

func (u unsigned) Manifest(context.Context) ([]byte, string, error) { return []byte("{}"), "", nil }

func (u unsigned) Signatures(context.Context) ([][]byte, error) { return nil, nil }

func libraryUses(t *testing.T, scopes []string, found verdict.Scope, ref types.ImageReference) bool {
	t.Helper()
	text := policyOf(scopes, func(s string, def bool) bool {
		return def == (found.Matched == "default") && (def || s == found.Name)
	})
	policy, err := signature.NewPolicyFromBytes([]byte(text))
	check(t, err)
	pc, err := signature.NewPolicyContext(policy)
	check(t, err)
	defer func() { check(t, pc.Destroy()) }()
	ok, _ := pc.IsRunningImageAllowed(t.Context(), unsigned{ref})
	return ok
}

func TestImage_index(t *testing.T) {
	w := newWorld(t)
	p := w.policy(signedBy(w.key))
	index, instances, err := w.registry.PushIndex("team/multi", "v1", "m", "amd64", "arm64")
	check(t, err)
	image := w.ref("team/multi:v1")
	w.sign(w.key, "team/multi", index, image, 1)
	v := w.judge(p, image)
	w.want(v, verdict.Refuse, verdict.NoSignature)
	if v.Index != index || v.Digest != instances[0] || !strings.Contains(v.Message, "the image index is signed") {
		t.Errorf("%+v", v)
	}
	w.sign(w.key, "team/multi", instances[0], image, 1)
	w.want(w.judge(p, image), verdict.Accept, "")
	w.want(w.judge(p, w.ref("team/multi@"+index)), verdict.Accept, "")
	w.want(w.judge(p, w.ref("team/multi@"+instances[0])), verdict.Accept, "")
	arm := Options{Platform: "linux/arm64"}
	v = w.judgeWith(p, image, arm)
	w.want(v, verdict.Refuse, verdict.NoSignature)
	if v.Digest != instances[1] {
		t.Errorf("digest %s, want %s", v.Digest, instances[1])
	}
	// Several signatures of an instance are judged alone, each.
	other, err := w.gpg.NewKey("other", fixture.KeyOptions{})
	check(t, err)
	w.sign(other, "team/multi", instances[1], image, 1)
	w.sign(w.key, "team/multi", instances[1], image, 2)
	w.want(w.judgeWith(p, image, arm), verdict.Accept, "")
	w.want(w.judgeWith(p, w.ref("team/multi@"+index), arm), verdict.Accept, "")
	w.want(w.judgeWith(p, image, Options{Platform: "linux/s390x"}), verdict.Unknown, verdict.ImageNotFound)
}

// TestRegistriesConf_broken: the error names the file that is broken, not the copy that the library reads.
func TestRegistriesConf_broken(t *testing.T) {
	const broken = "[[registry]]\nprefix = 1\n"
	w := newWorld(t)
	policy := w.write("policy.json", `{"default":[{"type":"reject"}]}`)
	mine := w.write("mine.conf", broken)
	check(t, os.MkdirAll(w.path("root/etc/containers/registries.conf.d"), 0o755))
	w.write("root/etc/containers/registries.conf.d/mine.conf", broken)
	for name, s := range map[string]Source{
		mine: {RegistriesConf: mine},
		"/etc/containers/registries.conf.d/mine.conf": {Root: w.path("root")},
	} {
		_, err := openFiles(policy, nil, s)
		if err == nil || !strings.Contains(err.Error(), quote(name)) || strings.Contains(err.Error(), "registries.conf\"") {
			t.Errorf("got %v, want %s named", err, name)
		}
	}
}

// Policy and identity go by the name asked for, the lookaside by the mirror that served the image.
func TestImage_mirror(t *testing.T) {
	w := newWorld(t)
	mirror, err := fixture.NewRegistry("127.0.0.1:0")
	check(t, err)
	defer mirror.Stop()
	d, err := mirror.Push("copy/app", "v1", "mirrored")
	check(t, err)
	conf := w.write("registries.conf", `additional-layer-store-auth-helper = "/bin/false"
credential-helpers = ["evil"]
[[registry]]
prefix = "quay.example.com/team"
location = "quay.example.com/team"
[[registry.mirror]]
location = "`+w.registry.Host+`/absent"
insecure = true
[[registry.mirror]]
location = "`+mirror.Host+`/copy"
insecure = true
`)
	check(t, os.MkdirAll(w.path("registries.d"), 0o755))
	w.write("registries.d/mirror.yaml", "docker:\n  "+mirror.Host+":\n    lookaside: "+w.lookaside.URL()+"/mirror\n")
	policy := w.write("policy.json", `{"default":[{"type":"reject"}],"transports":{"docker":{"quay.example.com":[`+
		signedBy(w.key)+`]}}}`)
	sig, err := w.key.Sign(d, "quay.example.com/team/app:v1")
	check(t, err)
	check(t, w.lookaside.Put("mirror/copy/app", d, 1, sig))
	p, err := openFiles(policy, []string{w.path("registries.d")}, Source{RegistriesConf: conf})
	check(t, err)
	defer p.Close()
	v := w.judge(p, "quay.example.com/team/app:v1")
	w.want(v, verdict.Accept, "")
	if v.Scope.Name != "quay.example.com" || v.Lookaside.URL != w.lookaside.URL()+"/mirror/copy/app" {
		t.Errorf("scope %+v lookaside %+v", v.Scope, v.Lookaside)
	}
	if s := v.Requirements[0].Signatures[0]; s.Source != w.lookaside.URL()+"/mirror/copy/app@sha256="+d[7:]+
		"/signature-1" {
		t.Errorf("source %s", s.Source)
	}
}

func TestImage_dir(t *testing.T) {
	w := newWorld(t)
	img, err := fixture.Image("dir", "amd64")
	check(t, err)
	blob, err := img.RawManifest()
	check(t, err)
	hash, err := img.Digest()
	check(t, err)
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "manifest.json"), blob, 0o644))
	sig, err := w.key.Sign(hash.String(), "quay.io/corp/app:v1")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "signature-1"), sig, 0o644))
	p := w.policyText(`{"default":[{"type":"reject"}],"transports":{"docker":{"quay.io/corp":[` + signedBy(w.key) +
		`]},"dir":{` + quote(dir) + `:[` +
		signedBy(w.key, `"signedIdentity":{"type":"exactReference","dockerReference":"quay.io/corp/app:v1"}`) + `]}}}`)
	as := func(s string) verdict.Verdict {
		t.Helper()
		return w.judgeAs(p, "dir:"+dir, s)
	}
	v := as("quay.io/corp/app:v1")
	w.want(v, verdict.Accept, "")
	if v.Image != "dir:"+dir || v.Digest != hash.String() || v.Scope.Name != "quay.io/corp" ||
		v.Requirements[0].Signatures[0].Source != filepath.Join(dir, "signature-1") {
		t.Errorf("%+v", v)
	}
	w.want(as("quay.io/corp/app:latest"), verdict.Refuse, verdict.WrongIdentity)
	w.want(as("quay.io/corp/app@"+hash.String()), verdict.Accept, "")
	w.want(as("quay.io/corp/app@sha256:"+strings.Repeat("0", 64)), verdict.Unknown, verdict.ImageNotFound)
	w.want(as("quay.io/other:v1"), verdict.Refuse, verdict.RejectedByPolicy)
	v = as("")
	w.want(v, verdict.Accept, "")
	if s := *v.Scope; s != (verdict.Scope{Transport: "dir", Name: dir, Matched: "exact"}) {
		t.Errorf("scope %+v", s)
	}
	// Two signatures: the library's directory source and ours for one signature agree.
	check(t, os.Rename(filepath.Join(dir, "signature-1"), filepath.Join(dir, "signature-2")))
	wrong, err := w.key.Sign(hash.String(), "quay.io/corp/other:v1")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "signature-1"), wrong, 0o644))
	w.want(as("quay.io/corp/app:v1"), verdict.Accept, "")
	w.want(as("quay.io/corp/app:latest"), verdict.Refuse, verdict.WrongIdentity)

	w.want(w.judgeAs(p, "dir:"+filepath.Join(dir, "none"), "quay.io/corp/app:v1"), verdict.Unknown,
		verdict.ImageNotFound)
	check(t, os.WriteFile(filepath.Join(dir, "manifest.json"), append(blob, '\n'), 0o644))
	w.want(as("quay.io/corp/app:v1"), verdict.Refuse, verdict.WrongDigest)
	for i := range MaxSignatures + 1 {
		check(t, os.WriteFile(filepath.Join(dir, "signature-"+itoa(i+1)), sig, 0o644))
	}
	w.want(as("quay.io/corp/app:v1"), verdict.Unknown, verdict.LookasideNotSignature)
	if _, err := directory.NewReference(dir); err != nil {
		t.Error(err)
	}
}

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct {
		image, as string
		ok        bool
	}{
		{"quay.io/a/b", "", true},
		{"docker://quay.io/a/b:v1", "", true},
		{"busybox", "", true},
		{"quay.io/a/b:v1@sha256:" + strings.Repeat("a", 64), "", true},
		{"dir:/x", "", true},
		{"dir:/x", "quay.io/a/b", true},
		{"dir:", "", false},
		{"dir:/x", "Quay.io/A", false},
		{"quay.io/a/b", "quay.io/c", false},
		{"", "", false},
		{"docker://", "", false},
		{"https://quay.io/a/b", "", false},
		{"quay.io/A", "", false},
		{"quay.io/a/b@sha256:12", "", false},
		{"oci:/x", "", true},
		{"oci:/x:v1", "quay.io/a/b", true},
		{"oci:/x:@1", "", true},
		{"oci:", "", false},
		{"oci:/x:@-1", "", false},
		{"oci:/x", "Quay.io/A", false},
		{"oci-archive:/x", "", false},
		{"quay.io/a/b:", "", false},
		{"../x", "", false},
	} {
		if _, err := parseAs(tt.image, tt.as); (err == nil) != tt.ok {
			t.Errorf("%q as %q: %v", tt.image, tt.as, err)
		}
	}
}
