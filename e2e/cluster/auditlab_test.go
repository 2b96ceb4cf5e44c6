package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// audited is what is used of the report of `nodetrust audit`.
type audited struct {
	Summary struct {
		Complete bool     `json:"complete"`
		Problems []string `json:"problems"`
		Lockout  []struct {
			Role, Image, Verdict string
		} `json:"lockout"`
	} `json:"summary"`
	Images []auditedImage `json:"images"`
}

type auditedImage struct {
	Image, Digest, Verdict, Reason, Message, Role string
	UsedBy                                        []string
}

func (a audited) find(t *testing.T, image string) auditedImage {
	t.Helper()
	i := slices.IndexFunc(a.Images, func(i auditedImage) bool { return i.Image == image })
	if i < 0 {
		t.Fatalf("the audit doesn't know %s", image)
	}
	return a.Images[i]
}

// audit runs `nodetrust audit` on the node, as cluster-admin.
func (n *Node) audit(t *testing.T, trust string, status int, args ...string) (a audited) {
	t.Helper()
	file := filepath.Join(n.cluster.dir, "audit-"+n.Name+".yaml")
	must(t, os.WriteFile(file, []byte(trust), 0o644))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := n.Command(ctx, n.cluster.Lab.Programs.Nodetrust, append([]string{
		"audit", "--config", file, "--root", "/", "--kubeconfig", n.cluster.pki.path("admin.kubeconfig"),
		"--cri-socket", "/run/crio/crio.sock", "--node-name", n.Name, "-o", "json",
	}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("nodetrust audit %q: status %d, want %d: %s", args, got, status, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), &a); err != nil {
		t.Fatalf("nodetrust audit %q: %v: %s", args, err, stderr.String())
	}
	if !a.Summary.Complete {
		t.Errorf("the audit is not complete: %q", a.Summary.Problems)
	}
	return a
}

// staticPod is a pod for a kubelet's directory. Another attempt is another pod of the same name.
func staticPod(name, image, attempt string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: kube-system, annotations: {attempt: %s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: %s
    imagePullPolicy: Always
`, name, attempt, image)
}

func (n *Node) staticPath(name string) string {
	return filepath.Join(n.cluster.dir, "kubelet-"+n.Name, "static", name+".yaml")
}

// mirrorPod is what the API server has of a static pod.
func (n *Node) mirrorPod(name string) (p pod, err error) {
	return p, n.cluster.Get("/api/v1/namespaces/kube-system/pods/"+name+"-"+n.Name, &p)
}

// outcome is what became of a pod's image on a node: accept or refuse, or an error while that is open.
func outcome(p pod) (string, error) {
	if err := ready(p); err == nil {
		return "accept", nil
	}
	if err := refused(p); err != nil {
		return "", err
	}
	return "refuse", nil
}

// TestAuditPredicts: what an audit of running pods says of a policy is what happens when it is enforced and the pods
// are made anew, on both nodes and for static pods too.
func TestAuditPredicts(t *testing.T) {
	c := need(t)
	const logical, vendor = "team", "vendor.example.com"
	host := c.Registry.Host
	stranger, err := c.gpg.NewKey("stranger", fixture.KeyOptions{})
	must(t, err)
	push := func(repo string, key *fixture.Key) (byTag, byDigest string) {
		t.Helper()
		byTag, byDigest, err := c.Push(repo, "v1", key)
		must(t, err)
		return byTag, byDigest
	}
	signedTag, signedDigest := push(logical+"/audit-signed", c.Corp)
	_, unsignedDigest := push(logical+"/audit-unsigned", nil)
	foreign, _ := push(logical+"/audit-foreign", stranger)
	movedTag, movedDigest := push(logical+"/audit-moved", nil)
	_, digest, _ := strings.Cut(movedDigest, "@")
	must(t, c.signAs(c.Corp, logical+"/audit-moved", digest, host+"/"+logical+"/audit-moved:v0"))
	elsewhere, _ := push("elsewhere/audit", nil)
	opened, _ := push("open/audit", nil)
	// What the vendor has is pulled from a mirror, where the signatures are too; they are for the vendor's name.
	_, mirrored := push("mirror/app", nil)
	_, digest, _ = strings.Cut(mirrored, "@")
	must(t, c.signAs(c.Corp, "mirror/app", digest, vendor+"/app:v1"))
	push("mirror/bare", nil)

	images := map[string]string{ // by DaemonSet
		"audit-signed-tag": signedTag, "audit-signed-digest": signedDigest, "audit-unsigned-tag": c.Unsigned,
		"audit-unsigned-digest": unsignedDigest,
		"audit-foreign":         foreign, "audit-moved-tag": movedTag, "audit-moved-digest": movedDigest,
		"audit-elsewhere": elsewhere, "audit-open": opened,
		"audit-mirrored-tag": vendor + "/app:v1", "audit-mirrored-digest": vendor + "/app@" + digest,
		"audit-mirrored-bare": vendor + "/bare:v1",
	}
	reasons := map[string]string{ // of what must be refused
		"audit-unsigned-tag": "NoSignature", "audit-unsigned-digest": "NoSignature", "audit-foreign": "WrongKey",
		"audit-moved-tag": "WrongIdentity",
		"audit-elsewhere": "RejectedByPolicy", "audit-mirrored-bare": "NoSignature",
	}
	static := map[string]string{"audit-static-signed": signedTag, "audit-static-unsigned": c.Unsigned}
	trust := c.Trust(fmt.Sprintf(`  - scope: %s
    require: [{signedBy: [corp]}]
    lookaside: %s
    insecure: true
    mirrors: [{location: %s/mirror, lookaside: %s, insecure: true}]
`, vendor, c.Lookaside.URL(), host, c.Lookaside.URL()))

	// CRI-O reads registries.conf when it starts.
	for _, n := range c.Nodes {
		conf := n.Path("etc/containers/registries.conf")
		before, err := os.ReadFile(conf)
		must(t, err)
		t.Cleanup(func() {
			must(t, n.Reset())
			must(t, os.WriteFile(conf, before, 0o644))
			must(t, n.StartCRIO(""))
		})
		must(t, os.WriteFile(conf, fmt.Appendf(before,
			"\n[[registry]]\nprefix = %q\nlocation = \"%s/mirror\"\ninsecure = true\n", vendor, host), 0o644))
		must(t, n.StartCRIO(""))
	}
	var manifests []byte
	for name, image := range images {
		manifests = append(append(manifests, daemonSet(name, image)...), "---\n"...)
	}
	t.Cleanup(func() { must(t, c.Delete(manifests)) })
	must(t, c.Apply(manifests))
	for _, n := range c.Nodes {
		for name, image := range static {
			t.Cleanup(func() { must(t, n.endStaticPod(name)) })
			must(t, os.WriteFile(n.staticPath(name), staticPod(name, image, "first"), 0o644))
		}
	}
	became := func(name, want string) {
		t.Helper()
		err := lab.Poll(patience, func() error {
			pods, err := c.pods(name)
			for _, n := range c.Nodes {
				p := pods[n.Name]
				if static[name] != "" {
					p, err = n.mirrorPod(name)
				}
				if err == nil {
					err = compare(p, want)
				}
				if err != nil {
					return fmt.Errorf("on %s: %w", n.Name, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(static)), slices.Sorted(maps.Keys(images))) {
		became(name, "accept") // nothing is enforced yet
	}

	// The kubelet reports images once in a while only; what is running is known at once.
	a := c.Nodes[0].audit(t, trust, 3, "--images-from", "cluster")
	for name, image := range images {
		got := a.find(t, image)
		want := "accept"
		if reasons[name] != "" {
			want = "refuse"
		}
		if got.Verdict != want || got.Reason != reasons[name] {
			t.Errorf("the audit says of %s: %s %s (%s), want %s %s", image, got.Verdict, got.Reason, got.Message, want,
				reasons[name])
		}
		for _, n := range c.Nodes {
			if by := "default/daemonset/" + name + "@" + n.Name; !slices.Contains(got.UsedBy, by) {
				t.Errorf("%s is used by %q, want %s among them", image, got.UsedBy, by)
			}
		}
	}
	for name, image := range static {
		got := a.find(t, image)
		for _, n := range c.Nodes {
			if by := "kube-system/static-pod/" + name + "@" + n.Name; !slices.Contains(got.UsedBy, by) ||
				got.Role != "control-plane" {
				t.Errorf("%s (%s) is used by %q, want %s among them", image, got.Role, got.UsedBy, by)
			}
		}
	}
	if !slices.ContainsFunc(a.Summary.Lockout, func(l struct {
		Role, Image,
		Verdict string
	},
	) bool {
		return l.Image == c.Unsigned
	}) {
		t.Errorf("the static pod that would be refused is no lockout: %+v", a.Summary.Lockout)
	}
	auditOfOneNode(t, c, trust, images)

	// Enforced, and made anew.
	for _, n := range c.Nodes {
		must(t, n.Provision(trust))
		for name := range static {
			must(t, n.endStaticPod(name))
		}
	}
	must(t, c.Delete(manifests))
	for name := range images {
		must(t, lab.Poll(patience, func() error {
			pods, err := c.pods(name)
			if err == nil && len(pods) > 0 {
				err = fmt.Errorf("%d pods of %s are left", len(pods), name)
			}
			return err
		}))
	}
	// One after the other, first what will run: while it starts a container, CRI-O may hand conmon the pipe on which
	// gpgme waits for its gpg of another pull, which then waits for ever (https://github.com/cri-o/cri-o/issues/8906).
	predicted := func(name string) string { return a.find(t, images[name]+static[name]).Verdict }
	names := slices.Concat(slices.Sorted(maps.Keys(static)), slices.Sorted(maps.Keys(images)))
	// accept, refuse
	slices.SortStableFunc(names, func(a, b string) int { return strings.Compare(predicted(a), predicted(b)) })
	for _, name := range names {
		if image := images[name]; image != "" {
			must(t, c.Apply(daemonSet(name, image)))
		}
		for _, n := range c.Nodes {
			if image := static[name]; image != "" {
				must(t, os.WriteFile(n.staticPath(name), staticPod(name, image, "second"), 0o644))
			}
		}
		became(name, predicted(name))
	}
}

// auditOfOneNode looks at what one node says of itself: its runtime, and the files of its static pods.
func auditOfOneNode(t *testing.T, c *Cluster, trust string, images map[string]string) {
	n := c.Nodes[0]
	a := n.audit(t, trust, 3, "--images-from", "cri")
	for name, image := range images {
		i := a.find(t, image)
		if !slices.ContainsFunc(i.UsedBy, func(by string) bool {
			return strings.HasPrefix(by, "default/pod/"+name+"-") && strings.HasSuffix(by, "@"+n.Name)
		}) {
			t.Errorf("%s is used by %q, want a pod of %s among them", image, i.UsedBy, name)
		}
	}
	if i := a.find(t, c.Pause); i.Role != "pause" || i.Verdict != "accept" {
		t.Errorf("the pause image: %+v", i)
	}
	if i := a.find(t, c.Unsigned); i.Role != "control-plane" ||
		!slices.Contains(i.UsedBy, "kube-system/static-pod/audit-static-unsigned@"+n.Name) {
		t.Errorf("the image of a static pod: %+v", i)
	}

	root, err := os.MkdirTemp(c.dir, "root-")
	must(t, err)
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "etc/kubernetes/manifests")
	must(t, os.MkdirAll(dir, 0o755))
	for _, name := range []string{"audit-static-signed", "audit-static-unsigned"} {
		b, err := os.ReadFile(n.staticPath(name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name+".yaml"), b, 0o644))
	}
	key := filepath.Join(root, KeyPath)
	must(t, os.MkdirAll(filepath.Dir(key), 0o755))
	must(t, os.WriteFile(key, c.Corp.Armored, 0o644))
	a = n.audit(t, trust, 3, "--images-from", "static-pods", "--root", root, "--registries-conf",
		n.Path("etc/containers/registries.conf"))
	if len(a.Images) != 2 || a.find(t, c.Unsigned).Verdict != "refuse" {
		t.Errorf("static pods: %+v", a.Images)
	}
}

// compare is right for a pod whose image fared as predicted.
func compare(p pod, predicted string) error {
	got, err := outcome(p)
	if err == nil && got != predicted {
		err = fmt.Errorf("%s, predicted was %s", got, predicted)
	}
	return err
}

// endStaticPod takes a static pod away and waits until it is gone.
func (n *Node) endStaticPod(name string) error {
	if err := os.Remove(n.staticPath(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return lab.Poll(patience, func() error {
		_, err := n.mirrorPod(name)
		if Is404(err) {
			return nil
		}
		return cmp.Or(err, fmt.Errorf("static pod %s is left on %s: %s", name, n.Name, tail(n.KubeletLog())))
	})
}

// signAs signs a digest of a repository as another reference than its own.
func (i *Images) signAs(key *fixture.Key, repo, digest, reference string) error {
	sig, err := key.Sign(digest, reference)
	if err != nil {
		return err
	}
	return i.Lookaside.Put(repo, digest, 1, sig)
}
