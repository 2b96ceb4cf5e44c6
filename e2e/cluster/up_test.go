package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestStartUp: the cluster is what it says it is. How long it took is told by TestMain, and by `make bench`.
func TestStartUp(t *testing.T) {
	c := need(t)
	var version struct{ GitVersion string }
	must(t, c.Get("/version", &version))
	if version.GitVersion != "v1.36.3" {
		t.Errorf("the API server is %s", version.GitVersion)
	}
	for _, n := range c.Nodes {
		o, err := n.Object()
		must(t, err)
		if got := o.Status.NodeInfo; got.KubeletVersion != "v1.36.3" || got.ContainerRuntimeVersion != "cri-o://1.34.0" {
			t.Errorf("%s runs %+v", n.Name, got)
		}
	}
}

// TestCRDs: objects of OpenShift's kinds are validated by the API server, the MachineConfig that we render among them.
func TestCRDs(t *testing.T) {
	c := need(t)
	must(t, c.InstallCRDs(context.Background()))
	mc, err := c.Nodes[0].Render(c.Trust(""), "--to", "machineconfig")
	must(t, err)
	t.Cleanup(func() { must(t, c.Delete(mc)) })
	must(t, c.Apply(mc))
	for name, manifest := range map[string]string{
		"MachineConfigPool":  `{apiVersion: machineconfiguration.openshift.io/v1, kind: MachineConfigPool, metadata: {name: worker}, spec: {paused: maybe}}`,
		"ClusterImagePolicy": `{apiVersion: config.openshift.io/v1, kind: ClusterImagePolicy, metadata: {name: p}, spec: {scopes: []}}`,
	} {
		if err := c.Apply([]byte(manifest)); err == nil {
			t.Errorf("an invalid %s is taken", name)
		}
	}
}

func TestDebian(t *testing.T) {
	for _, tt := range []struct {
		name, release string
		want          bool
	}{
		{"bookworm", "ID=debian\nVERSION_ID=\"12\"\n", true},
		{"trixie", "ID=debian\nVERSION_ID=13", true},
		{"sid", "ID=debian\n", true},
		{"bullseye", "ID=debian\nVERSION_ID=\"11\"\n", false},
		{"ubuntu", "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n", false},
		{"fedora", "ID=fedora\nVERSION_ID=42\n", false},
		{"nothing", "", false},
	} {
		if got := debian12(tt.release); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// TestInotify counts in a user namespace that may have only a few instances.
func TestInotify(t *testing.T) {
	if os.Getenv("LAB_TEST_INOTIFY") != "" {
		fmt.Println("free:", freeInotify(20))
		os.Exit(0)
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("unshare", "--user", "--map-root-user", "sh", "-c",
		`echo 7 >/proc/sys/user/max_inotify_instances && exec "$0" -test.run '^TestInotify$'`, self)
	cmd.Env = append(os.Environ(), "LAB_TEST_INOTIFY=1", "NODETRUST_E2E=") // it has no room for a cluster, and wants none
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "unshare failed") {
		t.Skipf("user namespaces are not permitted here: %s", out)
	}
	if !strings.Contains(string(out), "free: 7\n") {
		t.Errorf("of seven, got %s (%v)", out, err)
	}
}
