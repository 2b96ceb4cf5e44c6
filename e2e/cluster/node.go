package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

const nodeCount = 2

const acceptAnything = `{"default":[{"type":"insecureAcceptAnything"}]}`

func nodeName(i int) string    { return "node" + strconv.Itoa(i+1) }
func nodeAddress(i int) string { return "10.99.0." + strconv.Itoa(11+i) }

// Node is a node of the cluster. Its CRI-O and kubelet see the scratch root's directories as the host's.
type Node struct {
	*lab.Node
	Name, Address string

	cluster *Cluster
	kubelet *lab.Process
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix:///run/crio/crio.sock
staticPodPath: @DIR@/static
volumePluginDir: /var/lib/kubelet/plugins-exec
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
address: @ADDRESS@
healthzBindAddress: @ADDRESS@
registerNode: true
localStorageCapacityIsolation: false
resolvConf: ""
oomScoreAdj: 0
failSwapOn: false
evictionHard: {}
imageGCHighThresholdPercent: 100
clusterDNS: []
nodeStatusUpdateFrequency: 5s
syncFrequency: 5s
fileCheckFrequency: 2s
`

// StartKubelet starts the kubelet, which must not run.
func (n *Node) StartKubelet() (err error) {
	dir := filepath.Join(n.cluster.dir, "kubelet-"+n.Name)
	if err := os.MkdirAll(filepath.Join(dir, "static"), 0o755); err != nil {
		return err
	}
	config := filepath.Join(dir, "config.yaml")
	text := strings.NewReplacer("@DIR@", dir, "@ADDRESS@", n.Address).Replace(kubeletConfig)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	n.kubelet, err = n.Start(n.cluster.kube, "kubelet", "--config", config, "--kubeconfig",
		n.cluster.pki.path(n.Name+".kubeconfig"),
		"--hostname-override", n.Name, "--node-ip", n.Address)
	return err
}

// KubeletLog is what the kubelet has said.
func (n *Node) KubeletLog() string { return n.kubelet.Log.String() }

// Object is the node's object in the API.
func (n *Node) Object() (NodeObject, error) {
	var o NodeObject
	return o, n.cluster.Get("/api/v1/nodes/"+n.Name, &o)
}

// NodeObject is what tests want to know of a Node.
type NodeObject struct {
	Metadata Metadata `json:"metadata"`
	Status   struct {
		Conditions []struct{ Type, Status, Message string }
		NodeInfo   struct{ KubeletVersion, ContainerRuntimeVersion string }
	} `json:"status"`
}

// Metadata is an object's.
type Metadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	UID             string            `json:"uid"`
	ResourceVersion string            `json:"resourceVersion"`
	Annotations     map[string]string `json:"annotations"`
	Labels          map[string]string `json:"labels"`
}

// WaitReady waits until the node's object says that it is ready.
func (n *Node) WaitReady() error {
	return lab.Poll(patience, func() error {
		o, err := n.Object()
		if err != nil {
			return err
		}
		for _, c := range o.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" {
				return nil
			}
			if c.Type == "Ready" {
				err = fmt.Errorf("%s is not ready: %s", n.Name, c.Message)
			}
		}
		if err == nil {
			err = fmt.Errorf("%s has no condition Ready", n.Name)
		}
		return err
	})
}

// Render runs `nodetrust render` with arguments on a trust config, on the node, and returns what it writes.
func (n *Node) Render(trust string, args ...string) ([]byte, error) {
	file := filepath.Join(n.cluster.dir, "trust-"+n.Name+".yaml")
	if err := os.WriteFile(file, []byte(trust), 0o644); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := n.Command(ctx, n.cluster.Lab.Programs.Nodetrust, slices.Concat([]string{"render"}, args, []string{file})...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rendering %q: %w: %s", args, err, &stderr)
	}
	return out, nil
}

// Provision writes the files of a trust config to the node, through `nodetrust render`.
func (n *Node) Provision(trust string) error {
	dir, err := os.MkdirTemp(n.cluster.dir, "render-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := n.Render(trust, "--to", "files", "-o", filepath.Join(dir, "files")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := n.Command(ctx, "cp", "-R", filepath.Join(dir, "files/etc/containers")+"/.",
		"/etc/containers/").CombinedOutput(); err != nil {
		return fmt.Errorf("provisioning %s: %w: %s", n.Name, err, out)
	}
	return nil
}

// Reset makes the node accept every image again, and installs Corp's key. It removes what was written to
// /etc/containers and to root's own configuration.
func (n *Node) Reset() error {
	containers := n.Path("etc/containers")
	entries, err := os.ReadDir(containers)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "registries.conf" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(containers, e.Name())))
		}
	}
	return errors.Join(err,
		os.RemoveAll(n.Path("root/.config")),
		os.Mkdir(filepath.Join(containers, "registries.d"), 0o755),
		os.WriteFile(filepath.Join(containers, "policy.json"), []byte(acceptAnything), 0o644),
		os.WriteFile(n.Path(KeyPath), n.cluster.Corp.Armored, 0o644),
	)
}
