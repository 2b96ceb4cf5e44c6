package verify

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/distribution/registry/client/auth/challenge"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/pkg/tlsclientconfig"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/verify/fetch"
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
// referrers, so this is a client of its own, with the library's certificates and credentials.
func (e *evaluation) attachments(ctx context.Context, physical types.ImageReference) (a attached) {
	named := physical.DockerReference()
	ctx, cancel := context.WithTimeout(ctx, attachedTimeout)
	defer cancel()
	var ask func(path ...string) (status int, body []byte, err error)
	if e.fetched != nil {
		ask = func(path ...string) (int, []byte, error) {
			return e.fetched.Beside(ctx, maxAttached, acceptAttached, path...)
		}
	} else {
		base := e.registryURL(named)
		if base == nil {
			return a
		}
		q := query{evaluation: e, named: named, insecure: e.insecure(named)}
		repo := base.JoinPath("v2", reference.Path(named))
		ask = func(path ...string) (int, []byte, error) { return q.get(ctx, repo.JoinPath(path...)) }
	}
	hex := strings.Replace(e.v.Digest, ":", "-", 1)
	if status, _, err := ask("manifests", hex+".sig"); err == nil {
		a.asked, a.cosign = true, status == http.StatusOK
	}
	for _, path := range [][]string{{"referrers", e.v.Digest}, {"manifests", hex}} {
		status, body, err := ask(path...)
		if err != nil || status != http.StatusOK {
			continue
		}
		if a.read(body) {
			break
		}
	}
	return a
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
		case strings.HasPrefix(m.ArtifactType, "application/vnd.dev.sigstore.bundle"), m.Annotations["dev.sigstore.bundle.content"] != "":
			a.bundle = true
		case strings.HasPrefix(m.ArtifactType, "application/vnd.cncf.notary.signature"):
			a.notation = true
		}
	}
	return true
}

// registryURL is where the library reached the registry; nil if it didn't, or not through this evaluation.
func (e *evaluation) registryURL(named reference.Named) *url.URL {
	for _, u := range e.requests.Since(0) {
		if u.Host == fetch.Host(named) && strings.HasPrefix(u.Path, "/v2/"+reference.Path(named)+"/manifests/") {
			return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}
		}
	}
	return nil
}

// insecure is true if certificates of the place don't count.
func (e *evaluation) insecure(named reference.Named) bool {
	if o := e.sys.DockerInsecureSkipTLSVerify; o != types.OptionalBoolUndefined {
		return o == types.OptionalBoolTrue
	}
	logical := e.target.logical.DockerReference()
	registry, err := sysregistriesv2.FindRegistry(&e.sys, logical.Name())
	if err != nil || registry == nil {
		return false
	}
	sources, err := registry.PullSourcesFromReference(logical)
	if err != nil {
		return false
	}
	for _, s := range sources {
		if s.Reference.Name() == named.Name() {
			return s.Endpoint.Insecure
		}
	}
	return false
}

// query asks one registry a few questions.
type query struct {
	*evaluation
	named         reference.Named
	insecure      bool
	client        *http.Client
	authorization string
}

// get answers 401 once, with a token or with the name and password for the registry.
func (q *query) get(ctx context.Context, u *url.URL) (status int, body []byte, err error) {
	for range 2 {
		var res *http.Response
		if res, body, err = q.do(ctx, u, q.authorization); err != nil {
			return 0, nil, err
		}
		q.asked = append(q.asked, Asked{URL: u.Redacted(), Answer: res.Status, After: true})
		if res.StatusCode != http.StatusUnauthorized || q.authorization != "" {
			return res.StatusCode, body, nil
		}
		if err := q.authorize(ctx, u, res); err != nil {
			return 0, nil, err
		}
	}
	return 0, nil, errors.New("not let in")
}

func (q *query) do(ctx context.Context, u *url.URL, authorization string) (*http.Response, []byte, error) {
	if q.client == nil {
		tlsc := &tls.Config{InsecureSkipVerify: q.insecure} //nolint:gosec // as registries.conf says
		dir := cmp.Or(q.sys.DockerCertPath, filepath.Join(q.sys.DockerPerHostCertDirPath, u.Host))
		if err := tlsclientconfig.SetupCertificates(dir, tlsc); err != nil {
			return nil, nil, err
		}
		tr := tlsclientconfig.NewTransport()
		tr.TLSClientConfig, tr.DisableKeepAlives = tlsc, true
		q.client = &http.Client{Transport: tr}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("User-Agent", q.sys.DockerRegistryUserAgent)
	req.Header.Set("Accept", acceptAttached)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := q.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAttached))
	return res, body, err
}

// authorize finds out how to be let in. Name and password go to the registry itself, or over HTTPS, only.
func (q *query) authorize(ctx context.Context, u *url.URL, res *http.Response) error {
	creds, err := config.GetCredentialsForRef(&q.sys, q.named)
	if err != nil {
		return err
	}
	basic := ""
	if creds.Username != "" && creds.IdentityToken == "" {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(creds.Username, creds.Password)
		basic = r.Header.Get("Authorization")
	}
	for _, c := range challenge.ResponseChallenges(res) {
		switch c.Scheme {
		case "basic":
			if basic != "" {
				q.authorization = basic
				return nil
			}
		case "bearer":
			realm, err := url.Parse(c.Parameters["realm"])
			if err != nil {
				return err
			}
			if realm.Scheme != "https" && realm.Host != u.Host {
				basic = ""
			}
			v := url.Values{"service": {c.Parameters["service"]}, "scope": {"repository:" + reference.Path(q.named) + ":pull"}}
			realm.RawQuery = v.Encode()
			token, body, err := q.do(ctx, realm, basic)
			if err != nil {
				return err
			}
			if token.StatusCode != http.StatusOK {
				return fmt.Errorf("token: %s", token.Status)
			}
			var t struct {
				Token       string `json:"token"`
				AccessToken string `json:"access_token"`
			}
			if err := json.Unmarshal(body, &t); err != nil {
				return err
			}
			q.authorization = "Bearer " + cmp.Or(t.Token, t.AccessToken)
			return nil
		}
	}
	return errors.New("no way in")
}
