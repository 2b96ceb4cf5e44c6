package sources

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/outside"
)

// ManifestsDir is the kubelets' conventional directory of static pods, as a path of the host.
const ManifestsDir = "etc/kubernetes/manifests"

// staticSource finds the images of static pods in their files, which need no API server.
type staticSource struct{ root, node string }

type staticPod struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name      string            `yaml:"name"`
		Namespace string            `yaml:"namespace"`
		Labels    map[string]string `yaml:"labels"`
	} `yaml:"metadata"`
	Spec struct {
		Init       []staticContainer `yaml:"initContainers"`
		Containers []staticContainer `yaml:"containers"`
		Volumes    []struct {
			Image struct {
				Reference string `yaml:"reference"`
			} `yaml:"image"`
		} `yaml:"volumes"`
	} `yaml:"spec"`
	Items []staticPod `yaml:"items"`
}

type staticContainer struct {
	Image string `yaml:"image"`
}

func (s staticSource) Uses(ctx context.Context, yield func(audit.Use) error) error {
	host, err := os.OpenRoot(s.root)
	if err != nil {
		return fmt.Errorf("reading static pods: %w", err)
	}
	defer host.Close()
	root, err := host.OpenRoot(ManifestsDir)
	if err != nil {
		return fmt.Errorf("reading static pods: %w", onHost(err, ""))
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("reading static pods: %w", onHost(err, ""))
	}
	if len(entries) > maxManifests {
		return fmt.Errorf("reading static pods: more than %d files in /%s", maxManifests, ManifestsDir)
	}
	for _, e := range entries {
		// As the kubelet does.
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := bounded.ReadRegular(root.OpenFile, e.Name(), maxManifest)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, bounded.ErrDirectory) {
			continue // removed meanwhile, a dangling link or a directory
		}
		if err != nil {
			return fmt.Errorf("reading static pods: %w", onHost(err, e.Name()))
		}
		if err := s.file(b, yield); err != nil {
			return fmt.Errorf("reading static pod %s: %w", path.Join("/", ManifestsDir, outside.Text(e.Name())), err)
		}
	}
	return nil
}

// onHost gives an error about a file of ManifestsDir, or about the directory, the path on the host.
func onHost(err error, name string) error {
	if e, ok := err.(*fs.PathError); ok {
		return &fs.PathError{Op: e.Op, Path: path.Join("/", ManifestsDir, outside.Text(name)), Err: e.Err}
	}
	return fmt.Errorf("/%s/%w", ManifestsDir, err) // it begins with the name
}

func (s staticSource) file(b []byte, yield func(audit.Use) error) error {
	dec := yaml.NewDecoder(bytes.NewReader(b)) // JSON is YAML
	for {
		var p staticPod
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		pods := []staticPod{p}
		if p.Kind == "PodList" || p.Kind == "List" {
			pods = p.Items
		}
		for _, p := range pods {
			if err := s.pod(p, yield); err != nil {
				return err
			}
		}
	}
}

func (s staticSource) pod(p staticPod, yield func(audit.Use) error) error {
	w := workload{namespace: cmp.Or(p.Metadata.Namespace, "default"), kind: cluster.StaticPod, name: p.Metadata.Name}
	var images []cluster.PodImage
	for _, c := range append(p.Spec.Init, p.Spec.Containers...) {
		images = append(images, cluster.PodImage{Reference: c.Image})
	}
	for _, v := range p.Spec.Volumes {
		images = append(images, cluster.PodImage{Reference: v.Image.Reference})
	}
	return w.uses(images, s.node, yield)
}
