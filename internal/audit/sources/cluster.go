package sources

import (
	"context"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cluster"
)

// clusterSource finds the images of a cluster's pods and of its nodes' stores.
type clusterSource struct{ client *cluster.Client }

func (s clusterSource) Uses(ctx context.Context, yield func(audit.Use) error) error {
	err := s.client.Pods(ctx, func(p cluster.Pod) error {
		return workload{namespace: p.Namespace, kind: p.Kind, name: p.Owner, agent: p.Agent}.uses(p.Images, p.Node, yield)
	})
	if err != nil {
		return err
	}
	return s.client.CachedImages(ctx, func(c cluster.CachedImage) error {
		return cached(c.Names, "cached@"+c.Node, yield)
	})
}

// cached yields an image of a store once for each name.
func cached(names []string, by string, yield func(audit.Use) error) error {
	for _, i := range cluster.References(names) {
		role := workload{image: i.Reference}.role()
		if err := yield(audit.Use{Image: i.Reference, Digest: i.Digest, By: by, Role: role}); err != nil {
			return err
		}
	}
	return nil
}
