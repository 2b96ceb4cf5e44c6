// Package lab runs nodes on this machine for tests: each has mount and process namespaces of its own, in which a
// scratch host root's /etc/containers lies over the machine's, and a real CRI-O (image service only) and podman that
// read it. Nothing in it is imitated, and nothing of it outlives the node.
package lab
