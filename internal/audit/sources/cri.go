package sources

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cri"
	"github.com/nodetrust/nodetrust/internal/ref"
)

const criTimeout = 30 * time.Second

// criSource finds the images of a CRI runtime's containers and store.
type criSource struct{ address, node string }

func (s criSource) Uses(ctx context.Context, yield func(audit.Use) error) error {
	conn, err := cri.Dial(s.address, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxListing)))
	if err != nil {
		return err
	}
	defer conn.Close()
	l := criListing{runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn)}
	if err := l.read(ctx); err != nil {
		return fmt.Errorf("asking the runtime at %s: %w", cri.SocketPath(s.address), err)
	}
	for _, c := range l.containers {
		if err := s.container(&l, c, yield); err != nil {
			return err
		}
	}
	if l.pause != "" {
		use := audit.Use{Image: l.pause, Digest: l.digest(l.pause), By: "cri@" + s.node, Role: audit.Pause}
		if err := yield(use); err != nil {
			return err
		}
	}
	for _, i := range l.stored {
		if err := cached(append(i.GetRepoTags(), i.GetRepoDigests()...), "cri@"+s.node, yield); err != nil {
			return err
		}
	}
	return nil
}

// container yields the image of one container, as its pod names it.
func (s criSource) container(l *criListing, c *runtimeapi.Container, yield func(audit.Use) error) error {
	const pod, namespace, app = "io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "app.kubernetes.io/name"
	sandbox := l.sandboxes[c.GetPodSandboxId()]
	w := workload{namespace: c.GetLabels()[namespace], kind: "Pod", name: c.GetLabels()[pod]}
	w.agent = sandbox.GetLabels()[app] == "nodetrust-agent"
	if sandbox.GetAnnotations()["kubernetes.io/config.source"] == "file" {
		w.kind, w.name = cluster.StaticPod, strings.TrimSuffix(w.name, "-"+s.node)
	}
	return w.uses(l.references(c), s.node, yield)
}

type criListing struct {
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient

	containers []*runtimeapi.Container
	sandboxes  map[string]*runtimeapi.PodSandbox // by ID
	stored     []*runtimeapi.Image
	pause      string
}

func (l *criListing) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, criTimeout)
	defer cancel()
	sandboxes, err := l.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	l.sandboxes = map[string]*runtimeapi.PodSandbox{}
	for _, s := range sandboxes.GetItems() {
		l.sandboxes[s.GetId()] = s
	}
	containers, err := l.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return err
	}
	l.containers = containers.GetContainers()
	images, err := l.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return err
	}
	l.stored = images.GetImages()
	status, err := l.runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		return err
	}
	// CRI-O and containerd give the name here; for others the image's name or its pin must do.
	var config struct {
		SandboxImage string `json:"sandboxImage"`
	}
	_ = json.Unmarshal([]byte(status.GetInfo()["config"]), &config)
	l.pause = config.SandboxImage
	return nil
}

// references returns the names by which a container's image is judged: the name in its pod, if the runtime keeps it.
// CRI-O keeps the digest only, but the pod may have named a tag: so the tags of the image in this repository are
// added. For a bare ID they are the names of the image.
func (l *criListing) references(c *runtimeapi.Container) []cluster.PodImage {
	if name := c.GetImage().GetUserSpecifiedImage(); isName(name) {
		return []cluster.PodImage{{Reference: name, Digest: l.digest(name)}}
	}
	stored := l.byID(cmp.Or(c.GetImageId(), c.GetImage().GetImage(), c.GetImageRef()))
	name := c.GetImage().GetImage()
	if l.byID(name) != nil || !isName(name) {
		if stored != nil {
			return cluster.References(append(stored.GetRepoTags(), stored.GetRepoDigests()...))
		}
		return []cluster.PodImage{{Reference: c.GetImageRef()}}
	}
	out := []cluster.PodImage{{Reference: name, Digest: l.digest(name)}}
	if digest := ref.Digest(name); digest != "" {
		for _, tag := range stored.GetRepoTags() {
			if ref.Name(tag) == ref.Name(name) {
				out = append(out, cluster.PodImage{Reference: tag, Digest: digest})
			}
		}
	}
	return out
}

// isName reports whether s is the name of an image and not its ID.
func isName(s string) bool {
	return strings.ContainsAny(s, "/:.") && !strings.HasPrefix(s, "sha256:")
}

func (l *criListing) byID(id string) *runtimeapi.Image {
	for _, i := range l.stored {
		if id != "" && strings.TrimPrefix(i.GetId(), "sha256:") == strings.TrimPrefix(id, "sha256:") {
			return i
		}
	}
	return nil
}

// digest returns the digest of the stored image of this name, if only one of the repository is stored.
func (l *criListing) digest(name string) string {
	if d := ref.Digest(name); d != "" {
		return d
	}
	for _, i := range l.stored {
		for _, r := range cluster.References(append(i.GetRepoTags(), i.GetRepoDigests()...)) {
			if r.Reference == name {
				return r.Digest
			}
		}
	}
	return ""
}
