package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// agentFiles are what the agents' image holds: our programs, gpg, and the libraries of this machine that they are linked with.
// The real image is built by podman; this one shows the manifests at work in seconds.
func agentFiles(t *testing.T, c *Cluster) []fixture.File {
	t.Helper()
	programs := map[string]string{"usr/bin/nodetrust": c.Lab.Programs.Nodetrust, "usr/bin/nodetrust-agent": c.Lab.Programs.Agent}
	for _, name := range []string{"gpg", "gpgconf", "gpg-agent"} {
		path, err := exec.LookPath(name)
		must(t, err)
		programs["usr/bin/"+name] = path
	}
	from := map[string]string{}
	for to, path := range programs {
		from[to] = path
		out, _ := exec.Command("ldd", path).Output() // static ones have no libraries
		for word := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(word, "/") {
				from[strings.TrimPrefix(word, "/")] = word
			}
		}
	}
	var files []fixture.File
	for to, path := range from {
		b, err := os.ReadFile(path)
		must(t, err)
		files = append(files, fixture.File{Name: to, Data: b})
	}
	return files
}

// priority is a patch for machines that may not protect a process from running out of memory: a pod of high priority can't
// start there.
func priority(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, caps, _ := strings.Cut(string(b), "CapEff:")
	bits, err := strconv.ParseUint(strings.TrimSpace(caps[:strings.IndexByte(caps, '\n')]), 16, 64)
	must(t, err)
	if bits&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return ""
	}
	return "    - {op: remove, path: /spec/template/spec/priorityClassName}\n"
}

// deployment is deploy/ on the cluster, with the desired state as a ConfigMap.
type deployment struct {
	*Cluster
	on map[string]*reports
}

// deploy runs the agents in pods, under a policy that covers their own image, and waits for Enforced on every Node.
func deploy(t *testing.T, c *Cluster) *deployment {
	t.Helper()
	img, err := fixture.ImageOf(runtime.GOARCH, []string{"/usr/bin/nodetrust-agent"}, agentFiles(t, c)...)
	must(t, err)
	_, _, err = c.PushImage("team/nodetrust", "v1", img, c.Corp)
	must(t, err)
	root, err := lab.ModuleRoot()
	must(t, err)
	dir := t.TempDir()
	base, err := filepath.Rel(dir, filepath.Join(root, "deploy/kustomize/overlays/kubernetes"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), fmt.Appendf(nil, `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
images: [{name: nodetrust, newName: %s/team/nodetrust, newTag: v1}]
patches:
- target: {kind: DaemonSet}
  patch: |-
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: --resync=2s}
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: --probe-interval=3s}
%s`, base, c.Registry.Host, priority(t)), 0o644))
	manifests, err := c.Kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", dir)
	must(t, err)
	d := &deployment{Cluster: c, on: map[string]*reports{}}
	for _, n := range c.Nodes {
		must(t, n.Reset())
		must(t, c.forget(n))
		d.on[n.Name] = c.watchReports(n.Name)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, args := range [][]string{
				{"-n", "nodetrust", "get", "pods", "-o", "wide"},
				{"-n", "nodetrust", "get", "events"},
				{"-n", "nodetrust", "logs", "-l", "app.kubernetes.io/name=nodetrust-agent", "--prefix", "--tail=60"},
			} {
				out, err := c.Kubectl(args...)
				t.Logf("kubectl %q: %v\n%s", args, err, tail(out))
			}
			for _, n := range c.Nodes {
				t.Logf("%s: the Node said: %q", n.Name, d.on[n.Name].all())
			}
		}
		must(t, c.Delete([]byte(manifests)))
		for _, n := range c.Nodes {
			d.on[n.Name].stop()
			must(t, n.Reset())
			must(t, c.forget(n))
		}
	})
	must(t, c.Apply([]byte(manifests)))
	d.desire(t, c.Trust(""))
	for _, n := range c.Nodes {
		settle(t, d.on[n.Name], n.Name, "Enforced")
	}
	return d
}

// desire makes a trust config the desired state, through `nodetrust render`.
func (d *deployment) desire(t *testing.T, trust string) {
	t.Helper()
	config, err := d.Nodes[0].Render(trust, "--to", "configmap")
	must(t, err)
	_, err = d.kubectl(config, "-n", "nodetrust", "apply", "--server-side", "-f", "-")
	must(t, err)
}

// pod is the running agent's of a node.
func (d *deployment) pod(node string) (pod, error) {
	var list struct{ Items []pod }
	err := d.Get("/api/v1/namespaces/nodetrust/pods?labelSelector=app.kubernetes.io%2Fname%3Dnodetrust-agent&fieldSelector=spec.nodeName%3D"+node, &list)
	if err != nil {
		return pod{}, err
	}
	if len(list.Items) != 1 {
		return pod{}, fmt.Errorf("%s has %d pods of the agent", node, len(list.Items))
	}
	return list.Items[0], nil
}

// token is the one that the agent of a node has.
func (d *deployment) token(n *Node) (string, error) {
	p, err := d.pod(n.Name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	path := "/var/lib/kubelet/pods/" + p.Metadata.UID + "/volumes/kubernetes.io~projected/token/token"
	b, err := n.Command(ctx, "cat", path).Output()
	if err != nil {
		return "", fmt.Errorf("reading the agent's token: %w", err)
	}
	if len(b) == 0 {
		return "", errors.New("the agent's token is empty")
	}
	return string(b), nil
}
