// Package registriesd knows what registries.d directories say: where the signatures of an image are looked up, and
// whether the image library loads the files at all.
package registriesd

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/hostfs"
)

// DefaultLookaside is what the image library reads for root when no registries.d file names a lookaside.
const DefaultLookaside = "file:///var/lib/containers/sigstore"

// Config is what registries.d files say, merged as the image library merges them.
type Config struct {
	DefaultDocker *namespace           `yaml:"default-docker,omitempty"`
	Docker        map[string]namespace `yaml:"docker,omitempty"`

	defaultFile string
	files       map[string]string // by scope: the file that names it
}

// namespace has the library's fields; staging entries are for signing only.
type namespace struct {
	Lookaside   string `yaml:"lookaside,omitempty"`
	SigStore    string `yaml:"sigstore,omitempty"`
	Attachments *bool  `yaml:"use-sigstore-attachments,omitempty"`
}

func (n namespace) url() string {
	if n.Lookaside != "" {
		return n.Lookaside
	}
	return n.SigStore
}

// Merge merges files that the library has loaded: no scope is in two of them.
func Merge(files []File) (Config, error) {
	out := Config{Docker: map[string]namespace{}, files: map[string]string{}}
	for _, f := range files {
		var one Config
		if err := yaml.Unmarshal(f.Data, &one); err != nil {
			return out, fmt.Errorf("parsing %s: %w", f.Path, err)
		}
		if one.DefaultDocker != nil {
			out.DefaultDocker, out.defaultFile = one.DefaultDocker, f.Path
		}
		for scope, ns := range one.Docker {
			out.Docker[scope], out.files[scope] = ns, f.Path
		}
	}
	return out, nil
}

// Below returns a copy for the library in which the host's file: lookasides, the built-in default among them, are
// where they lie on this machine. The default is spelled out always, because the library would take another one for
// users that are not root, and nodes pull as root.
func (r Config) Below(host hostfs.Root) Config {
	move := func(n namespace) namespace {
		n.Lookaside, n.SigStore = OnThisMachine(host, n.Lookaside), OnThisMachine(host, n.SigStore)
		return n
	}
	out := Config{Docker: make(map[string]namespace, len(r.Docker))}
	for scope, ns := range r.Docker {
		out.Docker[scope] = move(ns)
	}
	var def namespace
	if r.DefaultDocker != nil {
		def = *r.DefaultDocker
	}
	if def.url() == "" {
		def.Lookaside = DefaultLookaside
	}
	def = move(def)
	out.DefaultDocker = &def
	return out
}

// Marshal is the form in which the library reads it.
func (r Config) Marshal() ([]byte, error) { return yaml.Marshal(r) }

// OnThisMachine moves a file: URL of a host to where its tree lies on this machine.
func OnThisMachine(host hostfs.Root, s string) string {
	if host.IsThisMachine() || !strings.HasPrefix(s, "file:") {
		return s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host != "" {
		return s
	}
	path, err := host.Real(u.Path)
	if err != nil {
		return s
	}
	u.Path = path
	return u.String()
}

// Scopes are those that the library tries for an image, in its order.
func Scopes(ref types.ImageReference) []string {
	return append([]string{ref.PolicyConfigurationIdentity()}, ref.PolicyConfigurationNamespaces()...)
}

// Lookaside is where the signatures of an image are looked up, as the host sees it, and the file that names it. The
// URL may be none, and may hold a password: see WithoutPassword.
func (r Config) Lookaside(ref types.ImageReference) (at, file string) {
	base, file, _ := r.Lookup(ref)
	repo := "/" + reference.Path(ref.DockerReference())
	u, err := url.Parse(base)
	if err != nil {
		return base + repo, file
	}
	u.Path += repo // put together as the library does it
	return u.String(), file
}

// Lookup returns the lookaside base for an image, and the file that names it; and whether sigstore attachments are
// read. Each key is inherited alone.
func (r Config) Lookup(ref types.ImageReference) (base, file string, attachments bool) {
	var att *bool
	for _, scope := range Scopes(ref) {
		ns, ok := r.Docker[scope]
		if !ok {
			continue
		}
		if base == "" && ns.url() != "" {
			base, file = ns.url(), r.files[scope]
		}
		if att == nil {
			att = ns.Attachments
		}
	}
	if r.DefaultDocker != nil {
		if base == "" && r.DefaultDocker.url() != "" {
			base, file = r.DefaultDocker.url(), r.defaultFile
		}
		if att == nil {
			att = r.DefaultDocker.Attachments
		}
	}
	if base == "" {
		base = DefaultLookaside
	}
	return base, file, att != nil && *att
}

// WithoutPassword is a lookaside's URL as it may be shown. In one that doesn't parse, or has its password in another
// place than URLs have, all that could be one is left out: from the first colon behind the scheme to the last @.
func WithoutPassword(s string) string {
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		return u.Redacted()
	case err == nil && (u.Host != "" || u.Scheme == "file"):
		return s
	}
	at := strings.LastIndex(s, "@")
	if at < 0 {
		return s
	}
	from := 0
	if scheme, _, ok := strings.Cut(s[:at], "://"); ok && !strings.Contains(scheme, ":") {
		from = len(scheme) + len("://")
	}
	colon := strings.Index(s[from:at], ":")
	if colon < 0 {
		return s
	}
	return s[:from+colon] + ":xxxxx" + s[at:]
}

// Discreet is an error of the library without the passwords of lookasides: it tells that of a URL which doesn't
// parse, or has it in another place than URLs have.
func (r Config) Discreet(err error) error {
	var pairs []string
	hide := func(n namespace) {
		s := n.url()
		safe := WithoutPassword(s)
		if safe == s {
			return
		}
		forms := []string{s}
		if u, bad := url.Parse(s); bad == nil {
			forms = append(forms, u.String())
		} else { // which tells parts of it too
			pairs = append(pairs, s+": "+bad.Error(), safe+": is no URL")
		}
		for _, form := range forms {
			pairs = append(pairs, form, safe, strings.Trim(strconv.Quote(form), `"`), safe)
		}
	}
	if r.DefaultDocker != nil {
		hide(*r.DefaultDocker)
	}
	for _, ns := range r.Docker {
		hide(ns)
	}
	return Reworded(err, pairs...)
}
