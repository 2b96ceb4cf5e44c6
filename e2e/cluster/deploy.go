package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// mayProtect tells whether this machine lets a process be protected from running out of memory: a pod of high
// priority can't start elsewhere.
func mayProtect() (bool, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	_, caps, _ := strings.Cut(string(b), "CapEff:")
	caps, _, _ = strings.Cut(caps, "\n")
	bits, err := strconv.ParseUint(strings.TrimSpace(caps), 16, 64)
	if err != nil {
		return false, fmt.Errorf("reading this process's capabilities: %w", err)
	}
	return bits&(1<<unix.CAP_SYS_RESOURCE) != 0, nil
}

// AgentManifests pushes the agents' image as the Dockerfile makes it, signed by Corp, and returns deploy/ for it,
// with further arguments for the agent. The ConfigMap is Desire's.
func (c *Cluster) AgentManifests(args ...string) ([]byte, error) {
	root, err := lab.ModuleRoot()
	if err != nil {
		return nil, err
	}
	return c.agentManifests(filepath.Join(root, "deploy/kustomize/overlays/kubernetes"), args...)
}

// agentManifests is AgentManifests for another overlay, a directory.
func (c *Cluster) agentManifests(overlay string, args ...string) ([]byte, error) {
	_, image, err := c.pushAgent("team/nodetrust", c.Corp)
	if err != nil {
		return nil, err
	}
	c.Agent = image
	name, digest, _ := strings.Cut(image, "@")
	var patch strings.Builder
	for _, a := range args {
		fmt.Fprintf(&patch, "    - {op: add, path: /spec/template/spec/containers/0/args/-, value: %q}\n", a)
	}
	protect, err := mayProtect()
	if err != nil {
		return nil, err
	}
	if !protect {
		patch.WriteString("    - {op: remove, path: /spec/template/spec/priorityClassName}\n")
	}
	patches := ""
	if patch.Len() > 0 {
		patches = "patches:\n- target: {kind: DaemonSet}\n  patch: |-\n" + patch.String()
	}
	return c.kustomize(overlay, fmt.Sprintf("images: [{name: nodetrust, newName: %q, digest: %q}]\n%s", name,
		digest, patches))
}

// pushAgent pushes the agents' image, signed by key unless that is nil.
func (c *Cluster) pushAgent(repo string, key *fixture.Key) (byTag, byDigest string, err error) {
	dir, err := c.Lab.Image(context.Background())
	if err != nil {
		return "", "", err
	}
	return c.PushLayout(repo, "v1", dir, key)
}

// kustomize builds a directory with more added.
func (c *Cluster) kustomize(dir, more string) ([]byte, error) {
	tmp, err := os.MkdirTemp(c.dir, "kustomize-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	resource, err := filepath.Rel(tmp, dir)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s]\n%s",
		resource, more)
	if err := os.WriteFile(filepath.Join(tmp, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		return nil, err
	}
	out, err := c.Kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", tmp)
	return []byte(out), err
}

// Desire makes a trust config the desired state of the agents of AgentManifests, through `nodetrust render`.
func (c *Cluster) Desire(trust string) error {
	config, err := c.Nodes[0].Render(trust, "--to", "configmap")
	if err != nil {
		return err
	}
	_, err = c.kubectl(config, "-n", "nodetrust", "apply", "--server-side", "-f", "-")
	return err
}
