//go:build ignore

// Pulls what would fool a verifier, with the version of the image library that hack/readers has pinned for it, and
// says which of it did. It runs with an empty home directory. Standard input are the inputs, standard output is an
// object of what was seen by their names.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
)

// seen is what came of an input.
type seen struct {
	Fooled bool   `json:"fooled"`
	Said   string `json:"said"`
}

func main() {
	var inputs []input
	must(json.NewDecoder(os.Stdin).Decode(&inputs))
	out := map[string]seen{}
	for _, in := range inputs {
		out[in.ID] = in.try()
	}
	must(json.NewEncoder(os.Stdout).Encode(out))
}

func temp() string {
	dir, err := os.MkdirTemp("", "")
	must(err)
	return dir
}

// try pulls the input, as often as it asks for, and reports whether the library did what it must not.
func (in input) try() seen {
	out := seen{Fooled: true}
	var said []string
	for _, p := range in.Pulls {
		r := newRegistry(in, p.Type)
		dir := temp()
		err := r.copyTo(dir)
		r.server.Close()
		switch {
		case in.Asks != "":
			out.Fooled = out.Fooled && r.asked(in.Asks) > 0
		case in.Receives > 0:
			out.Fooled = out.Fooled && r.sent >= in.Receives
		case in.Repeats > 0:
			out.Fooled = out.Fooled && r.asked("/sigs/") >= in.Repeats
		default:
			out.Fooled = out.Fooled && err == nil && holds(dir, p.Layer)
		}
		text := "pulled"
		if err != nil {
			text = strings.Replace(strings.Replace(err.Error(), r.host, "HOST", -1), dir, "DIR", -1)
			if len(text) > 300 {
				text = text[:300] + "…"
			}
		}
		said = append(said, text)
	}
	out.Said = strings.Join(said, "; ")
	return out
}

// holds reports whether a directory has a layer of that digest.
func holds(dir, layer string) bool {
	b, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(layer, "sha256:")))
	return err == nil && fmt.Sprintf("sha256:%x", sha256.Sum256(b)) == layer
}

// registry serves an input as HOST/app:1, and its signatures below /sigs.
type registry struct {
	input
	mime   string // of the tag's manifest
	server *httptest.Server
	host   string

	mu    sync.Mutex
	paths []string
	sent  int
}

func newRegistry(in input, mime string) *registry {
	r := &registry{input: in, mime: mime}
	r.server = httptest.NewServer(r)
	r.host = strings.TrimPrefix(r.server.URL, "http://")
	return r
}

func (r *registry) asked(prefix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, p := range r.paths {
		if strings.HasPrefix(p, prefix) {
			n++
		}
	}
	return n
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	p := path.Clean(req.URL.Path)
	r.mu.Lock()
	r.paths = append(r.paths, p)
	r.mu.Unlock()
	name := path.Base(p)
	switch {
	case p == "/v2":
	case strings.HasPrefix(p, "/sigs/"):
		r.signature(w, p)
	case strings.HasPrefix(p, "/v2/app/manifests/"):
		r.manifest(w, name)
	case strings.HasPrefix(p, "/v2/app/blobs/") && r.Blobs[name] != nil:
		w.Write(r.Blobs[name])
	default:
		http.NotFound(w, req)
	}
}

// signature answers /sigs/app@sha256=HEX/signature-N.
func (r *registry) signature(w http.ResponseWriter, p string) {
	digest := strings.Replace(strings.TrimPrefix(path.Dir(p), "/sigs/app@"), "=", ":", 1)
	n, _ := strconv.Atoi(strings.TrimPrefix(path.Base(p), "signature-"))
	sig := r.Signatures[digest]
	if sig == nil || n > 1 && n > r.Repeats {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Write(sig)
}

func (r *registry) manifest(w http.ResponseWriter, name string) {
	m, ok := r.Manifests[name]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if name == "1" {
		m.Type = r.mime
	}
	w.Header().Set("Content-Type", m.Type)
	w.Write([]byte(m.Body))
	// White space makes no manifest wrong, but long.
	for chunk := []byte(strings.Repeat(" ", 64<<10)); r.sent < r.Receives; r.sent += len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// copyTo pulls HOST/app:1 as runtimes do, under a policy that demands a signature of the input's key.
func (r *registry) copyTo(dir string) error {
	policy, err := signature.NewPolicyFromBytes([]byte(fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{"%s/app":[
		{"type":"signedBy","keyType":"GPGKeys","keyData":%s,"signedIdentity":{"type":"exactReference","dockerReference":%q}}]}}}`, r.host, quoted(r.Key), r.Identity)))
	must(err)
	judge, err := signature.NewPolicyContext(policy)
	must(err)
	defer judge.Destroy()
	from, err := docker.ParseReference("//" + r.host + "/app:1")
	must(err)
	to, err := directory.NewReference(dir)
	must(err)
	root := temp()
	must(os.WriteFile(filepath.Join(root, "x.yaml"),
		[]byte(fmt.Sprintf("docker:\n  %s:\n    lookaside: http://%s/sigs\n    sigstore: http://%s/sigs\n", r.host, r.host,
			r.host)), 0o600))
	sys := &types.SystemContext{
		RootForImplicitAbsolutePaths: root, RegistriesDirPath: root, BlobInfoCacheDir: root,
		ArchitectureChoice: "amd64", OSChoice: "linux", DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
	}
	_, err = copy.Image(context.Background(), judge, to, from, &copy.Options{SourceCtx: sys, DestinationCtx: sys})
	return err
}

func quoted(b []byte) string {
	text, err := json.Marshal(b)
	must(err)
	return string(text)
}
