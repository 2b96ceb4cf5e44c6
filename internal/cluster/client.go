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
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodetrust/nodetrust/internal/bounded"
)

const (
	// pageSize bounds one answer of the API server: 500 rows are about 1 MB.
	pageSize = 500
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

// accept asks for tables with the metadata of each object, as kubectl get does: 2 kB for a Node instead of 20, with
// labels, annotations and readiness. The metadata API has no conditions, and a field selector can't choose fields.
const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// table is the used part of a meta.k8s.io/v1 Table, or of a plain list if a server knows no tables.
type table struct {
	Kind     string          `json:"kind"`
	Metadata metav1.ListMeta `json:"metadata"`
	Columns  []struct {
		Name string `json:"name"`
	} `json:"columnDefinitions"`
	Rows []struct {
		Cells  []any  `json:"cells"`
		Object object `json:"object"`
	} `json:"rows"`
	Items []object `json:"items"`
}

// object is the used part of an object. Spec and Status are set only if the server sends whole objects.
type object struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Phase    string `json:"phase"`
		NodeInfo struct {
			ContainerRuntimeVersion string `json:"containerRuntimeVersion"`
		} `json:"nodeInfo"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

type row struct {
	object
	cells map[string]string
}

// is returns the status of a condition of a whole object, or "" without it.
func (o object) is(condition string) string {
	for _, c := range o.Status.Conditions {
		if c.Type == condition {
			return c.Status
		}
	}
	return ""
}

// list returns all objects at path, page by page, and the version from which a watch continues.
func (c *Client) list(ctx context.Context, path, selector string) ([]row, string, error) {
	for n := 1; ; n++ {
		rows, version, err := c.listOnce(ctx, path, selector)
		if n < attempts && apierrors.IsResourceExpired(err) {
			continue
		}
		return rows, version, err
	}
}

func (c *Client) listOnce(ctx context.Context, path, selector string) (rows []row, version string, err error) {
	query := map[string]string{"limit": strconv.Itoa(pageSize), "includeObject": "Metadata"}
	if selector != "" {
		query["labelSelector"] = selector
	}
	for {
		t, err := c.page(ctx, path, query)
		if err != nil {
			return nil, "", err
		}
		rows = append(rows, t.rows()...)
		if t.Metadata.Continue == "" {
			return rows, t.Metadata.ResourceVersion, nil
		}
		query["continue"] = t.Metadata.Continue
	}
}

func (c *Client) page(ctx context.Context, path string, query map[string]string) (table, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var t table
	body, err := c.get(ctx, path, accept, query)
	if err != nil {
		return t, err
	}
	defer body.Close()
	b, err := bounded.Read(body, maxPage)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return t, fmt.Errorf("reading %s: %w", path, err)
	}
	return t, nil
}

// get asks for path in one of the formats of accept. An answer other than 200 is an error that apierrors classifies.
func (c *Client) get(ctx context.Context, path, accept string, query map[string]string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base(path), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	q := req.URL.Query()
	for k, v := range query {
		q.Set(k, v)
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
		switch res.StatusCode {
		case http.StatusUnauthorized:
			status.Reason = metav1.StatusReasonUnauthorized
		case http.StatusForbidden:
			status.Reason = metav1.StatusReasonForbidden
		case http.StatusGone:
			status.Reason = metav1.StatusReasonExpired
		}
	}
	status.Code = cmp.Or(status.Code, int32(res.StatusCode))
	return nil, &apierrors.StatusError{ErrStatus: status}
}

func (t table) rows() []row {
	var out []row
	for _, o := range t.Items {
		out = append(out, row{object: o})
	}
	for _, r := range t.Rows {
		x := row{object: r.Object, cells: map[string]string{}}
		for i, cell := range r.Cells {
			if s, ok := cell.(string); ok && i < len(t.Columns) {
				x.cells[t.Columns[i].Name] = s
			}
		}
		out = append(out, x)
	}
	return out
}

// IsForbidden reports whether err means that the caller lacks the right to read.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// watch calls changed with each event at path after version, until the server ends the stream, which it does every few
// minutes. An error of type Expired means that a new list is needed.
func (c *Client) watch(ctx context.Context, path, selector, version string, changed func(kind string, r row)) error {
	query := map[string]string{
		"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version, "includeObject": "Metadata",
		"timeoutSeconds": "300",
	}
	if selector != "" {
		query["labelSelector"] = selector
	}
	body, err := c.get(ctx, path, accept, query)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	var columns table // of the first event: later ones leave them out
	for {
		var event struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		err := dec.Decode(&event)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("watching %s: %w", path, err)
		}
		if event.Type == "ERROR" {
			var status metav1.Status
			_ = json.Unmarshal(event.Object, &status)
			return &apierrors.StatusError{ErrStatus: status}
		}
		if event.Type == "BOOKMARK" {
			continue
		}
		var t table
		if err := json.Unmarshal(event.Object, &t); err != nil {
			return fmt.Errorf("watching %s: %w", path, err)
		}
		if t.Kind != "Table" {
			var o object
			if err := json.Unmarshal(event.Object, &o); err != nil {
				return fmt.Errorf("watching %s: %w", path, err)
			}
			t.Items = []object{o}
		}
		if len(t.Columns) == 0 {
			t.Columns = columns.Columns
		}
		columns.Columns = t.Columns
		for _, r := range t.rows() {
			changed(event.Type, r)
		}
	}
}
