package mutation

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// forged is an attacker's manifest in place of the honest one, whose signature is found for it by readers that take the
// digest of a schema 1 manifest from the manifest's own signature.
type forged struct {
	shape fixture.Shape
	kind  string
}

func allForged() []forged {
	var out []forged
	for _, shape := range []fixture.Shape{fixture.Schema1, fixture.OCIImage, fixture.Schema2, fixture.OCIIndex} {
		for _, kind := range []string{
			schema1JWS, schema1, dockerImage, ociImage, dockerList, ociIndex, "application/json",
			"text/plain", "",
		} {
			out = append(out, forged{shape, kind})
		}
	}
	return out
}

func (f forged) String() string { return string(f.shape) + " as " + f.kind }

// body is the manifest in place of honest.
func (f forged) body(t testing.TB, p *pool, honest []byte) []byte {
	t.Helper()
	out := fixture.Forgery{
		Shape: f.shape, Name: "team/app", Tag: "docker", Config: p.config["evil"],
		Layers: []fixture.Blob{p.layer["evil"]},
	}
	if f.shape == fixture.OCIIndex {
		old := p.images["old"] // an older image, and signed
		out.Layers = []fixture.Blob{{
			MediaType: old.kind, Digest: sum(old.body), Size: int64(len(old.body)),
			Platform: map[string]string{"os": "linux", "architecture": "amd64"},
		}}
	}
	b, err := fixture.Forge(honest, out)
	must(t, err)
	return b
}

// wantForged fails unless the verdict refuses the manifest, not its signatures.
func wantForged(t *testing.T, v verdict.Verdict, err error) {
	t.Helper()
	if err != nil || v.Answer != verdict.Refuse || v.Reason != verdict.ManifestForged || v.Message == "" || v.Hint == "" {
		t.Errorf("want a refusal for %s, got %s/%s %q %q %v", verdict.ManifestForged, v.Answer, v.Reason, v.Message,
			v.Hint, err)
	}
}

// TestForged serves the forged manifest over a registry: by tag and by digest, in place of an image, of an index and of
// the image of an index; to verify and to audit.
func TestForged(t *testing.T) {
	p := newPool(t)
	b := newBench(t, p.blobs, p.policies())
	for _, f := range allForged() {
		t.Run(f.String(), func(t *testing.T) {
			for _, tag := range []string{"docker", "oci", "list", "index"} {
				honest := p.scene.manifests["team/app:"+tag]
				digests := []string{sum(honest.body)}
				if tag == "list" || tag == "index" {
					digests = append(digests, anyDigest.FindString(string(honest.body)))
				}
				for _, d := range digests {
					m := p.fresh()
					now := served{f.body(t, p, m.manifests["team/app@"+d].body), f.kind}
					m.manifests["team/app@"+d] = now
					if d == sum(honest.body) {
						m.manifests["team/app:"+tag] = now
					}
					for _, asked := range []string{":" + tag, "@" + sum(honest.body)} {
						m.asked = asked
						b.show(m.scene)
						for _, policy := range []*policyFile{b.policies[0], b.policies[6], b.policies[7]} { // GPG, nothing, sigstore
							if _, err := b.library(policy, m.scene); err == nil {
								t.Errorf("%s: the library pulls it", m.reference())
							}
							v, err := b.nodetrust(policy, m.scene)
							w, err2 := b.audited(policy, m.scene)
							if policy.requires[0].anything() { // nobody asks for a signature, and nobody can pull it
								if v.Answer == verdict.Accept || w.Answer == verdict.Accept {
									t.Errorf("%s is accepted: %+v %+v", m.reference(), v, w)
								}
								continue
							}
							wantForged(t, v, err)
							wantForged(t, w, err2)
						}
					}
				}
			}
		})
	}
}

