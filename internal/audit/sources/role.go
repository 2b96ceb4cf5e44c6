package sources

import (
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/ref"
)

// workload is what runs an image.
type workload struct {
	image, namespace, kind, name string
	agent                        bool
}

// uses yields the images of a workload on a node.
func (w workload) uses(images []cluster.PodImage, node string, yield func(audit.Use) error) error {
	by := w.namespace + "/" + strings.ToLower(w.kind) + "/" + w.name + "@" + node
	for _, i := range images {
		w.image = i.Reference
		if err := yield(audit.Use{Image: w.image, Digest: i.Digest, By: by, Role: w.role()}); err != nil {
			return err
		}
	}
	return nil
}

// releaseRepositories hold the payload of OpenShift releases, whatever mirror serves it.
const releaseRepositories = "quay.io/openshift-release-dev/"

// cni are names of network plugins' workloads on every node.
var cni = []string{
	"antrea-agent", "aws-node", "azure-cni", "calico-node", "calico-typha", "canal", "cilium", "kindnet", "kube-flannel",
	"kube-multus",
	"kube-ovn-cni", "kube-router", "multus", "netd", "ovn-kubernetes", "ovnkube-node", "ovs-node", "sdn", "weave-net",
}

// plane are names of workloads in kube-system of a cluster without a cluster operator.
var plane = []string{
	"cloud-controller-manager", "coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-dns", "kube-proxy",
	"kube-scheduler",
}

// role returns what breaks with an image, the first of release, agent, pause, CNI, control plane.
func (w workload) role() audit.Role {
	openshift := strings.HasPrefix(w.namespace, "openshift-")
	system := w.namespace == "kube-system" || openshift
	switch {
	case strings.HasPrefix(w.image, releaseRepositories), openshift && w.payload():
		return audit.Release
	case w.agent:
		return audit.Agent
	case path.Base(ref.Name(w.image)) == "pause": // its name in all distributions
		return audit.Pause
	case (system || slices.Contains([]string{"kube-flannel", "calico-system"}, w.namespace)) && w.named(cni):
		return audit.CNI
	case system && (w.kind == cluster.StaticPod || w.named(plane)):
		return audit.ControlPlane
	}
	return ""
}

// payload reports whether the image is of a release that was installed from a mirror of another name: it is named by
// digest, in a namespace of OpenShift, and not of an additional operator.
func (w workload) payload() bool {
	if strings.HasPrefix(w.namespace, "openshift-operators") || !strings.Contains(w.image, "@") {
		return false
	}
	return !slices.Contains([]string{"registry.redhat.io", "registry.connect.redhat.com", "registry.access.redhat.com"},
		ref.Host(w.image))
}

// named reports whether the workload is one of names, or a pod of one.
func (w workload) named(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return w.name == n || strings.HasPrefix(w.name, n+"-") })
}
