package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

const (
	// idle is how long nothing may be asked of the API server when nothing happens: sixty looks, forty rounds of canaries.
	idle = 2 * time.Minute
	// outage is the API server's; in production it may take as long as it likes (agent/node tests a day).
	outage = time.Minute
)

// another is a trust config that differs by one rejected scope.
func (c *Cluster) another(scope string) string {
	return c.Trust(fmt.Sprintf("  - scope: %s/%s\n    require: reject\n", c.Registry.Host, scope))
}

// applied waits until the Node says that another digest than old is enforced, and returns it.
func applied(t *testing.T, on *reports, node, old string) string {
	t.Helper()
	var last report
	err := lab.Poll(patience, func() error {
		all := on.all()
		last = all[len(all)-1]
		if last.State != "Enforced" || last.Desired == old || last.Desired != last.Observed {
			return fmt.Errorf("the Node says %q", last)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("waiting for the new state on %s: %v", node, err)
	}
	return last.Desired
}

// TestIdle: when nothing happens, agents ask nothing of the API server. It waits together with other tests that leave
// agents alone.
func TestIdle(t *testing.T) {
	t.Parallel()
	c := need(t)
	d := deploy(t, c)
	t.Run("manifests", func(t *testing.T) {
		t.Parallel()
		manifests(t, c)
	})
	t.Run("no requests", func(t *testing.T) {
		t.Parallel()
		time.Sleep(settling) // what was under way
		since, marks := c.audited(t), map[string]int{}
		for _, n := range c.Nodes {
			marks[n.Name] = d.on[n.Name].mark()
		}
		time.Sleep(idle)
		for node, requests := range c.requests(t, since) {
			t.Errorf("%s asked in %s of quiet: %v; the Node said %q", node, idle, requests, d.on[node].all()[marks[node]:])
		}
	})
}

// settling is how long an agent may take to write what it knows: 2 s, and 2 s over which is spread what all have to
// write at the same moment; the rest is patience.
const settling = 8 * time.Second

// traffic is what an agent has asked of the API server.
type traffic struct{ requests, writes, bytes int }

// frugal fails the test if an agent has written more than four times, or much, and says what it has.
func frugal(t *testing.T, node string, requests []Request) traffic {
	t.Helper()
	var is traffic
	for _, r := range requests {
		is.requests++
		if r.Verb == "get" {
			continue
		}
		is.writes++
		is.bytes += r.Body
		if r.Verb != "patch" || r.Body == 0 || r.Body > 1024 {
			t.Errorf("%s: %s of %d bytes, want patches of up to 1,024", node, r, r.Body)
		}
	}
	if is.writes > 4 {
		t.Errorf("%s: %d writes, want at most 4: %v", node, is.writes, requests)
	}
	t.Logf("%s: %d requests, %d of them writes, %d bytes", node, is.requests, is.writes, is.bytes)
	return is
}

// manifests has the API server judge everything in deploy/, as the tests there do it.
func manifests(t *testing.T, c *Cluster) {
	openshift, err := crdModule(t.Context(), openshiftAPI)
	must(t, err)
	operator, err := crdModule(t.Context(), prometheusOperator)
	must(t, err)
	monitoring := filepath.Join(operator, "example", "prometheus-operator-crd")
	_, err = c.Kubectl("apply", "--server-side",
		"-f", filepath.Join(openshift, "payload-manifests/crds/0000_03_config-operator_01_securitycontextconstraints.crd.yaml"),
		"-f", filepath.Join(monitoring, "monitoring.coreos.com_podmonitors.yaml"),
		"-f", filepath.Join(monitoring, "monitoring.coreos.com_prometheusrules.yaml"))
	must(t, err)
	_, err = c.Kubectl("wait", "--for=condition=Established", "--timeout=2m", "crd",
		"securitycontextconstraints.security.openshift.io",
		"podmonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com")
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-run", "^TestServerTakesManifests$", ".")
	cmd.Dir = "../../deploy/test"
	cmd.Env = append(os.Environ(), "NODETRUST_TEST_KUBECONFIG="+c.Kubeconfig)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestServerTakesManifests") {
		t.Errorf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "the cluster has no") {
		t.Errorf("not everything was judged:\n%s", out)
	}
}

// TestChange: what the agents do when the world around them changes.
func TestChange(t *testing.T) {
	c := need(t)
	d := deploy(t, c)
	pods := map[string]pod{}
	for _, n := range c.Nodes {
		p, err := d.pod(n.Name)
		must(t, err)
		pods[n.Name] = p
	}
	one := c.Nodes[0]

	t.Run("ConfigMap", func(t *testing.T) {
		time.Sleep(settling) // what was under way
		since, marks, old, began := c.audited(t), map[string]int{}, map[string]string{}, time.Now()
		for _, n := range c.Nodes {
			all := d.on[n.Name].all()
			marks[n.Name], old[n.Name] = len(all), all[len(all)-1].Desired
		}
		d.desire(t, c.another("changed"))
		digests := map[string]bool{}
		for _, n := range c.Nodes {
			digests[applied(t, d.on[n.Name], n.Name, old[n.Name])] = true
		}
		if len(digests) != 1 {
			t.Errorf("the nodes have %d different digests", len(digests))
		}
		time.Sleep(settling) // for writes that are too many
		requests := c.requests(t, since)
		for _, n := range c.Nodes {
			frugal(t, n.Name, requests[n.Name])
			news := d.on[n.Name].all()[marks[n.Name]:]
			if took := d.pending(t, n.Name, began); took > gathered {
				t.Logf("%s: the agent took %s, so it may have told of the way as well", n.Name, took)
				news = slices.DeleteFunc(news, report.preliminary)
			} else if len(requests[n.Name]) != 1 {
				t.Errorf("%s: one write was enough, there were %v", n.Name, requests[n.Name])
			}
			if len(news) != 1 {
				t.Errorf("%s: one report was enough: the Node said %q", n.Name, news)
			}
			p, err := d.pod(n.Name)
			must(t, err)
			if was := pods[n.Name]; p.Metadata.UID != was.Metadata.UID ||
				p.Status.ContainerStatuses[0].RestartCount != was.Status.ContainerStatuses[0].RestartCount {
				t.Errorf("the agent on %s was started again", n.Name)
			}
		}
	})

	t.Run("API server stopped", func(t *testing.T) {
		policy := one.Path("etc/containers/policy.json")
		want, err := os.ReadFile(policy)
		must(t, err)
		marks := map[string]int{}
		for _, n := range c.Nodes {
			marks[n.Name] = d.on[n.Name].mark()
		}
		c.StopAPIServer()
		began := time.Now()
		for heals := 0; heals < 3 || time.Since(began) < outage-10*time.Second; heals++ {
			// Other bytes each time: the same ones again and again are contested.
			must(t, os.WriteFile(policy, []byte(acceptAnything+strings.Repeat("\n", heals)), 0o644))
			err = lab.Poll(patience, func() error {
				got, err := os.ReadFile(policy)
				if err == nil && string(got) != string(want) {
					err = fmt.Errorf("policy.json has %d bytes", len(got))
				}
				return err
			})
			if err != nil {
				t.Errorf("not healed without an API server: %v", err)
				break
			}
			time.Sleep(5 * time.Second)
		}
		c.Lookaside.Stop() // a state that stays
		time.Sleep(time.Until(began.Add(outage)))
		must(t, c.StartAPIServer())
		must(t, c.WaitReady())
		for _, n := range c.Nodes {
			d.on[n.Name].await(t, n.Name, "LookasideUnreachable", marks[n.Name], func(r report) bool {
				return r.State == "Unknown" && r.Reason == "LookasideUnreachable"
			})
		}
		must(t, c.StartServer(c.Lookaside.Server))
		for _, n := range c.Nodes {
			settle(t, d.on[n.Name], n.Name, "Enforced")
			for _, r := range d.on[n.Name].all()[marks[n.Name]:] {
				if r.State != "Unknown" && r.State != "Enforced" && (r.State != "Drifted" || n != one) {
					t.Errorf("%s said %q", n.Name, r)
				}
			}
		}
	})

	t.Run("CRI-O stopped", func(t *testing.T) {
		two := c.Nodes[1]
		quiet := d.on[two.Name].mark()
		one.StopCRIO()
		r := settle(t, d.on[one.Name], one.Name, "Unknown")
		if r.Desired != r.Observed {
			t.Errorf("the files are as desired, yet the Node says %q", r)
		}
		must(t, one.StartCRIO(""))
		settle(t, d.on[one.Name], one.Name, "Enforced")
		if news := d.on[two.Name].all()[quiet:]; len(news) > 0 {
			t.Errorf("the other node says %q", news)
		}
	})
}
