package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// auditWorld is a registry with a mirror and a lookaside, keys, and a trust config that asks for signatures of one.
type auditWorld struct {
	*testing.T
	dir              string
	registry, mirror *fixture.Registry
	lookaside        *fixture.Lookaside
	corp, other      *fixture.Key
	canary           string // a reference that the config carves out
	args             []string
}

func newAuditWorld(t *testing.T) *auditWorld {
	p := fixture.Parts{TB: t}
	w := &auditWorld{T: t, dir: t.TempDir(), registry: p.Registry(), mirror: p.Registry()}
	gpg := p.GPG()
	w.corp, w.other = p.Key(gpg, "corp", fixture.KeyOptions{Algo: "rsa2048"}),
		p.Key(gpg, "other", fixture.KeyOptions{Algo: "rsa2048"})
	w.lookaside = p.Lookaside(filepath.Join(w.dir, "sigs"))
	digest := w.push("team/canary", "v1", w.corp)
	w.canary = w.registry.Host + "/team/canary@" + digest
	w.write("corp.asc", string(w.corp.Armored))
	config := w.write("trust.yaml", fmt.Sprintf(`apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: lab}
spec:
  pools: [worker]
  default: reject
  keys:
  - {name: corp, file: corp.asc}
  registries:
  - scope: %[1]q
    require: [{signedBy: [corp]}]
    lookaside: %[2]s
  - scope: corp.example/app
    require: [{signedBy: [corp]}]
    lookaside: https://signatures.corp.example
    mirrors:
    - {location: %[3]q, lookaside: %[2]s}
  - scope: %[5]q
    require: [{signedBy: [corp]}]
  - scope: 127.0.0.1:1
    require: accept
    because: nobody listens there
  canaries:
  - {image: %[4]q, expect: refuse}
`, w.registry.Host, w.lookaside.URL(), w.mirror.Host+"/copies", w.canary, w.mirror.Host))
	conf := w.write("registries.conf", fmt.Sprintf(`[[registry]]
prefix = "corp.example/app"
location = "corp.example/app"
[[registry.mirror]]
location = %q
insecure = true
`, w.mirror.Host+"/copies"))
	w.args = []string{
		"audit", "--config", config, "--registries-conf", conf, "--tls-verify=false", "--cache-dir",
		filepath.Join(w.dir, "cache"), "--images-from", "-",
	}
	return w
}

func (w *auditWorld) must(err error) {
	w.Helper()
	fixture.Parts{TB: w.T}.Must(err)
}

func (w *auditWorld) write(name, content string) string {
	return fixture.Parts{TB: w.T}.Write(filepath.Join(w.dir, name), []byte(content))
}

// push stores an image and, with a key, its signature.
func (w *auditWorld) push(repo, tag string, key *fixture.Key) string {
	w.Helper()
	digest := fixture.Parts{TB: w.T}.Push(w.registry, repo, tag, repo+tag)
	if key != nil {
		w.sign(repo, digest, w.registry.Host+"/"+repo+":"+tag, key)
	}
	return digest
}

func (w *auditWorld) sign(repo, digest, reference string, key *fixture.Key) {
	w.Helper()
	fixture.Parts{TB: w.T}.Sign(w.lookaside, key, repo, digest, reference, 1)
}

// audit runs with a list on stdin and more arguments, and returns the report by image.
func (w *auditWorld) audit(list string, args ...string) (code int, r audit.Report, byImage map[string]audit.Image,
	stderr string,
) {
	w.Helper()
	var out, errs bytes.Buffer
	code = run(w.Context(), append(slices.Concat(w.args, []string{"-o", "json"}), args...), strings.NewReader(list),
		&out, &errs)
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		w.Fatalf("exit status %d: %v\n%s%s", code, err, &out, &errs)
	}
	byImage = map[string]audit.Image{}
	for _, m := range r.Images {
		byImage[m.Image] = m
	}
	return code, r, byImage, errs.String()
}

// manifests is how many were read since the last call, attached signatures left aside.
func (w *auditWorld) manifests() (n int) {
	for _, r := range w.registry.Requests() {
		if _, name, ok := strings.Cut(r, "/manifests/"); ok && !strings.HasPrefix(name, "sha256-") {
			n++
		}
	}
	return n
}

