package cluster

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// Addresses in the cluster's network.
const (
	address = "10.99.0.1" // of the control plane, the registry and the lookaside server
	// of the service "kubernetes": the API server itself listens there, for want of a kube-proxy
	serviceAddress = "10.0.0.1"
	registryHost   = address + ":5000"
	lookasideHost  = address + ":5080"
	etcdURL        = "http://127.0.0.1:2379"
)

const patience = lab.Patience

// Cluster is a running cluster of two nodes, node1 and node2.
type Cluster struct {
	// Lab has the built programs.
	Lab *lab.Lab
	*Images
	Nodes []*Node
	// Kubeconfig is cluster-admin's, for programs of this machine.
	Kubeconfig string
	// AuditLog is the API server's, one JSON object a line.
	AuditLog string
	// Started says how long each step of Start took, counted from its begin.
	Started []Step

	dir       string
	kube      string
	pki       *pki
	cgroups   []lab.Cgroup
	plane     *lab.Node
	apiserver *lab.Process
	client    *http.Client
	server    string // URL of the API server for programs of this machine
	forwards  []net.Listener
	begin     time.Time
}

// Step is a part of the start-up.
type Step struct {
	Name  string
	After time.Duration
}

// Start makes a cluster; what isn't built yet is built first. The nodes accept every image until they are
// provisioned. Where ctx ends in between, nothing is left of it.
func Start(ctx context.Context) (*Cluster, error) {
	if reason := Unfit(); reason != "" {
		return nil, errors.New(reason)
	}
	l, err := lab.Empty()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Lab: l, dir: l.Dir, Kubeconfig: filepath.Join(l.Dir, "kubeconfig"),
		AuditLog: filepath.Join(l.Dir, "audit.log"),
	}
	if err := c.start(ctx); err != nil {
		if left := c.Close(); left != nil {
			err = errors.Join(err, left)
		}
		return nil, err
	}
	return c, nil
}

func (c *Cluster) step(name string) {
	c.Started = append(c.Started, Step{name, time.Since(c.begin).Round(time.Millisecond)})
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if err := c.writeMark(); err != nil { // building takes minutes, the first time
		return err
	}
	if err := c.Lab.Build(ctx); err != nil {
		return err
	}
	if c.kube, err = c.Lab.Kube(ctx); err != nil {
		return err
	}
	pinns, err := c.Lab.Tool(ctx, "pinns")
	if err != nil {
		return err
	}
	pause, err := c.Lab.Tool(ctx, "pause")
	if err != nil {
		return err
	}
	if _, err := c.Lab.CRIO(ctx); err != nil {
		return err
	}
	c.begin = time.Now()
	if c.cgroups, err = lab.NewCgroups(filepath.Base(c.dir)); err != nil {
		return err
	}
	if c.Images, err = newImages(c.dir); err != nil {
		return err
	}
	if err := c.writeMark(); err != nil {
		return err
	}
	if c.plane, err = c.Lab.NewNodeWith(lab.NodeOptions{Network: true}); err != nil {
		return err
	}
	if err := c.network(); err != nil {
		return err
	}
	c.step("network")
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.certificates(); err != nil {
		return err
	}
	if err := c.startStore(); err != nil {
		return err
	}
	if err := c.StartAPIServer(); err != nil {
		return err
	}
	if err := c.listen(); err != nil {
		return err
	}
	var both errgroup.Group
	both.Go(func() error {
		defer c.step("API server ready")
		return c.WaitReady()
	})
	both.Go(func() (err error) {
		if err := c.serve(c, pause); err != nil {
			return err
		}
		return c.makeNodes(pinns)
	})
	if err := both.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.startControllers(); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := n.StartKubelet(); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		if err := n.WaitReady(); err != nil {
			return fmt.Errorf("%w\n%s", err, tail(n.kubelet.Log.String()))
		}
		c.step(n.Name + " ready")
	}
	return nil
}

// network gives the control plane its addresses and every node one.
func (c *Cluster) network() error {
	script := `set -e
ip link set lo up
ip link add lab0 type bridge
ip addr add ` + address + `/24 dev lab0
ip addr add ` + serviceAddress + `/32 dev lo
ip link set lab0 up
ip route add default dev lab0
`
	for i := range nodeCount {
		script += "ip addr add " + nodeAddress(i) + "/24 dev lab0\n"
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := c.plane.Command(ctx, "sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("making the network: %w: %s", err, out)
	}
	return nil
}

func (c *Cluster) certificates() (err error) {
	if c.pki, err = newPKI(filepath.Join(c.dir, "pki")); err != nil {
		return err
	}
	for _, client := range []struct {
		name    string
		subject pkix.Name
	}{
		{"admin", pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}},
		{"controllers", pkix.Name{CommonName: "controllers", Organization: []string{"system:masters"}}},
		{"scheduler", pkix.Name{CommonName: "system:kube-scheduler"}},
	} {
		if err := c.issueClient(client.name, client.subject); err != nil {
			return err
		}
	}
	for i := range nodeCount {
		if err := c.issueClient(nodeName(i), pkix.Name{
			CommonName:   "system:node:" + nodeName(i),
			Organization: []string{"system:nodes"},
		}); err != nil {
			return err
		}
	}
	return c.pki.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"},
		address, serviceAddress, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
}

