package cluster

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

func unbase64(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	must(t, err)
	return b
}

func gunzip(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	must(t, err)
	b, err = io.ReadAll(z)
	must(t, err)
	return b
}

// rolloutOf is what rollout status says of a pool.
type rolloutOf struct {
	State, Reason, Message string
	ShadowedBy, On         []string
	Outdated               []string
	Updated, Enforced      int
}

// walk is a rollout on the lab.
type walk struct {
	*testing.T
	c  *Cluster
	o  *operator
	mc string // file with our MachineConfig
}

// status runs rollout status once.
func (w *walk) status(args ...string) (rolloutOf, int) {
	w.Helper()
	r := nodetrust(w.T, w.c, append([]string{
		"rollout", "status", "--agents", "elsewhere", "-o", "json", "--desired",
		w.mc,
	}, args...)...)
	var out struct{ Pools []rolloutOf }
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil || len(out.Pools) != 1 {
		w.Fatalf("%v: exit status %d, %s%s", err, r.code, r.stdout, r.stderr)
	}
	return out.Pools[0], r.code
}

// is fails the test unless the rollout is in a state, with exit status, reason and a part of the message.
func (w *walk) is(state string, code int, reason, says string) {
	w.Helper()
	got, exit := w.status()
	if got.State != state || exit != code || got.Reason != reason || !strings.Contains(got.Message, says) {
		w.Errorf("exit status %d, %+v; want %d, %s (%s) …%s…", exit, got, code, state, reason, says)
	}
	// Without -o json the same, for people.
	text := nodetrust(w.T, w.c, "rollout", "status", "--agents", "elsewhere", "--desired", w.mc)
	if text.code != code || !strings.HasPrefix(text.stdout, "pool worker: "+state) {
		w.Errorf("as text: exit status %d, %s%s; want %d, %s", text.code, text.stdout, text.stderr, code, state)
	}
}

// becomes waits for the agents: they look every two seconds.
func (w *walk) becomes(state string, code int) rolloutOf {
	w.Helper()
	var got rolloutOf
	err := lab.Poll(patience, func() error {
		var exit int
		if got, exit = w.status(); got.State != state || exit != code {
			return fmt.Errorf("exit status %d, %+v", exit, got)
		}
		return nil
	})
	if err != nil {
		w.Fatalf("waiting for %s: %v", state, err)
	}
	return got
}

// updatedSays asserts what `oc wait --for=condition=Updated` would answer: the wrong thing, in the windows that are
// tested.
func (w *walk) updatedSays(want string) {
	w.Helper()
	got, err := w.c.Kubectl("get", "machineconfigpool", "worker", "-o",
		`jsonpath={.status.conditions[?(@.type=="Updated")].status}`)
	must(w.T, err)
	if got != want {
		w.Errorf("the pool says Updated=%s, the window that is tested has %s", got, want)
	}
}

// rollOut lets the operator do all that is left to do.
func (w *walk) rollOut() {
	w.Helper()
	w.o.render()
	w.o.sync()
	for range w.c.Nodes {
		for _, n := range w.c.Nodes {
			if a := w.o.annotations(n); a[mcoAnnotation+"desiredConfig"] != a[mcoAnnotation+"currentConfig"] {
				w.o.begin(n)
				w.o.finish(n)
			}
		}
		w.o.sync()
	}
	w.updatedSays("True")
}

// waiting is a rollout status --wait that runs in the background.
type waiting struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
	done           chan error
}

func (w *walk) wait(args ...string) *waiting {
	w.Helper()
	x := &waiting{done: make(chan error, 1)}
	x.Cmd = exec.Command(w.c.Lab.Programs.Nodetrust,
		append([]string{"rollout", "status", "--wait", "--agents", "elsewhere", "--desired", w.mc}, args...)...)
	x.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(w.c.dir, "home"), "KUBECONFIG=" + w.c.Kubeconfig}
	x.Stdout, x.Stderr = &x.stdout, &x.stderr
	must(w.T, x.Start())
	go func() { x.done <- x.Wait() }()
	w.Cleanup(func() { _ = x.Process.Kill() })
	return x
}

// running fails the test if the wait has ended.
func (w *walk) running(x *waiting) {
	w.Helper()
	select {
	case <-x.done:
		w.Fatalf("--wait has ended: %s%s", x.stdout.String(), x.stderr.String())
	default:
	}
}