// TestAudit judges what a cluster may hold, each kind once, and looks at what an admin and a program see.
func TestAudit(t *testing.T) {
	w := newAuditWorld(t)
	host := w.registry.Host
	signed := w.push("team/app", "v1", w.corp)
	w.push("team/app", "unsigned", nil)
	w.push("team/wrong", "v1", w.other)
	for _, repo := range []string{"nosigs/one", "nosigs/two"} {
		_, err := w.mirror.Push(repo, "v1", repo)
		w.must(err)
	}
	nosigs := w.mirror.Host + "/nosigs"
	mirrored, err := w.mirror.Push("copies", "v1", "mirrored")
	w.must(err)
	w.sign("copies", mirrored, "corp.example/app:v1", w.corp)
	_, instances, err := w.registry.PushIndex("team/multi", "v1", "m", "amd64", "arm64")
	w.must(err)
	w.sign("team/multi", instances[0], host+"/team/multi:v1", w.corp)
	w.registry.Requests()

	list := strings.Join([]string{
		"# what runs",
		host + "/team/app:v1 by=web/deployment/app@n1 digest=" + signed,
		host + "/team/app:v1 by=web/deployment/app@n2",
		"docker://" + host + "/team/app:v1 by=web/deployment/app@n2",
		host + "/team/app@" + signed + " by=kube-system/staticpod/etcd@n1 role=control-plane",
		host + "/team/app:unsigned by=web/deployment/new@n1",
		host + "/team/wrong:v1 role=pause by=cri@n1",
		nosigs + "/one:v1", nosigs + "/two:v1",
		"corp.example/app:v1",
		host + "/team/multi:v1",
		"127.0.0.1:1/dead/app:v1",
		"127.0.0.1:1/x/y:v1 role=agent",
		w.canary + " by=web/deployment/canary@n1",
		"",
	}, "\r\n")
	code, r, images, stderr := w.audit(list, "--platform", "linux/amd64")
	if code != cli.ExitRefused || stderr != "" {
		t.Errorf("exit status %d, stderr %s", code, stderr)
	}
	for image, want := range map[string]struct {
		answer verdict.Answer
		reason verdict.Reason
		usedBy int
	}{
		host + "/team/app:v1":        {verdict.Accept, "", 2},
		host + "/team/app@" + signed: {verdict.Accept, "", 1},
		host + "/team/app:unsigned":  {verdict.Refuse, verdict.NoSignature, 1},
		host + "/team/wrong:v1":      {verdict.Refuse, verdict.WrongKey, 1},
		nosigs + "/one:v1":           {verdict.Refuse, verdict.NoSignature, 1},
		nosigs + "/two:v1":           {verdict.Refuse, verdict.NoSignature, 1},
		"corp.example/app:v1":        {verdict.Accept, "", 1},
		host + "/team/multi:v1":      {verdict.Accept, "", 1},
		"127.0.0.1:1/dead/app:v1":    {verdict.Unknown, verdict.RegistryUnreachable, 1},
		"127.0.0.1:1/x/y:v1":         {verdict.Unknown, verdict.RegistryUnreachable, 1},
		w.canary:                     {verdict.Refuse, verdict.WrongKey, 1},
	} {
		m, ok := images[image]
		if !ok || m.Answer != want.answer || m.Reason != want.reason || len(m.UsedBy) != want.usedBy {
			t.Errorf("%s: %s %s %v", image, m.Answer, m.Reason, m.UsedBy)
		}
	}
	s := r.Summary
	if s.Images != 11 || s.Accept != 4 || s.Refuse != 5 || s.Unknown != 2 || !s.Complete || s.Uses != 12 ||
		s.Desired == "" || s.Mechanism == "" {
		t.Errorf("summary: %+v", s)
	}
	if l := s.Lockout; len(l) != 2 || l[0].Role != audit.Pause || l[0].Answer != verdict.Refuse ||
		l[1].Role != audit.Agent || l[1].Answer != verdict.Unknown {
		t.Errorf("lockout: %+v", s.Lockout)
	}
	if r.Images[0].Image != host+"/team/wrong:v1" {
		t.Errorf("the first image is %s, not what locks out", r.Images[0].Image)
	}
	if !images[w.canary].Canary || images[host+"/team/wrong:v1"].Canary {
		t.Error("canary in use is not told")
	}
	fix := images[nosigs+"/one:v1"].Fix
	i := slices.IndexFunc(s.Fixes, func(f audit.Fix) bool { return f.ID == fix })
	if i < 0 || s.Fixes[i].Images != 2 || !strings.Contains(s.Fixes[i].Title, nosigs) ||
		images[nosigs+"/two:v1"].Fix != fix {
		t.Errorf("fixes: %+v", s.Fixes)
	}

	var out, errs bytes.Buffer
	run(t.Context(), slices.Concat(w.args, []string{"--platform", "linux/amd64"}), strings.NewReader(list), &out, &errs)
	text := out.String()
	for _, want := range []string{
		"11 images: 4 accepted because of a signature, 0 because nobody asks for one, 5 would be refused, 2 could not be judged\n", "LOCKOUT: ", "could be a LOCKOUT: ",
		"2 images need a lookaside for " + nosigs, "web/deployment/new@n1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text doesn't say %q", want)
		}
	}
	if s.Signed != 4 || s.Unsigned != 0 || s.RequireSigned {
		t.Errorf("coverage: %+v", s)
	}
	if strings.Index(text, "LOCKOUT") > strings.Index(text, "refuse: ") || strings.Contains(text, "\x1b") {
		t.Errorf("what locks out is not first, or colours in no terminal:\n%s", text)
	}
}

