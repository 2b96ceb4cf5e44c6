package mutation

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// serve puts a manifest under the tag that is asked for and under its digests, and signs it, or the digests given, as
// that tag.
func (m *mutant) serve(body []byte, kind string, sign ...string) {
	m.asked = ":served"
	for _, at := range []string{":served", "@" + sum(body), "@" + sum512(body)} {
		m.manifests[m.repo+at] = served{body, kind}
	}
	if len(sign) == 0 {
		sign = []string{sum(body)}
	}
	for _, d := range sign {
		sig := m.sign(m.pool.corp, claim{d, m.reference()}.payload())
		m.signatures[m.repo+"@"+d] = [][]byte{sig}
		m.signatures[m.repo+"@"+sum(body)] = [][]byte{sig}
	}
}

// TestManifests serves well-signed manifests of many kinds as many types. What no runtime can use must not be accepted,
// signed or not; else the library and nodetrust agree.
func TestManifests(t *testing.T) {
	p := newPool(t)
	b := newBench(t, p.blobs, p.policies())
	docker, oci, other := p.images["docker"], p.images["oci"], p.images["other"]
	list := func(kind string, entries ...string) []byte { return index(kind, entries...).body }
	longer := served{append(bytes.Clone(docker.body), ' '), dockerImage}
	sha512Entry := strings.Replace(entry(docker, "amd64"), sum(docker.body), sum512(docker.body), 1)
	nested := index(ociIndex, entry(docker, "amd64"))
	both := bytes.Replace(docker.body, []byte(`{`), []byte(`{"manifests":[`+entry(docker, "amd64")+`],`), 1)
	lone := strings.Replace(entry(docker, "amd64"), `,"platform":{"architecture":"amd64","os":"linux"}`, "", 1)
	first := p.first("team/app", "served").body
	type want struct {
		signed, anything verdict.Reason // "" is an accept
	}
	var (
		accept     = want{}
		unreadable = want{verdict.ManifestUnreadable, verdict.ManifestUnreadable}
		notFound   = want{verdict.ImageNotFound, verdict.ImageNotFound}
		unsigned   = want{verdict.NoSignature, ""}
		old        = want{verdict.WeakOrUnsupported, ""}
		forgedJWS  = want{verdict.ManifestForged, verdict.ManifestUnreadable}
	)
	type row struct {
		name  string
		want  want
		build func(m *mutant)
	}
	rows := []row{
		{"Docker image", accept, func(m *mutant) { m.serve(docker.body, dockerImage) }},
		{"Docker image as OCI image", accept, func(m *mutant) { m.serve(docker.body, ociImage) }},
		{"OCI image", accept, func(m *mutant) { m.serve(oci.body, ociImage) }},
		{"charset", accept, func(m *mutant) { m.serve(docker.body, dockerImage+"; charset=utf-8") }},
		{"type in upper case", accept, func(m *mutant) { m.serve(docker.body, strings.ToUpper(dockerImage)) }},
		{"image as an index", unreadable, func(m *mutant) { m.serve(docker.body, ociIndex) }},
		{"image as a list", unreadable, func(m *mutant) { m.serve(docker.body, dockerList) }},
		{"by sha512", notFound, func(m *mutant) { m.serve(docker.body, dockerImage); m.asked = "@" + sum512(docker.body) }},
		{"another manifest under the digest", notFound, func(m *mutant) {
			m.serve(docker.body, dockerImage)
			m.asked = "@sha256:" + strings.Repeat("a", 64)
			m.manifests[m.repo+m.asked] = docker
		}},
		{"another manifest under the sha512", notFound, func(m *mutant) {
			m.serve(docker.body, dockerImage)
			m.asked = "@sha512:" + strings.Repeat("a", 128)
			m.manifests[m.repo+m.asked] = docker
		}},
		{"list, its image signed", accept, func(m *mutant) {
			m.serve(list(dockerList, entry(docker, "amd64")), dockerList,
				sum(docker.body))
		}},
		{"only the list signed", unsigned, func(m *mutant) {
			delete(m.signatures, m.repo+"@"+sum(other.body))
			m.manifests[m.repo+"@"+sum(other.body)] = other
			m.serve(list(dockerList, entry(other, "amd64")), dockerList)
		}},
		{
			"list as an image, the list signed", unreadable,
			func(m *mutant) { m.serve(list(dockerList, entry(docker, "amd64")), dockerImage) },
		},
		{
			"index as an image, the index signed", unreadable,
			func(m *mutant) { m.serve(list(ociIndex, entry(docker, "amd64")), ociImage) },
		},
		{"instance named by sha512", notFound, func(m *mutant) {
			m.manifests[m.repo+"@"+sum512(docker.body)] = docker
			m.serve(list(ociIndex, sha512Entry), ociIndex, sum(docker.body))
		}},
		{"another image under the instance's digest", notFound, func(m *mutant) {
			m.manifests[m.repo+"@"+sum(longer.body)] = docker
			m.serve(list(ociIndex, entry(longer, "amd64")), ociIndex, sum(docker.body))
		}},
		{"no platform matches", notFound, func(m *mutant) {
			m.serve(list(ociIndex, entry(docker, "arm64")), ociIndex,
				sum(docker.body))
		}},
		{"index without platforms", accept, func(m *mutant) { m.serve(list(ociIndex, lone), ociIndex, sum(docker.body)) }},
		{"two for the platform, the first signed", accept, func(m *mutant) {
			m.manifests[m.repo+"@"+sum(longer.body)] = longer
			m.serve(list(ociIndex, entry(docker, "amd64"), entry(longer, "amd64")), ociIndex, sum(docker.body))
		}},
		{"two for the platform, the second signed", unsigned, func(m *mutant) {
			m.manifests[m.repo+"@"+sum(longer.body)] = longer
			m.serve(list(ociIndex, entry(longer, "amd64"), entry(docker, "amd64")), ociIndex, sum(docker.body))
		}},
		{"index inside an index", unreadable, func(m *mutant) {
			m.manifests[m.repo+"@"+sum(nested.body)] = nested
			m.serve(list(ociIndex, entry(nested, "amd64")), ociIndex, sum(nested.body), sum(docker.body))
		}},
		{"index inside an index, as an image", unreadable, func(m *mutant) {
			m.manifests[m.repo+"@"+sum(nested.body)] = served{nested.body, ociImage}
			m.serve(list(ociIndex, entry(nested, "amd64")), ociIndex, sum(nested.body), sum(docker.body))
		}},
		{"manifests and layers", unreadable, func(m *mutant) { m.serve(both, dockerImage) }},
		{
			"manifests and layers, as an index", unreadable,
			func(m *mutant) { m.serve(both, ociIndex, sum(both), sum(docker.body)) },
		},
		{"artifact", accept, func(m *mutant) {
			m.serve(bytes.Replace(oci.body, []byte(ociConf), []byte("application/vnd.oci.empty.v1+json"), 1), ociImage)
		}},
		{"members in another case", accept, func(m *mutant) {
			m.serve(bytes.Replace(docker.body, []byte(`"layers"`), []byte(`"Layers"`), 1), dockerImage)
		}},
		{"layers twice", accept, func(m *mutant) {
			m.serve(bytes.Replace(docker.body, []byte(`"layers"`), []byte(`"layers":[],"layers"`), 1), dockerImage)
		}},
		{"byte order mark", unreadable, func(m *mutant) {
			m.serve(append([]byte("\xef\xbb\xbf"), docker.body...),
				dockerImage)
		}},
		{"no JSON", unreadable, func(m *mutant) { m.serve([]byte("hello"), dockerImage) }},
		{"empty", unreadable, func(m *mutant) { m.serve([]byte{}, dockerImage) }},
		{"empty object", unreadable, func(m *mutant) { m.serve([]byte("{}"), "") }},
		{"empty object as an image", unreadable, func(m *mutant) { m.serve([]byte("{}"), ociImage) }},
		{"4 MiB", accept, func(m *mutant) {
			m.serve(append(bytes.Clone(docker.body), bytes.Repeat([]byte(" "), 4<<20-len(docker.body))...), dockerImage)
		}},
		{"schema 1", old, func(m *mutant) { m.serve(first, schema1) }},
		{"schema 1 of another name", old, func(m *mutant) { m.serve(p.first("other/name", "v1").body, schema1) }},
		{"schema 1 without type", old, func(m *mutant) { m.serve(first, "") }},
		{"schema 1 with a signature that is none", forgedJWS, func(m *mutant) {
			m.serve(bytes.Replace(first, []byte(`{`), []byte(`{"signatures":[{"header":{},"signature":"x","protected":"y"}],`),
				1), schema1JWS)
		}},
		{"schema version 1 of an OCI image, with signatures", forgedJWS, func(m *mutant) {
			m.serve(bytes.Replace(oci.body, []byte(`"schemaVersion":2,"mediaType":"`+ociImage+`"`),
				[]byte(`"schemaVersion":1,"signatures":[]`), 1), ociImage)
		}},
	}
	for _, kind := range []string{
		"", "text/plain", "text/html", "application/json", "application/octet-stream", "garbage;;;", "a/b; x", schema1,
		schema1JWS,
		"application/vnd.oci.artifact.manifest.v1+json",
	} {
		rows = append(rows, row{"image as " + kind, unreadable, func(m *mutant) { m.serve(docker.body, kind) }})
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			for _, at := range []struct {
				policy int
				want   verdict.Reason
			}{{0, tt.want.signed}, {6, tt.want.anything}} {
				m := p.fresh()
				tt.build(m)
				m.policy = at.policy
				policy := b.policies[at.policy]
				b.show(m.scene)
				pulled, err := b.library(policy, m.scene)
				v, broken := b.nodetrust(policy, m.scene)
				w, broken2 := b.audited(policy, m.scene)
				if outcome, wrong := m.compare(policy, pulled, err, v, broken); wrong {
					t.Errorf("%s: %v %v", outcome, err, v.Message)
				}
				if broken2 != nil || w.Answer != v.Answer || w.Reason != v.Reason {
					t.Errorf("verify says %s/%s, audit %s/%s", v.Answer, v.Reason, w.Answer, w.Reason)
				}
				if v.Reason != at.want || (at.want == "") != (v.Answer == verdict.Accept) {
					t.Errorf("policy %d: want %q, got %s/%s %s; library: %v", at.policy, at.want, v.Answer, v.Reason, v.Message,
						fmt.Sprint(err))
				}
			}
		})
	}
}
