package sources

import (
	"context"
	"strings"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cluster"
)

// clusterSource finds the images of a cluster's pods and of its nodes' stores.
type clusterSource struct{ client *cluster.Client }

func (s clusterSource) Uses(ctx context.Context, yield func(audit.Use) error) error {
	err := s.client.Pods(ctx, func(p cluster.Pod) error {
		by := p.Namespace + "/" + strings.ToLower(p.Kind) + "/" + p.Owner + "@" + p.Node
		for _, i := range p.Images {
			w := workload{image: i.Reference, namespace: p.Namespace, kind: p.Kind, name: p.Owner, agent: p.Agent}
			if err := yield(audit.Use{Image: i.Reference, Digest: i.Digest, By: by, Role: w.role()}); err != nil {
				return err
			}
		}
		return nil
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
		if err := yield(audit.Use{
			Image: i.Reference, Digest: i.Digest, By: by,
			Role: workload{image: i.Reference}.role(),
		}); err != nil {
			return err
		}
	}
	return nil
}
