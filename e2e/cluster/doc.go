// Package cluster runs a real Kubernetes cluster on this machine for tests: etcd and the control plane, and per node
// a kubelet and CRI-O that run pods, with a registry and a lookaside server. All of it lives in a network of its own
// and ends with this program, whatever ends that.
package cluster
