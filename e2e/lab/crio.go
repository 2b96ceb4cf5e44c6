package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// StartCRIO starts CRI-O in the node and waits until it answers. An empty signaturePolicy leaves the setting at its
// default, /etc/containers/policy.json. A CRI-O that runs already is stopped first.
func (n *Node) StartCRIO(signaturePolicy string) error {
	n.StopCRIO()
	crio, err := n.lab.CRIO(context.Background())
	if err != nil {
		return err
	}
	dir := filepath.Join(n.dir, "crio")
	config := filepath.Join(dir, "crio.conf")
	if err := os.WriteFile(config, []byte(n.crioConfig(dir, signaturePolicy)), 0o644); err != nil {
		return err
	}
	p, err := n.Start(crio, "--config", config, "--config-dir", filepath.Join(dir, "conf.d"))
	if err != nil {
		return err
	}
	err = Poll(Patience, func() error {
		if p.Exited() {
			return errors.New("it has ended")
		}
		_, err := n.Images()
		return err
	})
	if err != nil {
		p.Kill()
		return fmt.Errorf("starting CRI-O: %w\n%s", err, p.Log)
	}
	n.crio = p
	return nil
}

// StopCRIO ends CRI-O if it runs; its containers go on. Of its own accord it would wait for pulls that hang.
func (n *Node) StopCRIO() {
	if n.crio != nil {
		n.crio.stop(10 * time.Second)
		n.crio = nil
	}
}

// CRIOLog is what CRI-O has said since its last start.
func (n *Node) CRIOLog() string {
	if n.crio == nil {
		return ""
	}
	return n.crio.Log.String()
}

func (n *Node) crioConfig(dir, signaturePolicy string) string {
	runtime := ociRuntime()
	storage, pinns, pause := "vfs", "/bin/true", "lab/pause"
	if p := n.options.Pods; p != nil {
		storage, pinns, pause = "overlay", p.Pinns, p.PauseImage
	}
	return strings.NewReplacer(
		"@DIR@", dir, "@SOCKET@", n.Socket, "@POLICY@", signaturePolicy, "@RUNTIME@", filepath.Base(runtime),
		"@RUNTIMEPATH@", runtime,
		"@STORAGE@", storage, "@PINNS@", pinns, "@PAUSE@", pause,
	).Replace(`[crio]
root = "@DIR@/root"
runroot = "@DIR@/run"
storage_driver = "@STORAGE@"
log_dir = "@DIR@/logs"
version_file = "@DIR@/run/version"
version_file_persist = "@DIR@/state/version"
clean_shutdown_file = "@DIR@/state/clean.shutdown"
internal_wipe = false
internal_repair = false
[crio.api]
listen = "@SOCKET@"
stream_address = "127.0.0.1"
stream_port = "0"
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
default_runtime = "@RUNTIME@"
pinns_path = "@PINNS@"
namespaces_dir = "@DIR@/ns"
container_exits_dir = "@DIR@/exits"
container_attach_socket_dir = "@DIR@/attach"
log_level = "info"
hooks_dir = []
[crio.runtime.runtimes.@RUNTIME@]
runtime_path = "@RUNTIMEPATH@"
runtime_type = "oci"
runtime_root = "@DIR@/runtime"
[crio.image]
signature_policy = "@POLICY@"
signature_policy_dir = "/etc/crio/policies"
global_auth_file = ""
pause_image = "@PAUSE@"
[crio.network]
network_dir = "@DIR@/cni"
plugin_dirs = ["/usr/lib/cni", "/usr/libexec/cni"]
[crio.metrics]
enable_metrics = false
[crio.nri]
enable_nri = false
`)
}
