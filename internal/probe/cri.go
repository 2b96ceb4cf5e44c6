package probe

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodetrust/nodetrust/internal/cri"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// criClient talks to the image service of a CRI runtime. Access to the socket is as good as root on the node, so it
// calls only PullImage, ImageStatus and RemoveImage of the canaries' references, and Version.
type criClient struct {
	conn   *grpc.ClientConn
	images runtimeapi.ImageServiceClient
	auth   credentials
}

// dialCRI connects lazily: a missing socket fails the first call.
func dialCRI(address, authfile string) (*criClient, error) {
	auth, err := readAuthfile(authfile)
	if err != nil {
		return nil, err
	}
	conn, err := cri.Dial(address)
	if err != nil {
		return nil, err
	}
	return &criClient{conn: conn, images: runtimeapi.NewImageServiceClient(conn), auth: auth}, nil
}

func (c *criClient) Close() { _ = c.conn.Close() }

// absent reports whether the store surely lacks the image.
func (c *criClient) absent(ctx context.Context, ref string) bool {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	resp, err := c.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	return err == nil && resp.GetImage() == nil
}

// remove removes by reference: an ID would remove every other name of the image too.
func (c *criClient) remove(ctx context.Context, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	_, err := c.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	return err
}

// pull pulls as for a pod of the namespace; the empty namespace is governed by the system's policy.
func (c *criClient) pull(ctx context.Context, ref, namespace string) verdict.Verdict {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	req := &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}, Auth: c.auth.forImage(ref)}
	if namespace != "" {
		req.SandboxConfig = &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{
			Name: "nodetrust-probe", Uid: "nodetrust-probe", Namespace: namespace,
		}}
	}
	if _, err := c.images.PullImage(ctx, req); err != nil {
		return pullFailure(err)
	}
	return answer(verdict.Accept, "", "pulled")
}

// pullFailure separates failures of the call itself from answers of the runtime.
func pullFailure(err error) verdict.Verdict {
	s := status.Convert(err)
	switch s.Code() {
	case codes.DeadlineExceeded:
		return answer(verdict.Unknown, verdict.Timeout, "the runtime did not answer in time")
	case codes.Canceled:
		return answer(verdict.Unknown, verdict.Timeout, "the probe was cut short")
	case codes.Unavailable, codes.Unimplemented, codes.PermissionDenied, codes.ResourceExhausted:
		return answer(verdict.Unknown, verdict.RuntimeFailed, s.Message())
	}
	return classifyCRI(s.Message())
}

func runCRI(ctx context.Context, canaries []trust.Canary, o Options) ([]judge.Canary, error) {
	c, err := dialCRI(o.CRISocket, o.Authfile)
	if err != nil {
		return nil, err
	}
	defer c.Close()

	absent := []string{}
	ours := map[string]bool{}
	for _, ref := range o.Owned {
		ours[ref] = true
	}
	for _, canary := range canaries {
		if c.absent(ctx, canary.Image) {
			absent = append(absent, canary.Image)
			ours[canary.Image] = true
		}
	}
	if err := o.announce(absent); err != nil {
		return nil, err
	}
	defer c.sweep(ctx, canaries, ours, o.KeepAccepted)

	var out []judge.Canary
	for _, canary := range canaries {
		out = append(out, result(canary, CRI, "", c.pull(ctx, canary.Image, "")))
	}
	names, err := namespaces(o.Root)
	if err != nil {
		v := answer(verdict.Unknown, verdict.PolicyInvalid, "listing namespaced policies: "+err.Error())
		return append(out, result(canaries[0], CRI, "", v)), nil
	}
	for i, ns := range names {
		for _, canary := range canaries {
			v := answer(verdict.Unknown, verdict.Timeout,
				fmt.Sprintf("not probed: more than %d namespaced policies", maxNamespaces))
			if i < maxNamespaces {
				v = c.pull(ctx, canary.Image, ns)
			}
			out = append(out, result(canary, CRI, ns, v))
		}
	}
	return out, nil
}

// sweep removes the canaries' images that were not there before the round, even when ctx has ended.
func (c *criClient) sweep(ctx context.Context, canaries []trust.Canary, ours map[string]bool, keepAccepted bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*statusTimeout)
	defer cancel()
	for _, canary := range canaries {
		if !ours[canary.Image] || keepAccepted && canary.Expect == verdict.Accept {
			continue
		}
		// An image that stays was announced: the caller of the next round names it as owned.
		_ = c.remove(ctx, canary.Image)
	}
}
