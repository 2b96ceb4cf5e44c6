package main

// input is an image at HOST/app:1 that should fool a verifier. Of the goals, the first that is set counts.
type input struct {
	// ID is the advisory's.
	ID string `json:"id"`
	// Manifests by tag or digest, Blobs by digest, and Signatures by the digest of what they are found for.
	Manifests  map[string]document `json:"manifests"`
	Blobs      map[string][]byte   `json:"blobs,omitempty"`
	Signatures map[string][]byte   `json:"signatures,omitempty"`
	// Key and Identity are what the policy demands.
	Key      []byte `json:"key"`
	Identity string `json:"identity"`
	// Pulls are tried one after the other. Without another goal each must end with its layer.
	Pulls []pull `json:"pulls"`
	// Asks is a path that no reader of this image should ask for.
	Asks string `json:"asks,omitempty"`
	// Receives is a size in bytes that no reader should take for a manifest.
	Receives int `json:"receives,omitempty"`
	// Repeats is a number of signatures that no reader should fetch: the one signature is served as often.
	Repeats int `json:"repeats,omitempty"`
}

type document struct {
	Type string `json:"type"`
	Body string `json:"body"`
}

// pull serves the tag's manifest with a type of its own.
type pull struct {
	Type  string `json:"type"`
	Layer string `json:"layer,omitempty"`
}

// must ends the program, with the text of the error.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