// TestAudit_exit: 3, 4 and 0, and bad input.
func TestAudit_exit(t *testing.T) {
	w := newAuditWorld(t)
	w.push("team/app", "v1", w.corp)
	good := w.registry.Host + "/team/app:v1\n"
	if code, _, _, stderr := w.audit(good); code != cli.ExitOK || stderr != "" {
		t.Errorf("accepted: exit status %d: %s", code, stderr)
	}
	if code, _, _, _ := w.audit(good + "127.0.0.1:1/dead/app:v1"); code != cli.ExitUnknown {
		t.Errorf("unknown: exit status %d", code)
	}
	if code, _, _, _ := w.audit(good + "127.0.0.1:2/a:v1\n" + w.canary); code != cli.ExitRefused {
		t.Errorf("refused and unknown: exit status %d", code)
	}
	broken := w.write("broken.json", "{")
	w.args = []string{"audit", "--policy", broken, "--images-from", "-"}
	if code, r, images, _ := w.audit(good); code != cli.ExitUnknown || r.Summary.Unknown != 1 ||
		images[strings.TrimSpace(good)].Reason != verdict.PolicyInvalid {
		t.Errorf("a policy that doesn't load: exit status %d: %+v", code, r)
	}
	if n := len(w.lookaside.Requests()); n == 0 {
		t.Error("the lookaside was never asked")
	}
}

// TestAudit_once: requests of an audit, of the next one, and of one after something changed.
func TestAudit_once(t *testing.T) {
	w := newAuditWorld(t)
	host := w.registry.Host
	signed := w.push("team/app", "v1", w.corp)
	w.push("team/app", "unsigned", nil)
	byDigest := host + "/team/app@" + signed
	_, instances, err := w.registry.PushIndex("team/multi", "v1", "m", "amd64", "arm64")
	w.must(err)
	for _, d := range instances {
		w.sign("team/multi", d, host+"/team/multi:v1", w.corp)
	}
	list := ""
	for i := range 40 {
		list += fmt.Sprintf("%[1]s by=pod%[2]d\n%[3]s/team/app:unsigned\n%[3]s/team/app:v1\n%[3]s/team/multi:v1\n",
			byDigest, i, host)
	}
	w.manifests()
	if code, r, _, _ := w.audit(list); code != cli.ExitRefused || r.Summary.Images != 4 || r.Summary.Cached != 0 {
		t.Fatalf("exit status %d: %+v", code, r.Summary)
	}
	if n := w.manifests(); n > 5 {
		t.Errorf("%d manifests read for 4 references, one of them of an index", n)
	}
	w.lookaside.Requests()
	code, r, images, _ := w.audit(list)
	if code != cli.ExitRefused || r.Summary.Cached != 3 || !images[byDigest].Cached ||
		!images[host+"/team/app:v1"].Cached ||
		images[host+"/team/app:unsigned"].Cached {
		t.Errorf("second audit: exit status %d: %+v", code, r.Summary)
	}
	if n := w.manifests(); n > 3 {
		t.Errorf("second audit: %d manifests read: one for each tag that was accepted, one for what was refused", n)
	}

	// What was missing is there now: no refusal outlives its cause.
	unsigned := images[host+"/team/app:unsigned"].Digest
	w.sign("team/app", unsigned, host+"/team/app:unsigned", w.corp)
	if code, _, _, _ := w.audit(list); code != cli.ExitOK {
		t.Errorf("after signing: exit status %d", code)
	}
	// A tag is moved to an image that nobody signed.
	_, err = w.registry.Push("team/app", "v1", "evil")
	w.must(err)
	code, _, images, _ = w.audit(list + host + "/team/app:v1 digest=" + signed)
	if m := images[host+"/team/app:v1"]; code != cli.ExitRefused || m.Answer != verdict.Refuse ||
		!slices.Equal(m.InUse, []string{signed}) {
		t.Errorf("after the tag was moved: exit status %d: %+v", code, m)
	}
	// Another key: nothing of what was kept counts.
	w.write("corp.asc", string(w.other.Armored))
	if code, r, images, _ := w.audit(byDigest); code != cli.ExitRefused || r.Summary.Cached != 0 ||
		images[byDigest].Reason != verdict.WrongKey {
		t.Errorf("after another key: exit status %d: %+v", code, r)
	}
	w.write("corp.asc", string(w.corp.Armored))
	if _, r, _, _ := w.audit(byDigest); r.Summary.Cached != 1 {
		t.Errorf("with the old key again: %+v", r.Summary)
	}
	w.args = append(w.args, "--cache-age", "1h", "--platform", "linux/arm64")
	if _, r, _, _ := w.audit(byDigest); r.Summary.Cached != 0 {
		t.Errorf("for another platform: %+v", r.Summary)
	}
}