// ends waits for the end of a wait, which must be of this exit status and have this to say.
func (w *walk) ends(x *waiting, code int, says string) {
	w.Helper()
	select {
	case err := <-x.done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			w.Fatal(err)
		}
		if got := x.ProcessState.ExitCode(); got != code || !strings.Contains(x.stdout.String(), says) {
			w.Errorf("--wait: exit status %d, %s%s; want %d, %s", got, x.stdout.String(), x.stderr.String(), code, says)
		}
	case <-time.After(patience):
		w.Fatalf("--wait does not end")
	}
}

// TestRolloutStates drives the objects of OpenShift's own CRDs, and the files on the nodes, as the Machine Config
// Operator does it, through every state of a rollout. Real agents judge the nodes.
func TestRolloutStates(t *testing.T) {
	c := need(t)
	openshift(t, c, machineConfigPool("worker", "worker"),
		machineConfig(workerTemplate, "worker", "ControllerConfig", map[string]string{policyPath: acceptAnything}),
		machineConfig(generated, "worker", "Image", nil),
	)
	clusterVersion(t, c, "4.20.3")
	ours, err := c.Nodes[0].Render(c.Trust(""), "--to", "machineconfig")
	must(t, err)
	w := &walk{T: t, c: c, o: &operator{t: t, c: c, pool: "worker"}, mc: write(t, "ours.yaml", ours)}
	_, err = c.Kubectl("label", "--overwrite", "nodes", "--all", "node-role.kubernetes.io/worker=")
	must(t, err)
	t.Cleanup(func() {
		_, err := c.Kubectl("label", "nodes", "--all", "node-role.kubernetes.io/worker-")
		must(t, err)
		args := []string{"annotate", "nodes", "--all"}
		for _, key := range []string{"currentConfig", "desiredConfig", "state", "reason"} {
			args = append(args, mcoAnnotation+key+"-")
		}
		_, err = c.Kubectl(args...)
		must(t, err)
		for _, n := range c.Nodes {
			must(t, os.RemoveAll(n.Path("etc/machine-config-daemon")))
		}
	})
	w.o.render()
	a := startAgents(t, c, c.Trust(""), agentOptions{prepare: w.o.boot, root: func(n *Node) string { return n.Root }})
	w.o.sync()
	w.updatedSays("True")

	step := func(name string, f func(w *walk)) {
		t.Run(name, func(t *testing.T) {
			inner, op := *w, *w.o
			inner.T, op.t = t, t
			inner.o = &op
			f(&inner)
		})
		if t.Failed() {
			t.FailNow() // each step begins where the one before has ended
		}
	}
	old := w.o.get().rendered()
	var wait *waiting

	step("not applied", func(w *walk) {
		w.is("Unknown", 4, "NotApplied",
			"the cluster has no MachineConfig 51-worker-lab")
	})
	step("an earlier edition was rolled out", func(w *walk) {
		before, err := c.Nodes[0].Render(c.Trust("  - {scope: 127.0.0.1:9/before, require: reject}\n"), "--to",
			"machineconfig")
		must(w.T, err)
		must(w.T, c.Apply(before))
		w.rollOut()
		w.is("Unknown", 4, "OtherBytes", "policy.json")
		old = w.o.get().rendered()
	})
	step("just applied: the name is among the sources, Updated=True, the bytes are those before", func(w *walk) {
		must(w.T, c.Apply(ours))
		w.updatedSays("True")
		w.is("Progressing", 4, "NotRendered", "has not all files of 51-worker-lab yet")
	})
	outer := w
	wait = outer.wait("--timeout", "20m")
	step("rendered, generation not observed, Updated=True", func(w *walk) {
		w.o.render()
		w.updatedSays("True")
		w.is("Progressing", 4, "NotObserved", "has not looked")
	})
	step("observed, nodes Done at what was before", func(w *walk) {
		w.o.sync()
		for _, n := range c.Nodes {
			if a := w.o.annotations(n); a[mcoAnnotation+"currentConfig"] != old || a[mcoAnnotation+"state"] != "Done" {
				w.Fatalf("%s is %v", n.Name, a)
			}
		}
		w.is("Progressing", 4, "NodesUpdating", "0 of 2 nodes")
	})
	step("paused", func(w *walk) {
		w.o.patch("", map[string]any{"spec": map[string]any{"paused": true}})
		w.o.sync()
		w.is("Paused", 4, "PoolPaused", "0 of 2 nodes")
		w.o.patch("", map[string]any{"spec": map[string]any{"paused": false}})
		w.is("Progressing", 4, "NotObserved", "")
		w.o.sync()
	})
	step("working", func(w *walk) {
		w.o.begin(c.Nodes[0])
		w.is("Progressing", 4, "NodesUpdating", "0 of 2 nodes")
		w.o.sync()
		w.is("Progressing", 4, "NodesUpdating", "0 of 2 nodes")
	})
	step("one of two", func(w *walk) {
		w.o.finish(c.Nodes[0])
		w.is("Progressing", 4, "NodesUpdating", "1 of 2 nodes")
		w.o.sync()
		w.is("Progressing", 4, "NodesUpdating", "1 of 2 nodes")
	})
	step("the nodes are done, the pool has not seen it", func(w *walk) {
		w.o.begin(c.Nodes[1])
		w.o.finish(c.Nodes[1])
		w.updatedSays("False")
		w.is("Progressing", 4, "NodesUpdating", "the Machine Config Operator counts 1 of 2 nodes updated")
		outer.running(wait)
	})
	step("rolled out", func(w *walk) {
		w.o.sync()
		w.updatedSays("True")
		if got := w.becomes("RolledOut", 0); got.Updated != 2 || got.Enforced != 2 {
			w.Errorf("got %+v", got)
		}
		outer.ends(wait, 0, "pool worker: RolledOut: ")
		if found := nodetrust(w.T, c, "rollout", "status", "--agents", "elsewhere"); found.code != 0 ||
			!strings.HasPrefix(found.stdout, "pool worker: RolledOut: 51-worker-lab") {
			w.Errorf("found by itself: exit status %d, %s%s", found.code, found.stdout, found.stderr)
		}
	})
	step("not enforced on node1", func(w *walk) {
		policy := c.Nodes[0].Path(policyPath)
		was, err := os.ReadFile(policy)
		must(w.T, err)
		must(w.T, os.WriteFile(policy, []byte(acceptAnything), 0o644))
		got := w.becomes("NotEnforced", 3)
		if len(got.On) != 1 || got.On[0] != "node1" || !strings.Contains(got.Message, "node1: Drifted") {
			w.Errorf("got %+v", got)
		}
		must(w.T, os.WriteFile(policy, was, 0o644))
		w.becomes("RolledOut", 0)
	})
	step("degraded node", func(w *walk) {
		w.o.annotate(c.Nodes[1], map[string]string{
			"state":  "Degraded",
			"reason": `content mismatch for file "/etc/containers/policy.json"`,
		})
		w.is("Degraded", 3, "NodesDegraded", "node2: Degraded content mismatch")
		w.o.sync()
		w.is("Degraded", 3, "NodesDegraded", "node2: Degraded content mismatch")
		w.ends(w.wait(), 3, "pool worker: Degraded: ") // by itself, after it has been bad for a while
		w.o.annotate(c.Nodes[1], map[string]string{"state": "Done", "reason": ""})
		w.is("Degraded", 3, "PoolDegraded", "NodeDegraded: Node node2 is reporting")
		w.o.sync()
		w.becomes("RolledOut", 0)
	})
	step("degraded render", func(w *walk) {
		w.o.renderFails("parsing Ignition config failed: unknown version")
		w.is("Degraded", 3, "PoolDegraded", "RenderDegraded: parsing Ignition config failed")
		w.o.sync()
		w.becomes("RolledOut", 0)
	})
	step("about to be shadowed, nothing rendered yet", func(w *walk) {
		w.o.generate(machineConfig(generated, "worker", "Image", map[string]string{policyPath: theirPolicy("quay.io/else")}))
		w.is("RolledOut", 0, "", "") // true as yet: the pool's rendered MachineConfig has ours
	})
	shadowed := func(w *walk) {
		w.rollOut()
		w.updatedSays("True")
		got, code := w.status()
		if got.State != "Shadowed" || code != 3 || len(got.ShadowedBy) != 1 || got.ShadowedBy[0] != generated {
			w.Errorf("exit status %d, %+v", code, got)
		}
		if text := nodetrust(w.T, c, "rollout", "status", "--agents", "elsewhere"); text.code != 3 ||
			!strings.HasPrefix(text.stdout, "pool worker: Shadowed by "+generated+": "+policyPath) {
			w.Errorf("exit status %d, %s%s", text.code, text.stdout, text.stderr)
		}
	}
	step("shadowed, and Updated=True", func(w *walk) {
		shadowed(w)
		for _, n := range c.Nodes {
			settle(w.T, a.on[n.Name].reports, n.Name, "Shadowed")
		}
	})
	step("shadowed, and a scope of ours is in two files", func(w *walk) {
		w.o.generate(machineConfig(generated, "worker", "Image", map[string]string{
			policyPath: theirPolicy("quay.io/else"), sigstorePath: fmt.Sprintf(
				"docker:\n  quay.io/else:\n    use-sigstore-attachments: true\n  %s/team:\n    use-sigstore-attachments: true\n",
				c.Registry.Host),
		}))
		shadowed(w)
	})
	step("merged", func(w *walk) {
		merged := nodetrust(w.T, c, "render", "--to", "machineconfig", "--cluster", "live", "--merge",
			write(w.T, "trust.yaml", []byte(c.Trust(""))))
		if merged.code != 0 || !strings.Contains(merged.stderr, "51-worker-lab is no longer needed") {
			w.Fatalf("exit status %d, %s", merged.code, merged.stderr)
		}
		must(w.T, os.WriteFile(w.mc, []byte(merged.stdout), 0o644))
		must(w.T, os.WriteFile(a.desired+".tmp", []byte(merged.stdout), 0o644))
		must(w.T, os.Rename(a.desired+".tmp", a.desired))
		must(w.T, c.Apply([]byte(merged.stdout)))
		w.is("Progressing", 4, "NotRendered", "99-worker-zz-lab")
		w.rollOut()
		w.becomes("RolledOut", 0)
		diff := nodetrust(w.T, c, "diff", "--pool", "worker", w.mc, "live")
		if diff.code != 0 || !strings.Contains(diff.stdout, "b is equal to a") {
			w.Errorf("diff: exit status %d, %s%s", diff.code, diff.stdout, diff.stderr)
		}
		_, err := c.Kubectl("delete", "machineconfig", "51-worker-lab")
		must(w.T, err)
		w.rollOut()
		w.becomes("RolledOut", 0)
	})
	step("outdated: the MCO has another policy now", func(w *walk) {
		w.o.generate(machineConfig(generated, "worker", "Image", map[string]string{policyPath: theirPolicy("quay.io/other")}))
		w.rollOut() // ours is still what the nodes get
		got := w.becomes("Outdated", 3)
		if text := strings.Join(got.Outdated, "; "); !strings.Contains(text, generated+" has another "+policyPath) ||
			!strings.Contains(text, sigstorePath+" of "+generated+" is gone") {
			w.Errorf("got %+v", got)
		}
		w.ends(w.wait(), 3, "pool worker: Outdated: ")
		again := nodetrust(w.T, c, "render", "--to", "machineconfig", "--cluster", "live", "--merge",
			write(w.T, "trust.yaml", []byte(c.Trust(""))))
		if again.code != 0 || !strings.Contains(again.stderr, "99-worker-zz-lab is outdated: ") ||
			!strings.Contains(again.stdout, "name: 99-worker-zz-lab") {
			w.Fatalf("exit status %d, %s", again.code, again.stderr)
		}
		must(w.T, os.WriteFile(w.mc, []byte(again.stdout), 0o644))
		must(w.T, os.WriteFile(a.desired+".tmp", []byte(again.stdout), 0o644))
		must(w.T, os.Rename(a.desired+".tmp", a.desired))
		must(w.T, c.Apply([]byte(again.stdout)))
		w.is("Progressing", 4, "NotRendered", "")
	})
	step("interrupted", func(w *walk) {
		since := c.audited(w.T)
		x := w.wait()
		must(w.T, lab.Poll(patience, func() error { // it has looked once when it looks again
			looks, err := c.requestsOf(since, func(e event) bool {
				return e.UserAgent == "nodetrust" && strings.HasPrefix(e.RequestURI, machinePools)
			})
			if err == nil && len(looks) < 2 {
				err = fmt.Errorf("%d looks", len(looks))
			}
			return err
		}))
		w.running(x)
		must(w.T, x.Process.Signal(syscall.SIGINT))
		w.ends(x, 4, "pool worker: Progressing: ")
		if !strings.Contains(x.stderr.String(), "interrupted") {
			w.Errorf("stderr: %s", x.stderr.String())
		}
	})
	step("merged again", func(w *walk) {
		w.rollOut()
		w.becomes("RolledOut", 0)
	})
}
