package cluster

import (
	"context"
	"fmt"
	"strings"

	"github.com/nodetrust/nodetrust/internal/ref"
)

// CachedImage is an image in a node's store.
type CachedImage struct {
	Node string
	// Names are all names that the node's runtime has for it: name:tag and name@digest.
	Names []string
}

// CachedImages calls yield with the images that nodes report: by default the kubelet's 50 largest. It returns an error
// of yield.
func (c *Client) CachedImages(ctx context.Context, yield func(CachedImage) error) error {
	type nodeObject struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Status struct {
			Images []struct {
				Names []string `json:"names"`
			} `json:"images"`
		} `json:"status"`
	}
	err := eachOf(ctx, c, nodesPath, "", func(n nodeObject) error {
		for _, image := range n.Status.Images {
			if err := yield(CachedImage{n.Metadata.Name, image.Names}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing the images of nodes: %w", err)
	}
	return nil
}

// References returns the names by which a stored image is judged: its tags, each with the digest if its repository has
// just one, or its digests if it has no tag.
func References(names []string) []PodImage {
	digests := map[string][]string{}
	var tagged, digested []PodImage
	for _, name := range names {
		if strings.Contains(name, "<none>") {
			continue
		}
		if repo, d, ok := strings.Cut(name, "@"); ok {
			digests[repo] = append(digests[repo], d)
			digested = append(digested, PodImage{Reference: name, Digest: d})
			continue
		}
		tagged = append(tagged, PodImage{Reference: name})
	}
	for i, t := range tagged {
		if d := digests[ref.Name(t.Reference)]; len(d) == 1 {
			tagged[i].Digest = d[0]
		}
	}
	if len(tagged) > 0 {
		return tagged
	}
	return digested
}
