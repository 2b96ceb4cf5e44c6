// Package cluster reads the agents' reports and their liveness from a cluster. It writes nothing.
package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodetrust/nodetrust/internal/bounded"
)

const (
	// pageSize bounds one answer of the API server: 500 rows are about 1 MB.
	pageSize = "500"
	maxPage  = 64 << 20
	timeout  = 30 * time.Second
	// attempts bounds the tries to read a list that expires between two pages.
	attempts = 3
)

// Config names the cluster to read from. The zero value is kubectl's default.
type Config struct {
	Kubeconfig, Context string
}

// Client reads from one cluster.
type Client struct {
	http   *http.Client
	base   func(path string) string
	server string
}

// New makes a client as kubectl would: from --kubeconfig, $KUBECONFIG, ~/.kube/config or, in a pod, its
// ServiceAccount. It does not contact the server.
func New(c Config) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.Kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: c.Context}).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New("there is none") // client-go advises a variable that is long deprecated
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.UserAgent = "nodetrust"
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making the API client: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("making the API client: %w", err)
	}
	return &Client{
		http: client, server: base.Host,
		base: func(path string) string { return base.JoinPath(path).String() },
	}, nil
}

// Contexts returns the sorted contexts of the kubeconfig that New would read, or none if it can't be read.
func Contexts(kubeconfig string) []string {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := rules.Load()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(config.Contexts))
}

// Server returns the host and port of the API server.
func (c *Client) Server() string { return c.server }

// readJSON reads one answer of at most limit bytes, within the time of a request.
func readJSON[T any](ctx context.Context, c *Client, path, accept string, query map[string]string, limit int64) (
	v T, err error,
) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := c.get(ctx, path, accept, query)
	if err != nil {
		return v, err
	}
	defer body.Close()
	b, err := bounded.Read(body, limit)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field == "items" {
		err = fmt.Errorf("items is no list but %s", wrong.Value)
	}
	if err != nil {
		return v, fmt.Errorf("reading %s: %w", path, err)
	}
	return v, nil
}

// retry calls read until it ends otherwise than by a list that expires between two pages, but not for ever.
func retry(read func() error) (err error) {
	for range attempts {
		if err = read(); !expired(err) {
			break
		}
	}
	return err
}

// get asks for path in one of the formats of accept; empty values of query are left out. An answer other than 200 is an
// error that apierrors classifies.
func (c *Client) get(ctx context.Context, path, accept string, query map[string]string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base(path), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	q := req.URL.Query()
	for k, v := range query {
		if v != "" {
			q.Set(k, v)
		}
	}
	req.URL.RawQuery = q.Encode()
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reading from the API server: %w", err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var status metav1.Status
	if json.Unmarshal(b, &status) != nil || status.Kind != "Status" {
		status = metav1.Status{Message: http.StatusText(res.StatusCode), Reason: metav1.StatusReasonUnknown}
	}
	status.Code = cmp.Or(status.Code, int32(res.StatusCode))
	return nil, &apierrors.StatusError{ErrStatus: status}
}

// IsForbidden reports whether err means that the caller lacks the right to read.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// expired reports whether a list must be read anew.
func expired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }
