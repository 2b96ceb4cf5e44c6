package cluster

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// kustomization is a copy of deploy/kustomize with an overlay in it, as an admin would write it.
func kustomization(t *testing.T, c *Cluster, files map[string]string) (overlay string) {
	t.Helper()
	root, err := lab.ModuleRoot()
	must(t, err)
	dir, err := os.MkdirTemp(c.dir, "deploy-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(root, "deploy/kustomize"))))
	for name, text := range files {
		must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return filepath.Join(dir, "overlays/own")
}

// TestPools: each pool has a DaemonSet and a desired state of its own; a second one is made as docs/install.md says.
func TestPools(t *testing.T) {
	c := need(t)
	worker, err := os.ReadFile("../../deploy/kustomize/pools/worker/kustomization.yaml")
	must(t, err)
	_, fields, _ := strings.Cut(string(worker), "apiVersion:")
	if n := strings.Count(fields, "worker"); n != 3 {
		t.Errorf("the pool's name is there %d times, docs/install.md says three", n)
	}
	selector := func(pool string) string {
		return fmt.Sprintf(`- target: {kind: DaemonSet, name: nodetrust-agent-%s}
  patch: |-
    - {op: add, path: /spec/template/spec/nodeSelector/pool, value: %s}
`, pool, pool)
	}
	overlay := kustomization(t, c, map[string]string{
		"pools/infra/kustomization.yaml": strings.ReplaceAll(string(worker), "worker", "infra"),
		"overlays/own/kustomization.yaml": "resources: [../../base, ../../pools/worker, ../../pools/infra]\npatches:\n" +
			selector("worker") + selector("infra"),
	})
	manifests, err := c.agentManifests(overlay, brisk...)
	must(t, err)
	pools := map[string]string{"node1": "worker", "node2": "infra"}
	t.Cleanup(func() {
		_, err := c.Kubectl("label", "node", "--all", "pool-")
		must(t, err)
	})
	for node, pool := range pools {
		_, err := c.Kubectl("label", "--overwrite", "node", node, "pool="+pool)
		must(t, err)
	}
	d := deployManifests(t, c, manifests)
	infra := strings.ReplaceAll(c.another("infra"), "pools: [worker]", "pools: [infra]")
	must(t, c.Desire(c.Trust("")))
	must(t, c.Desire(infra))
	digests := map[string]string{}
	for _, n := range c.Nodes {
		digests[settle(t, d.on[n.Name], n.Name, "Enforced").Desired] = n.Name
		p, err := d.pod(n.Name)
		must(t, err)
		if want := "nodetrust-agent-" + pools[n.Name] + "-"; !strings.HasPrefix(p.Metadata.Name, want) {
			t.Errorf("%s has the pod %s, want %s…", n.Name, p.Metadata.Name, want)
		}
	}
	if len(digests) != 2 {
		t.Errorf("the pools have the same desired state: %v", digests)
	}
	// What the one pool rejects by name, the other rejects by default.
	policy := func(n *Node) string {
		b, err := os.ReadFile(n.Path("etc/containers/policy.json"))
		must(t, err)
		return string(b)
	}
	if scope := c.Registry.Host + "/infra"; strings.Contains(policy(c.Nodes[0]), scope) ||
		!strings.Contains(policy(c.Nodes[1]), scope) {
		t.Error("the nodes have the other pool's policy")
	}
	err = lab.Poll(patience, func() error {
		out, err := c.status(t)
		if err != nil || !strings.Contains(out, "worker") || !strings.Contains(out, "infra") {
			err = fmt.Errorf("kubectl nodetrust status: %w\n%s", err, out)
		}
		return err
	})
	must(t, err)
	// The kubelets say which CRI-O they have, and it has a hole: that makes no node bad.
	out, err := c.status(t)
	if _, below, _ := strings.Cut(out, "\nadvisory forged-schema1: "); err != nil ||
		!strings.Contains(below, "(cri-o://1.34.0)") {
		t.Errorf("kubectl nodetrust status says nothing of the hole of CRI-O (%v):\n%s", err, out)
	}
	completed, err := c.plugin(t, "__complete", "nodetrust", "status", "--pool", "").Output()
	if err != nil || string(completed) != "infra\nworker\n:4\n" {
		t.Errorf("kubectl completes --pool with %q (%v)", completed, err)
	}
}

// status is what `nodetrust status` says of the cluster, as the plug-in of kubectl.
func (c *Cluster) status(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := c.plugin(t, append([]string{"nodetrust", "status"}, args...)...).CombinedOutput()
	return string(out), err
}

// plugin is a kubectl that finds nodetrust, and what completes it, as docs/install.md says.
func (c *Cluster) plugin(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Symlink(c.Lab.Programs.Nodetrust, filepath.Join(dir, "nodetrust")))
	must(t, os.Symlink(c.Lab.Programs.Nodetrust, filepath.Join(dir, "kubectl-nodetrust")))
	must(t, os.WriteFile(filepath.Join(dir, "kubectl_complete-nodetrust"),
		[]byte("#!/bin/sh\nexec nodetrust __complete \"$@\"\n"), 0o755))
	cmd := c.KubectlCommand(t.Context(), args...)
	cmd.Env = append(cmd.Env, "PATH="+dir+":"+os.Getenv("PATH"))
	return cmd
}

// TestObserve: agents that may only look say what they would change, and change nothing.
func TestObserve(t *testing.T) {
	c := need(t)
	overlay := kustomization(t, c, map[string]string{"overlays/own/kustomization.yaml": "resources: [../observe]\n"})
	manifests, err := c.agentManifests(overlay, brisk...)
	must(t, err)
	d := deployManifests(t, c, manifests)
	before := map[string]map[string]string{}
	for _, n := range c.Nodes {
		before[n.Name] = snapshot(t, n, "etc", "usr")
	}
	must(t, c.Desire(c.Trust("")))
	for _, n := range c.Nodes {
		settle(t, d.on[n.Name], n.Name, "Drifted")
	}
	out, err := c.status(t)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out, "Drifted") {
		t.Errorf("kubectl nodetrust status: %v\n%s", err, out)
	}
	for _, n := range c.Nodes {
		if after := snapshot(t, n, "etc", "usr"); !maps.Equal(after, before[n.Name]) {
			t.Errorf("%s was written to:\n%q\n%q", n.Name, before[n.Name], after)
		}
		must(t, n.Provision(c.Trust("")))
	}
	for _, n := range c.Nodes {
		settle(t, d.on[n.Name], n.Name, "Enforced")
	}
	err = lab.Poll(patience, func() error {
		out, err := c.status(t)
		if err != nil {
			err = fmt.Errorf("kubectl nodetrust status: %w\n%s", err, out)
		}
		return err
	})
	must(t, err)
}
