package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// Images are a registry and a lookaside server in the cluster's network, with images that run, and a key that signed
// some of them.
type Images struct {
	*lab.Store
	// Corp signs what must be accepted.
	Corp *fixture.Key

	// References. All run the same program and have other digests: Pause by tag in open/, the others in team/; the
	// canaries by digest.
	Pause, Signed, Unsigned    string
	AcceptCanary, RefuseCanary string
	// Agent is the agents' own image by digest, once AgentManifests has pushed it.
	Agent string

	dir     string // of the lookaside server
	gpg     *fixture.GPG
	program []byte
}

// KeyPath is where the nodes have Corp's public key.
const KeyPath = "etc/pki/rpm-gpg/RPM-GPG-KEY-corp"

// newImages makes the keys; dir is the cluster's.
func newImages(dir string) (*Images, error) {
	i := &Images{dir: filepath.Join(dir, "lookaside")}
	err := os.Mkdir(i.dir, 0o755)
	if err != nil {
		return nil, err
	}
	if i.gpg, err = fixture.NewGPG(); err != nil {
		return nil, err
	}
	if i.Corp, err = i.gpg.NewKey("corp", fixture.KeyOptions{}); err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

// serve starts the servers and fills them with images that run the program.
func (i *Images) serve(c *Cluster, program string) (err error) {
	if i.program, err = os.ReadFile(program); err != nil {
		return err
	}
	err = c.plane.InNet(func() (err error) {
		i.Store, err = lab.NewStoreOn(registryHost, lookasideHost, i.dir)
		return err
	})
	if err != nil {
		return err
	}
	i.Registry.Transport = &http.Transport{DialContext: c.dial}
	var errs [5]error
	i.Pause, _, errs[0] = i.Push("open/pause", "v1", nil)
	i.Signed, _, errs[1] = i.Push("team/signed", "v1", i.Corp)
	i.Unsigned, _, errs[2] = i.Push("team/unsigned", "v1", nil)
	_, i.AcceptCanary, errs[3] = i.Push("team/canary-accept", "v1", i.Corp)
	_, i.RefuseCanary, errs[4] = i.Push("team/canary-refuse", "v1", i.Corp)
	return errors.Join(errs[:]...)
}

func (i *Images) close() {
	i.Store.Close()
	if i.gpg != nil {
		i.gpg.Close()
	}
}

// StartServer starts a stopped registry or lookaside server again, in the cluster's network.
func (c *Cluster) StartServer(s *fixture.Server) error { return c.plane.InNet(s.Start) }

// Push stores an image that runs, with a digest of its own, as repo:tag, signed by key unless that is nil. It returns
// the references by tag and by digest.
func (i *Images) Push(repo, tag string, key *fixture.Key) (byTag, byDigest string, err error) {
	img, err := fixture.ImageOf(runtime.GOARCH, []string{"/pause"},
		fixture.File{Name: "pause", Data: i.program}, fixture.File{Name: "name", Data: []byte(repo + ":" + tag)})
	if err != nil {
		return "", "", err
	}
	return i.PushImage(repo, tag, img, key)
}

// PushImage is Push of any image.
func (i *Images) PushImage(repo, tag string, img v1.Image, key *fixture.Key) (byTag, byDigest string, err error) {
	p, err := i.Store.PushImage(repo, tag, img, key)
	return p.ByTag, p.ByDigest, err
}

// PushLayout is Push of the one image in a directory with an OCI layout.
func (i *Images) PushLayout(repo, tag, dir string, key *fixture.Key) (byTag, byDigest string, err error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return "", "", fmt.Errorf("reading the image in %s: %w", dir, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", "", fmt.Errorf("reading the image in %s: %w", dir, err)
	}
	if len(manifest.Manifests) != 1 {
		return "", "", fmt.Errorf("%s has %d images, want one", dir, len(manifest.Manifests))
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return "", "", fmt.Errorf("reading the image in %s: %w", dir, err)
	}
	return i.PushImage(repo, tag, img, key)
}

// Trust is a trust config for the nodes: team/ is signed by Corp, open/ is not, everything else is rejected.
// registries are further entries of spec.registries.
func (i *Images) Trust(registries string) string {
	return fmt.Sprintf(`apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: lab}
spec:
  pools: [worker]
  default: reject
  keys:
  - name: corp
    path: /%s
    fingerprints: [%s]
  registries:
  - scope: %s/team
    require:
    - signedBy: [corp]
      identity: matchRepoDigestOrExact
    lookaside: %s
    insecure: true
  - scope: %s/open
    require: accept
    because: the image that holds the pods
%s  canaries:
  - image: %s
    expect: accept
  - image: %s
    expect: refuse
`, KeyPath, i.Corp.Fingerprint, i.Registry.Host, i.Lookaside.URL(), i.Registry.Host, registries, i.AcceptCanary, i.RefuseCanary)
}
