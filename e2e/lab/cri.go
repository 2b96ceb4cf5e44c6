package lab

import (
	"context"
	"fmt"
	"sort"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (n *Node) images(f func(context.Context, cri.ImageServiceClient) error) error {
	conn, err := grpc.NewClient("unix://"+n.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return f(ctx, cri.NewImageServiceClient(conn))
}

// Pull asks CRI-O to pull image as a pod of namespace would; an empty namespace stands for no pod.
func (n *Node) Pull(image, namespace string) error {
	return n.images(func(ctx context.Context, c cri.ImageServiceClient) error {
		req := &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}}
		if namespace != "" {
			req.SandboxConfig = &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{
				Name: "lab", Uid: "lab",
				Namespace: namespace,
			}}
		}
		_, err := c.PullImage(ctx, req)
		return err
	})
}

// RemoveImage removes image by reference; a missing one is no error.
func (n *Node) RemoveImage(image string) error {
	return n.images(func(ctx context.Context, c cri.ImageServiceClient) error {
		_, err := c.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: image}})
		return err
	})
}

// Images lists the tags and digests of CRI-O's images, sorted.
func (n *Node) Images() ([]string, error) {
	var out []string
	err := n.images(func(ctx context.Context, c cri.ImageServiceClient) error {
		resp, err := c.ListImages(ctx, &cri.ListImagesRequest{})
		if err != nil {
			return fmt.Errorf("listing images: %w", err)
		}
		for _, i := range resp.Images {
			out = append(append(out, i.RepoTags...), i.RepoDigests...)
			if len(i.RepoTags)+len(i.RepoDigests) == 0 {
				out = append(out, i.Id)
			}
		}
		return nil
	})
	sort.Strings(out)
	return out, err
}