// TestAudit_limited: a registry that asks for a pause gets it, and all is judged.
func TestAudit_limited(t *testing.T) {
	w := newAuditWorld(t)
	w.push("team/app", "v1", w.corp)
	refused := 0
	w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") && refused == 0 {
			refused++
			rw.Header().Set("Retry-After", "1")
			rw.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.registry.Serve(rw, r)
	})
	if code, r, _, _ := w.audit(w.registry.Host + "/team/app:v1"); code != cli.ExitOK || refused != 1 {
		t.Errorf("exit status %d after %d answers 429: %+v", code, refused, r)
	}
}

// TestAudit_interrupted: what was judged before ^C is reported and kept, and the next audit goes on there.
func TestAudit_interrupted(t *testing.T) {
	w := newAuditWorld(t)
	const n = 12
	list := ""
	for i := range n {
		digest := w.push("team/app", fmt.Sprint("v", i), w.corp)
		list += w.registry.Host + "/team/app@" + digest + "\n"
	}
	refused := w.push("team/app", "unsigned", nil)
	list = w.registry.Host + "/team/app@" + refused + "\n" + list
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked atomic.Int32
	w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") && asked.Add(1) > n/2 {
			cancel()
			<-r.Context().Done()
			return
		}
		w.registry.Serve(rw, r)
	})
	var out, errs bytes.Buffer
	code := run(ctx, slices.Concat(w.args, []string{"--per-host", "1", "-o", "json"}), strings.NewReader(list),
		&out, &errs)
	var r audit.Report
	w.must(json.Unmarshal(out.Bytes(), &r))
	s := r.Summary
	if s.Complete || len(s.Problems) != 1 || s.Images != n+1 || s.Accept == 0 || s.Unknown == 0 ||
		s.Accept+s.Refuse+s.Unknown != n+1 {
		t.Errorf("interrupted: %+v", s)
	}
	if want := map[bool]int{true: cli.ExitRefused, false: cli.ExitUnknown}[s.Refuse > 0]; code != want {
		t.Errorf("interrupted: exit status %d with %d refused", code, s.Refuse)
	}
	judged := s.Accept + s.Refuse
	want := []string{} // what is left
	for _, m := range r.Images {
		if m.Interrupted {
			_, d, _ := strings.Cut(m.Image, "@")
			want = append(want, d)
		}
		if m.Interrupted != (m.Answer == verdict.Unknown) {
			t.Errorf("interrupted: %s is %s, interrupted %t", m.Image, m.Answer, m.Interrupted)
		}
	}

	w.registry.Fault(nil)
	w.registry.Requests()
	code, r, _, _ = w.audit(list)
	if code != cli.ExitRefused || !r.Summary.Complete || r.Summary.Cached != judged || r.Summary.Accept != n ||
		r.Summary.Refuse != 1 {
		t.Errorf("after %d judged: exit status %d: %+v", judged, code, r.Summary)
	}
	// Each of them is read once or, where that goes wrong, again by the library: how often is the machine's business.
	got := []string{}
	for _, r := range w.registry.Requests() {
		if _, d, ok := strings.Cut(r, "/manifests/"); ok && strings.HasPrefix(d, "sha256:") {
			got = append(got, d)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("read %q, left were %q", got, want)
	}
}

