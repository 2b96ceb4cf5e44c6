package trust

import "github.com/nodetrust/nodetrust/internal/verdict"

// Canary is an image by digest and the answer of a node that enforces. A JSON list of canaries is the content of
// canaries.json and of the annotation nodetrust.io/canaries.
type Canary struct {
	// Image is repository@sha256:…, fully qualified.
	Image string `json:"image"`
	// Expect is accept or refuse.
	Expect verdict.Answer `json:"expect"`
}
