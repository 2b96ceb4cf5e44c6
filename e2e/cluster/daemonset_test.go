package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// agentFiles are what the agents' image holds: our programs, gpg, and the libraries of this machine that they are linked with.
// The real image is built by podman; this one shows the manifests at work in seconds.
func agentFiles(t *testing.T, c *Cluster) []file {
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
	var files []file
	for to, path := range from {
		b, err := os.ReadFile(path)
		must(t, err)
		files = append(files, file{to, b})
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

// TestDaemonSet: the agents run from deploy/, each in a pod of its node, under a policy that covers their own image.
func TestDaemonSet(t *testing.T) {
	c := need(t)
	img, err := image([]string{"/usr/bin/nodetrust-agent"}, agentFiles(t, c)...)
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
	on := map[string]*reports{}
	for _, n := range c.Nodes {
		must(t, n.Reset())
		must(t, c.forget(n))
		on[n.Name] = c.watchReports(n.Name)
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
		}
		must(t, c.Delete([]byte(manifests)))
		for _, n := range c.Nodes {
			on[n.Name].stop()
			must(t, n.Reset())
			must(t, c.forget(n))
		}
	})
	config, err := c.Nodes[0].Render(c.Trust(""), "--to", "configmap")
	must(t, err)
	must(t, c.Apply([]byte(manifests)))
	_, err = c.kubectl(config, "-n", "nodetrust", "apply", "--server-side", "-f", "-")
	must(t, err)
	for _, n := range c.Nodes {
		settle(t, on[n.Name], n.Name, "Enforced")
	}

	t.Run("replaced directory", func(t *testing.T) {
		n := c.Nodes[0]
		containers := n.Path("etc/containers")
		want, err := os.ReadFile(filepath.Join(containers, "policy.json"))
		must(t, err)
		registries, err := os.ReadFile(filepath.Join(containers, "registries.conf"))
		must(t, err)
		mark, quiet := len(on[n.Name].all()), len(on[c.Nodes[1].Name].all())
		next := containers + ".next"
		must(t, os.MkdirAll(filepath.Join(next, "registries.d"), 0o755))
		must(t, os.WriteFile(filepath.Join(next, "registries.conf"), registries, 0o644))
		must(t, os.WriteFile(filepath.Join(next, "policy.json"), []byte(acceptAnything), 0o644))
		// It stays till the end: with it would go what is mounted on it.
		must(t, os.Rename(containers, containers+".old"))
		must(t, os.Rename(next, containers))
		must(t, n.Rebind()) // what the host's programs see from now on
		err = lab.Poll(time.Minute, func() error {
			got, err := os.ReadFile(filepath.Join(containers, "policy.json"))
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("policy.json has %d bytes", len(got))
			}
			return err
		})
		if err != nil {
			t.Fatalf("the new directory was not healed: %v", err)
		}
		err = lab.Poll(time.Minute, func() error {
			for _, r := range on[n.Name].all()[mark:] {
				if r.State == "Drifted" {
					return nil
				}
			}
			return fmt.Errorf("the Node says %q", on[n.Name].all()[mark:])
		})
		if err != nil {
			t.Fatalf("not reported: %v", err)
		}
		settle(t, on[n.Name], n.Name, "Enforced")
		if news := on[c.Nodes[1].Name].all()[quiet:]; len(news) > 0 {
			t.Errorf("the other node says %q", news)
		}
		if err := n.Pull(c.Unsigned, ""); err == nil || !strings.Contains(err.Error(), "SignatureValidationFailed") {
			t.Errorf("CRI-O takes the unsigned image: %v", err)
		}
	})
}
