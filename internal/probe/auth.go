package probe

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/policy"
)

const maxAuthfile = 1 << 20

// credentials are the logins of a containers-auth.json by registry, or by registry and namespace.
type credentials map[string]*runtimeapi.AuthConfig

// readAuthfile reads a containers-auth.json. The empty path is no logins. Its errors carry no content.
func readAuthfile(path string) (credentials, error) {
	if path == "" {
		return nil, nil
	}
	b, err := bounded.ReadFile(path, maxAuthfile)
	if err != nil {
		return nil, fmt.Errorf("reading the auth file: %w", err)
	}
	var file struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", path, withoutContent(err))
	}
	out := credentials{}
	for scope, a := range file.Auths {
		login, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return nil, fmt.Errorf("parsing %s: the login for %s is not base64", path, scope)
		}
		user, password, _ := strings.Cut(string(login), ":")
		if user == "" && a.IdentityToken == "" {
			continue
		}
		out[normalizeScope(scope)] = &runtimeapi.AuthConfig{
			Username: user, Password: strings.TrimRight(password, "\x00"), IdentityToken: a.IdentityToken,
		}
	}
	return out, nil
}

func withoutContent(err error) error {
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("no JSON at byte %d", s.Offset)
	}
	return errors.New("not of the form of an auth file")
}

// normalizeScope turns the URL forms that docker writes into a host.
func normalizeScope(scope string) string {
	s := strings.TrimPrefix(strings.TrimPrefix(scope, "https://"), "http://")
	if s == scope {
		return strings.TrimSuffix(s, "/")
	}
	host, _, _ := strings.Cut(s, "/")
	if host == "index.docker.io" {
		return "docker.io"
	}
	return host
}

// forImage returns the login of the most specific scope of a reference, or nil.
func (c credentials) forImage(reference string) *runtimeapi.AuthConfig {
	for _, name := range policy.Names(reference) {
		if a, ok := c[name]; ok {
			return a
		}
	}
	return nil
}
