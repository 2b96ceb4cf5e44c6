package cluster

import (
	"context"
	"fmt"
	"net/url"
)

// ConfigMap is the used part of a ConfigMap.
type ConfigMap struct {
	Metadata struct {
		Name      string            `json:"name"`
		Namespace string            `json:"namespace"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
	// BinaryData is base64.
	BinaryData map[string]string `json:"binaryData"`
}

// ConfigMaps returns the ConfigMaps of a namespace that have a label.
func (c *Client) ConfigMaps(ctx context.Context, namespace, label string) ([]ConfigMap, error) {
	var out []ConfigMap
	path := "/api/v1/namespaces/" + url.PathEscape(namespace) + "/configmaps"
	err := eachOf(ctx, c, path, label, func(m ConfigMap) error {
		out = append(out, m)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing ConfigMaps in %s: %w", namespace, err)
	}
	return out, nil
}