// TestAudit_release: a verified release vouches for what has no signature of its own. That changes no answer:
// runtimes know nothing of releases.
func TestAudit_release(t *testing.T) {
	w := newAuditWorld(t)
	host := w.registry.Host
	etcd := w.push("ocp/payload", "etcd", nil)
	image := host + "/ocp/payload@" + etcd
	release := host + "/ocp/release@" + pushRelease(fixture.Parts{TB: t}, w.registry, image, w.corp,
		filepath.Join(w.dir, "store"))
	list := image + "\n" + w.canary
	vouch := []string{
		"--platform", "linux/amd64", "--release", release, "--release-key", filepath.Join(w.dir, "corp.asc"),
		"--store", filepath.Join(w.dir, "store"),
	}

	code, r, images, stderr := w.audit(list, vouch...)
	m := images[image]
	if code != cli.ExitRefused || m.Answer != verdict.Refuse || m.Role != audit.Release || m.VouchedBy != release ||
		!strings.Contains(m.Hint, "--to-policy") || stderr != "" {
		t.Errorf("refused: exit status %d, %+v\n%s", code, m, stderr)
	}
	if len(r.Summary.Lockout) != 1 || images[w.canary].VouchedBy != "" || len(r.Summary.Releases) != 1 ||
		r.Summary.Releases[0].Answer != verdict.Accept {
		t.Errorf("summary: %+v", r.Summary)
	}

	accept := w.write("accept.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	w.args = []string{"audit", "--policy", accept, "--tls-verify=false", "--no-cache", "--images-from", "-"}
	code, r, images, _ = w.audit(list, vouch...)
	if code != cli.ExitOK || images[image].Reason != verdict.TrustedByRelease || images[w.canary].Reason != "" ||
		r.Summary.Signed != 1 || r.Summary.Unsigned != 1 {
		t.Errorf("accepted: exit status %d, %s and %s", code, images[image].Reason, images[w.canary].Reason)
	}
	// Who requires signatures is content with the release's: it was signed, and names the image by its digest.
	code, r, images, _ = w.audit(list, append(vouch, "--require-signed")...)
	if code != cli.ExitRefused || images[image].Reason != verdict.TrustedByRelease ||
		images[w.canary].Reason != verdict.NotSignedFor ||
		r.Summary.Signed != 1 || r.Summary.Unsigned != 0 || r.Summary.Refuse != 1 || !r.Summary.RequireSigned ||
		images[w.canary].Requirements[0].Answer != verdict.Accept || images[w.canary].Fix == "" {
		t.Errorf("signatures required: exit status %d, %s and %s, %+v", code, images[image].Reason,
			images[w.canary].Reason, r.Summary)
	}
	w.write("corp.asc", string(w.other.Armored))
	code, r, images, stderr = w.audit(list, vouch...)
	if code != cli.ExitOK || images[image].Reason != "" || r.Summary.Releases[0].Answer != verdict.Refuse ||
		!strings.Contains(stderr, "vouches for nothing") {
		t.Errorf("not verified: exit status %d, %+v\n%s", code, r.Summary.Releases, stderr)
	}
	if code := run(t.Context(), append(w.args, vouch[2:4]...), strings.NewReader(list), io.Discard,
		io.Discard); code != cli.ExitUsage {
		t.Errorf("without a key: exit status %d", code)
	}
}

// TestAudit_default: without --images-from it is said where images come from, and where none can.
func TestAudit_default(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KUBECONFIG", filepath.Join(dir, "missing"))
	t.Setenv("PATH", dir)
	t.Setenv("HOME", dir)
	policy := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"reject"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"audit", "--policy", policy, "--cri-socket", filepath.Join(dir, "no.sock"), "-o", "json"}
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != cli.ExitUsage || out.Len() > 0 {
		t.Errorf("exit status %d: %s", code, &out)
	}
	for _, want := range []string{"note: no cluster: ", "error: no cluster, no ", "hint: name them with --images-from"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("not said: %q in\n%s", want, &errs)
		}
	}
	podman := filepath.Join(dir, "podman")
	if err := os.WriteFile(podman, []byte("#!/bin/sh\necho broken >&2; exit 125\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	errs.Reset()
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != cli.ExitFailed ||
		!strings.Contains(errs.String(), "note: images of podman on this host") {
		t.Errorf("with a podman that fails: exit status %d\n%s", code, &errs)
	}

	// A cluster that is known and doesn't answer: what this host runs is not all.
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	if err := os.WriteFile(podman, []byte("#!/bin/sh\necho '[]'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != cli.ExitUnknown ||
		!strings.Contains(out.String(), "the cluster of the kubeconfig didn't answer") {
		t.Errorf("with a silent cluster: exit status %d\n%s%s", code, &out, &errs)
	}
	if code := run(t.Context(), append(args, "--kubeconfig", kubeconfig), strings.NewReader(""), &out,
		&errs); code != cli.ExitFailed {
		t.Errorf("with a silent cluster that was asked for: exit status %d\n%s", code, &errs)
	}
}
