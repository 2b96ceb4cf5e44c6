//go:build ignore

// Loads policies with the version of the image library that hack/readers has pinned for it, and says what this
// version makes of the things that depend on it. It runs with an empty home directory. Standard input is a JSON
// object of policies by name, standard output one of what was seen.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
)

// seen is hack/readers' verdicts, as far as one version is concerned.
type seen struct {
	Policies   map[string]string `json:"policies"`
	Wildcard   bool              `json:"wildcard"`
	Lookaside  map[string]string `json:"lookaside"`
	Policy     map[string]string `json:"policy"`
	Registries map[string]string `json:"registries"`
}

func main() {
	var policies map[string]json.RawMessage
	must(json.NewDecoder(os.Stdin).Decode(&policies))
	out := seen{
		Policies: map[string]string{}, Lookaside: map[string]string{}, Policy: map[string]string{},
		Registries: map[string]string{},
	}
	for name, text := range policies {
		_, err := signature.NewPolicyFromBytes(text)
		out.Policies[name] = "loads"
		if err != nil {
			out.Policies[name] = err.Error()
		}
	}
	out.Wildcard = wildcard()

	registry := newRegistry()
	for name, keys := range map[string][]string{
		"only lookaside": {"lookaside"}, "only sigstore": {"sigstore"},
		"both": {"lookaside", "sigstore"},
	} {
		out.Lookaside[name] = registry.lookaside(keys)
	}
	for _, name := range []string{"etc", "user and etc", "usr", "etc and usr", "environment and etc"} {
		out.Policy[name] = policyRead(name)
	}
	for _, name := range []string{"etc and usr and rootful", "user and etc and usr and rootful"} {
		out.Registries[name] = registry.directories(name)
	}
	must(json.NewEncoder(os.Stdout).Encode(out))
}

func temp() string {
	dir, err := os.MkdirTemp("", "")
	must(err)
	return dir
}

func write(path, text string) {
	must(os.MkdirAll(filepath.Dir(path), 0o755))
	must(os.WriteFile(path, []byte(text), 0o644))
}

// image is as much of an image as a policy needs that asks for no signature.
type image struct{ ref types.ImageReference }

func (i image) Reference() types.ImageReference                  { return i.ref }
func (i image) Manifest(context.Context) ([]byte, string, error) { return nil, "", fmt.Errorf("none") }

func (i image) Signatures(context.Context) ([][]byte, error) { return nil, fmt.Errorf("none") }

// wildcard reports whether a wildcard scope matches an image of a host that it covers.
func wildcard() bool {
	policy, err := signature.NewPolicyFromBytes(
		[]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"*.example.com":[{"type":"insecureAcceptAnything"}]}}}`))
	must(err)
	context_, err := signature.NewPolicyContext(policy)
	must(err)
	defer context_.Destroy()
	ref, err := docker.ParseReference("//app.example.com/x:1")
	must(err)
	ok, _ := context_.IsRunningImageAllowed(context.Background(), image{ref})
	return ok
}

// registry serves one image under every name, and under /serve/TEXT signatures that say TEXT.
type registry struct{ host string }

func newRegistry() registry {
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.Split(r.URL.Path, "/")
		switch {
		case path[1] == "serve" && strings.HasSuffix(r.URL.Path, "/signature-1"):
			_, _ = w.Write([]byte("\x90" + path[2])) // the first byte makes it look like a signature
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
			_, _ = w.Write([]byte(manifest))
		case r.URL.Path != "/v2/":
			http.NotFound(w, r)
		}
	}))
	return registry{strings.TrimPrefix(s.URL, "http://")}
}

// section is a registries.d file that has readers look for signatures which say text.
func (r registry) section(repository string, keys []string, text string) string {
	out := "docker:\n  " + r.host + "/" + repository + ":\n"
	for _, key := range keys {
		says := text
		if says == "" {
			says = key
		}
		out += "    " + key + ": http://" + r.host + "/serve/" + says + "\n"
	}
	return out
}

// signature returns what the first signature of an image says, "none" if there is none.
func (r registry) signature(repository string, sys *types.SystemContext) string {
	sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	ref, err := docker.ParseReference("//" + r.host + "/" + repository + ":1")
	must(err)
	src, err := ref.NewImageSource(context.Background(), sys)
	must(err)
	defer src.Close()
	found, err := src.GetSignatures(context.Background(), nil)
	switch {
	case err != nil:
		return "error: " + strings.Replace(err.Error(), r.host, "HOST", -1)
	case len(found) == 0:
		return "none"
	}
	return string(found[0][1:])
}

// lookaside returns which of the keys of a section counts.
func (r registry) lookaside(keys []string) string {
	dir := temp()
	write(filepath.Join(dir, "a.yaml"), r.section("x", keys, ""))
	return r.signature("x", &types.SystemContext{RegistriesDirPath: dir})
}

// Where a process of root looks, by the names that are recorded.
func places(root, file string) map[string]string {
	return map[string]string{
		"user":    filepath.Join(os.Getenv("HOME"), ".config/containers", file),
		"etc":     filepath.Join(root, "etc/containers", file),
		"rootful": filepath.Join(root, "etc/containers", strings.Replace(file, "registries.d", "registries.rootful.d", 1)),
		"usr":     filepath.Join(root, "usr/share/containers", file),
	}
}

// directories returns the directories of registries.d, of those that are named, whose files count.
func (r registry) directories(name string) string {
	must(os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".config")))
	root := temp()
	var read []string
	for _, place := range strings.Split(name, " and ") {
		write(filepath.Join(places(root, "registries.d")[place], place+".yaml"),
			r.section(place, []string{"sigstore"}, place))
	}
	for _, place := range strings.Split(name, " and ") {
		if r.signature(place, &types.SystemContext{RootForImplicitAbsolutePaths: root}) == place {
			read = append(read, place)
		}
	}
	return strings.Join(read, " and ")
}

// policyRead returns which policy.json counts, of those that are named.
func policyRead(name string) string {
	must(os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".config")))
	must(os.Unsetenv("CONTAINERS_POLICY_JSON"))
	root := temp()
	for _, place := range strings.Split(name, " and ") {
		path, ok := places(root, "policy.json")[place]
		if !ok {
			path = filepath.Join(root, "elsewhere.json")
			must(os.Setenv("CONTAINERS_POLICY_JSON", path))
		}
		write(path, `{"default":[{"type":"reject"}],"transports":{"`+place+`":{"":[{"type":"reject"}]}}}`)
	}
	policy, err := signature.DefaultPolicy(&types.SystemContext{RootForImplicitAbsolutePaths: root})
	must(os.Unsetenv("CONTAINERS_POLICY_JSON"))
	if err != nil {
		return "none"
	}
	for place := range policy.Transports {
		return place
	}
	return ""
}