// A mirror serves the forged manifest; name, lookaside and signature are the honest registry's.
func TestForgedMirror(t *testing.T) {
	p := newPool(t)
	b := newBench(t, p.blobs, p.policies()[:1])
	at := strings.TrimPrefix(b.server.URL, "http://")
	conf := b.write(t, "mirrored.conf", fmt.Sprintf(
		"[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", host, at))
	opened, err := verify.Open(verify.Source{
		Policy: b.policies[0].path, RegistriesD: []string{filepath.Join(b.dir, "registries.d")}, RegistriesConf: conf,
	}, verify.Env{})
	must(t, err)
	defer opened.Close()
	for _, f := range allForged() {
		t.Run(f.String(), func(t *testing.T) {
			m := p.fresh()
			b.show(m.scene)
			honest := m.manifests["team/app:docker"]
			m.asked = "@" + sum(honest.body)
			if v, err := judge(opened, m.reference(), "", options); err != nil ||
				v.Answer != verdict.Accept {
				t.Fatalf("the honest image: %+v %v", v, err)
			}
			now := served{f.body(t, p, honest.body), f.kind}
			m.manifests["team/app:docker"], m.manifests["team/app@"+sum(honest.body)] = now, now
			for _, asked := range []string{":docker", "@" + sum(honest.body)} {
				m.asked = asked
				v, err := judge(opened, m.reference(), "", options)
				wantForged(t, v, err)
			}
		})
	}
}

// The forged manifest lies in a directory and in a layout, judged as the image that it claims to be.
func TestForgedLocal(t *testing.T) {
	p := newPool(t)
	b := newBench(t, p.blobs, p.policies()[:1])
	honest := p.images["docker"]
	digest := sum(honest.body)
	for _, shape := range []fixture.Shape{fixture.Schema1, fixture.OCIImage, fixture.Schema2, fixture.OCIIndex} {
		body := forged{shape: shape}.body(t, p, honest.body)
		for _, as := range []string{host + "/team/app:docker", host + "/team/app@" + digest} {
			t.Run("dir "+string(shape)+" "+as, func(t *testing.T) {
				dir := t.TempDir()
				write := func(name string, data []byte) { must(t, os.WriteFile(filepath.Join(dir, name), data, 0o644)) }
				write("version", []byte("Directory Transport Version: 1.1\n"))
				write("signature-1", p.scene.signatures["team/app@"+digest][0])
				write("manifest.json", honest.body)
				if v, err := judge(b.policies[0].nodetrust, "dir:"+dir, as, options); err != nil ||
					v.Answer != verdict.Accept {
					t.Fatalf("the honest image: %+v %v", v, err)
				}
				write("manifest.json", body)
				v, err := judge(b.policies[0].nodetrust, "dir:"+dir, as, options)
				wantForged(t, v, err)
			})
			t.Run("oci "+string(shape)+" "+as, func(t *testing.T) {
				dir := t.TempDir()
				blobs := filepath.Join(dir, "blobs", "sha256")
				must(t, os.MkdirAll(blobs, 0o755))
				must(t, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
				must(t, os.WriteFile(filepath.Join(blobs, strings.TrimPrefix(digest, "sha256:")), body, 0o644))
				for _, kind := range []string{ociImage, dockerImage, schema1JWS} {
					must(t, os.WriteFile(filepath.Join(dir, "index.json"), fmt.Appendf(nil,
						`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, kind, digest, len(body)), 0o644))
					v, err := judge(b.policies[0].nodetrust, "oci:"+dir, as, options)
					wantForged(t, v, err)
				}
			})
		}
	}
}

// A signature of the manifest's own that says where its payload ends may say so wrongly; that must not end the program.
func TestForgedLength(t *testing.T) {
	p := newPool(t)
	b := newBench(t, p.blobs, p.policies())
	for _, length := range []int{-1, -1000, -1 << 62, 1 << 40, 1 << 62} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			for _, tag := range []string{"docker", "list"} {
				m := p.fresh()
				at := "team/app:" + tag
				if tag == "list" { // the image of an index
					at = "team/app@" + sum(p.images["docker"].body)
				}
				body, err := fixture.Forge(m.manifests[at].body,
					fixture.Forgery{Shape: fixture.Schema1, Layers: []fixture.Blob{p.layer["evil"]}, Length: length})
				must(t, err)
				m.manifests[at] = served{body, schema1JWS}
				m.asked = ":" + tag
				b.show(m.scene)
				for _, policy := range b.policies {
					v, err := b.nodetrust(policy, m.scene)
					w, err2 := b.audited(policy, m.scene)
					if err != nil || err2 != nil || v.Answer == verdict.Accept || w.Answer == verdict.Accept {
						t.Errorf("%+v %v %+v %v", v, err, w, err2)
					}
				}
			}
		})
	}
}
