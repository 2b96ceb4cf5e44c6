package explain

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// beside is what a registry has beside an image that could be a signature. It is for explaining only: false may mean
// that the registry didn't say.
type beside struct {
	answered bool // the registry answered
	cosign   bool // the tag that runtimes read
	bundle   bool // a sigstore bundle
	notation bool
}

// Limits on what is asked to explain a missing signature.
const (
	besideTimeout = 5 * time.Second
	maxBeside     = 1 << 20
)

const acceptBeside = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"

// besideOf asks the registry that served the manifest what it has beside the image. The library has no door to
// referrers, so the fetcher asks; a nil fetcher leaves everything unknown.
func besideOf(ctx context.Context, src *fetch.Source, digest string) (b beside) {
	if src == nil {
		return b
	}
	ctx, cancel := context.WithTimeout(ctx, besideTimeout)
	defer cancel()
	tag := library.AttachmentTag(digest)
	if status, _, err := src.Get(ctx, maxBeside, acceptBeside, "manifests/"+tag); err == nil {
		b.answered, b.cosign = true, status == http.StatusOK
	}
	for _, path := range []string{"referrers/" + digest, "manifests/" + strings.TrimSuffix(tag, ".sig")} {
		status, body, err := src.Get(ctx, maxBeside, acceptBeside, path)
		if err == nil && status == http.StatusOK && b.read(body) {
			break
		}
	}
	return b
}

// read looks through a list of referrers and reports whether the body is one.
func (b *beside) read(body []byte) bool {
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
			b.bundle = true
		case strings.HasPrefix(m.ArtifactType, "application/vnd.cncf.notary.signature"):
			b.notation = true
		}
	}
	return true
}
