package mutation

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// Content types of manifests.
const (
	dockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
	ociImage    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	schema1     = "application/vnd.docker.distribution.manifest.v1+json"
	schema1JWS  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	dockerConf  = "application/vnd.docker.container.image.v1+json"
	dockerLayer = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	ociConf     = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

func sum(b []byte) string    { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
func sum512(b []byte) string { return fmt.Sprintf("sha512:%x", sha512.Sum512(b)) }

// signed is one payload that somebody signed.
type signed struct {
	by       *signer
	cosigner *cosigner // instead of by
	payload  []byte
}

// pool is an honest registry with its lookaside: what mutants are made of.
type pool struct {
	blobs map[string][]byte
	// corp and ops sign what is honest; nobody trusts stranger.
	corp, ops, stranger *signer
	cosign, costranger  *cosigner
	scene               scene
	claims              []signed
	// images are the manifests for linux/amd64 by name; evil is signed by nobody.
	images map[string]served
	// parts of images: the descriptors that a forged manifest names.
	config, layer map[string]fixture.Blob
	tags          []string
}

func newPool(t testing.TB) *pool {
	p := &pool{
		blobs: map[string][]byte{}, images: map[string]served{}, config: map[string]fixture.Blob{},
		layer: map[string]fixture.Blob{},
		corp:  newSigner(t, "corp"), ops: newSigner(t, "ops"), stranger: newSigner(t, "stranger"),
		cosign: newCosigner(t, "cosign"), costranger: newCosigner(t, "stranger"),
		scene: scene{
			manifests: map[string]served{}, signatures: map[string][][]byte{}, blobs: map[string][]byte{},
			repo: "team/app", asked: ":docker",
		},
	}
	docker, docker2 := p.image(t, "docker", dockerImage, "amd64"), p.image(t, "docker2", dockerImage, "arm64")
	oci, oci2 := p.image(t, "oci", ociImage, "amd64"), p.image(t, "oci2", ociImage, "arm64")
	old, other := p.image(t, "old", ociImage, "amd64"), p.image(t, "other", dockerImage, "amd64")
	p.image(t, "evil", ociImage, "amd64")
	list := index(dockerList, entry(docker, "amd64"), entry(docker2, "arm64"))
	ix := index(ociIndex, entry(oci, "amd64"), entry(oci2, "arm64"))
	nested := index(ociIndex, entry(ix, "amd64"))
	p.publish("team/app", "docker", docker)
	p.publish("team/app", "oci", oci)
	p.publish("team/app", "old", old)
	p.publish("team/app", "list", list, docker, docker2)
	p.publish("team/app", "index", ix, oci, oci2)
	p.publish("team/app", "nested", nested, ix)
	p.publish("team/app", "s1", p.first("team/app", "s1"))
	p.publish("team/other", "v1", other)
	p.tags = []string{"docker", "oci", "old", "list", "index", "nested", "s1"}
	return p
}

// image makes a manifest and its blobs.
func (p *pool) image(t testing.TB, name, kind, arch string) served {
	img, err := fixture.Image(name, arch)
	must(t, err)
	conf, err := img.RawConfigFile()
	must(t, err)
	layers, err := img.Layers()
	must(t, err)
	r, err := layers[0].Compressed()
	must(t, err)
	layer, err := io.ReadAll(r)
	must(t, err)
	types := []string{dockerConf, dockerLayer}
	if kind == ociImage {
		types = []string{ociConf, ociLayer}
	}
	p.config[name] = fixture.Blob{MediaType: types[0], Digest: sum(conf), Size: int64(len(conf))}
	p.layer[name] = fixture.Blob{MediaType: types[1], Digest: sum(layer), Size: int64(len(layer))}
	p.blobs[sum(conf)], p.blobs[sum(layer)] = conf, layer
	p.images[name] = served{fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, kind,
		asJSON(p.config[name]), asJSON(p.layer[name])), kind}
	return p.images[name]
}

// first is an image of schema 1, without a signature of its own.
func (p *pool) first(repo, tag string) served {
	layer := p.layer["docker"].Digest
	return served{fmt.Appendf(nil, `{"schemaVersion":1,"name":%q,"tag":%q,"architecture":"amd64","fsLayers":[{"blobSum":%q}],"history":[{"v1Compatibility":%q}]}`, repo, tag, layer,
		fmt.Sprintf(`{"id":"%064d","created":"2020-01-01T00:00:00Z","os":"linux","architecture":"amd64"}`, 1)), schema1}
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func entry(m served, arch string) string {
	return asJSON(fixture.Blob{
		MediaType: m.kind, Digest: sum(m.body), Size: int64(len(m.body)),
		Platform: map[string]string{"os": "linux", "architecture": arch},
	})
}

func index(kind string, entries ...string) served {
	return served{fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, kind,
		strings.Join(entries, ",")), kind}
}

// publish stores an image under a tag, signed as it by both; an index with its images.
func (p *pool) publish(repo, tag string, m served, instances ...served) {
	p.scene.manifests[repo+":"+tag] = m
	for _, one := range append(instances, m) {
		p.scene.manifests[repo+"@"+sum(one.body)] = one
		c := claim{sum(one.body), host + "/" + repo + ":" + tag}
		p.scene.attach(repo, c.digest, p.cosign.sign(c.cosignPayload()))
		p.claims = append(p.claims, signed{cosigner: p.cosign, payload: c.cosignPayload()})
		for _, by := range []*signer{p.corp, p.ops} {
			at := repo + "@" + c.digest
			p.scene.signatures[at] = append(p.scene.signatures[at], by.sign(c.payload()))
			p.claims = append(p.claims, signed{by: by, payload: c.payload()})
		}
	}
}

// mutant is a scene that a mutation made, and how.
type mutant struct {
	*scene
	pool   *pool
	policy int
	trail  []string
	// claims are what was signed for this mutant alone.
	claims []signed
	// wrapped are manifests that got a signature of their own, as they were without it.
	wrapped [][]byte
}

// fresh is the honest scene, for another mutant.
func (p *pool) fresh() *mutant {
	s := p.scene
	s.manifests, s.signatures, s.blobs = maps.Clone(s.manifests), maps.Clone(s.signatures), maps.Clone(s.blobs)
	for at, sigs := range s.signatures {
		s.signatures[at] = slices.Clone(sigs)
	}
	return &mutant{scene: &s, pool: p}
}

// sign makes a signature, and remembers that it was made.
func (m *mutant) sign(by *signer, payload []byte) []byte {
	m.claims = append(m.claims, signed{by: by, payload: payload})
	return by.sign(payload)
}