// issueClient makes a certificate and a kubeconfig NAME.kubeconfig for use in the cluster.
func (c *Cluster) issueClient(name string, subject pkix.Name) error {
	return errors.Join(c.pki.issue(name, subject),
		c.pki.kubeconfig(c.pki.path(name+".kubeconfig"), name, "https://"+serviceAddress))
}

func (c *Cluster) startStore() error {
	_, err := c.plane.Start(c.kube, "etcd", filepath.Join(c.dir, "etcd"), etcdURL, "http://127.0.0.1:2380")
	return err
}

// StartAPIServer starts the API server, which must not run. It is ready later: see WaitReady.
func (c *Cluster) StartAPIServer() (err error) {
	policy := filepath.Join(c.dir, "audit.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o644); err != nil {
		return err
	}
	c.apiserver, err = c.plane.Start(c.kube, "kube-apiserver",
		"--etcd-servers="+etcdURL, "--bind-address=0.0.0.0", "--advertise-address="+address, "--secure-port=443",
		"--endpoint-reconciler-type=none",
		"--tls-cert-file="+c.pki.path("apiserver.crt"), "--tls-private-key-file="+c.pki.path("apiserver.key"),
		"--client-ca-file="+c.pki.path("ca.crt"),
		"--service-account-key-file="+c.pki.path("sa.pub"), "--service-account-signing-key-file="+c.pki.path("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--kubelet-preferred-address-types=InternalIP", "--kubelet-client-certificate="+c.pki.path("admin.crt"),
		"--kubelet-client-key="+c.pki.path("admin.key"),
		"--audit-policy-file="+policy, "--audit-log-path="+c.AuditLog, "--profiling=false",
	)
	return err
}

// StopAPIServer ends the API server at once.
func (c *Cluster) StopAPIServer() { c.apiserver.Kill() }

// WaitReady waits until the API server says that it is ready.
func (c *Cluster) WaitReady() error {
	err := lab.Poll(patience, func() error {
		if c.apiserver.Exited() {
			return errors.New("it has ended")
		}
		return c.Get("/readyz", nil)
	})
	if err != nil {
		return fmt.Errorf("waiting for the API server: %w\n%s", err, tail(c.apiserver.Log.String()))
	}
	return nil
}

// controllers are those that DaemonSets, ServiceAccounts and namespaces need; every other one would only cost memory.
const controllers = "daemonset-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,node-lifecycle-controller," +
	"namespace-controller,garbage-collector-controller,clusterrole-aggregation-controller"

func (c *Cluster) startControllers() error {
	_, err := c.plane.Start(c.kube, "kube-controller-manager", "--kubeconfig", c.pki.path("controllers.kubeconfig"),
		"--service-account-private-key-file", c.pki.path("sa.key"), "--root-ca-file", c.pki.path("ca.crt"),
		"--leader-elect=false", "--bind-address=127.0.0.1", "--controllers="+controllers)
	if err != nil {
		return err
	}
	_, err = c.plane.Start(c.kube, "kube-scheduler", "--kubeconfig", c.pki.path("scheduler.kubeconfig"),
		"--leader-elect=false", "--bind-address=127.0.0.1")
	return err
}

// makeNodes makes the nodes and starts their CRI-O, both at the same time.
func (c *Cluster) makeNodes(pinns string) error {
	for i := range nodeCount {
		bridge := "pods" + strconv.Itoa(i+1)
		n, err := c.Lab.NewNodeWith(lab.NodeOptions{
			InsecureRegistries: []string{c.Registry.Host}, Inside: c.plane,
			Pods: &lab.Pods{
				Pinns: pinns, PauseImage: c.Pause, Bridge: bridge, Subnet: fmt.Sprintf("10.251.%d.0/24", i+1),
				Cgroups: c.cgroups,
			},
		})
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, &Node{Node: n, Name: nodeName(i), Address: nodeAddress(i), cluster: c})
	}
	var all errgroup.Group
	for _, n := range c.Nodes {
		all.Go(func() error {
			if err := n.Reset(); err != nil {
				return err
			}
			return n.StartCRIO("")
		})
	}
	return all.Wait()
}

// Close ends the cluster and removes all that it made.
func (c *Cluster) Close() error {
	for _, l := range c.forwards {
		l.Close()
	}
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Close())
	}
	if c.Images != nil {
		c.Images.close()
	}
	if c.plane != nil {
		if c.apiserver != nil && !c.apiserver.Exited() {
			c.apiserver.Kill() // before etcd, which it would wait for
		}
		errs = append(errs, c.plane.Close())
	}
	for _, g := range c.cgroups {
		errs = append(errs, removeCgroup(g))
	}
	return errors.Join(append(errs, c.Lab.Close())...)
}

// removeCgroup waits for the kernel to let go of processes that have ended.
func removeCgroup(g lab.Cgroup) error {
	return lab.Poll(time.Minute, g.Remove)
}

func tail(s string) string {
	if len(s) > 6000 {
		return "…" + s[len(s)-6000:]
	}
	return s
}
