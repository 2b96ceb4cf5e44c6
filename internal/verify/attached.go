package verify

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/types"
)

// attached is what a registry has beside an image that could be a signature. It is for explaining only: false may mean
// that the registry didn't say.
type attached struct {
	asked    bool // the registry answered
	cosign   bool // the tag that runtimes read
	bundle   bool // a sigstore bundle
	notation bool
}

// Limits on what is asked to explain a missing signature.
const (
	attachedTimeout = 5 * time.Second
	maxAttached     = 1 << 20
)

const acceptAttached = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"

// attachments asks the registry that served the manifest what it has beside the image. The library has no door to
// referrers, so it is the fetcher that asks.
func (e *evaluation) attachments(ctx context.Context) (a attached) {
	src := e.besides()
	if src == nil {
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, attachedTimeout)
	defer cancel()
	if status, _, err := src.Get(ctx, maxAttached, acceptAttached, "manifests", attachmentTag(e.v.Digest)); err == nil {
		a.asked, a.cosign = true, status == http.StatusOK
	}
	for _, path := range [][]string{{"referrers", e.v.Digest}, {"manifests", strings.Replace(e.v.Digest, ":", "-", 1)}} {
		status, body, err := src.Get(ctx, maxAttached, acceptAttached, path...)
		if err != nil || status != http.StatusOK {
			continue
		}
		if a.read(body) {
			break
		}
	}
	return a
}

// indexSigned counts the signatures of the image's index, of the kind that the requirement asks for and where runtimes
// would look for them.
func (n *noSignature) indexSigned(ctx context.Context, src types.ImageSource) (count int, err error) {
	if b := n.besides(); b != nil {
		if n.wantsGPG() {
			return b.CountSimple(ctx, digest.Digest(n.v.Index))
		}
		return b.CountAttached(ctx, digest.Digest(n.v.Index))
	}
	before := len(n.requests.Since(0))
	list, err := image.UnparsedInstance(src, nil).UntrustedSignatures(ctx)
	for _, u := range n.requests.Since(before) {
		n.asked = append(n.asked, Asked{URL: plain(u), Answer: notTold, After: true})
	}
	for _, s := range list {
		if _, simple := any(s).(simpleSignature); simple == n.wantsGPG() {
			count++
		}
	}
	return count, err
}

// read looks through a list of referrers and reports whether it is one.
func (a *attached) read(body []byte) bool {
	var index struct {
		Manifests *[]struct {
			ArtifactType string            `json:"artifactType"`
			Annotations  map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if json.Unmarshal(body, &index) != nil || index.Manifests == nil {
		return false
	}
	for _, m := range *index.Manifests {
		switch {
		case strings.HasPrefix(m.ArtifactType, "application/vnd.dev.sigstore.bundle"),
			m.Annotations["dev.sigstore.bundle.content"] != "":
			a.bundle = true
		case strings.HasPrefix(m.ArtifactType, "application/vnd.cncf.notary.signature"):
			a.notation = true
		}
	}
	return true
}
