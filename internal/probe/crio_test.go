package probe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

const crioConf = `[crio]
root = "@/root"
runroot = "@/run"
storage_driver = "vfs"
log_dir = "@/logs"
version_file = "@/run/version"
version_file_persist = "@/state/version"
clean_shutdown_file = "@/state/clean.shutdown"
internal_wipe = false
internal_repair = false
[crio.api]
listen = "@/s"
stream_address = "127.0.0.1"
stream_port = "0"
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
conmon = "/usr/bin/conmon"
default_runtime = "runc"
pinns_path = "/bin/true"
namespaces_dir = "@/ns"
container_exits_dir = "@/exits"
container_attach_socket_dir = "@/attach"
hooks_dir = []
[crio.runtime.runtimes.runc]
runtime_path = "/usr/sbin/runc"
runtime_type = "oci"
runtime_root = "@/runc"
monitor_path = "/usr/bin/conmon"
[crio.image]
signature_policy = ""
signature_policy_dir = "@/host/etc/crio/policies"
global_auth_file = ""
[crio.network]
network_dir = "@/cni"
plugin_dirs = ["/usr/lib/cni"]
[crio.metrics]
enable_metrics = false
[crio.nri]
enable_nri = false
`

// startCRIO runs a real CRI-O whose /etc/containers is the world's configuration, in a mount namespace of its own.
func startCRIO(t *testing.T, w *world) (socket, dir string) {
	t.Helper()
	bin := os.Getenv("NODETRUST_CRIO")
	if bin == "" {
		t.Skip("NODETRUST_CRIO names no crio binary")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	dir, err := os.MkdirTemp("/tmp", "nt-crio-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, d := range []string{
		"conf.d", "cni", "state", "logs", "ns", "exits", "attach", "home",
		"host/etc/crio/policies",
	} {
		check(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	check(t, os.WriteFile(filepath.Join(dir, "crio.conf"), []byte(strings.ReplaceAll(crioConf, "@", dir)), 0o644))
	conf := filepath.Join(w.home, ".config/containers")
	check(t, os.Rename(filepath.Join(w.home, "registries.conf"), filepath.Join(conf, "registries.conf")))
	log, err := os.Create(filepath.Join(dir, "crio.log"))
	check(t, err)
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
		`mount --bind "$1" /etc/containers && exec "$2" --config "$3/crio.conf" --config-dir "$3/conf.d"`, "sh",
		conf, bin, dir)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home")}
	cmd.Stdout, cmd.Stderr = log, log
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("crio: %s", b[max(0, len(b)-4000):])
		}
	})
	socket = filepath.Join(dir, "s")
	c, err := dialCRI(socket, "")
	check(t, err)
	defer c.Close()
	for deadline := time.Now().Add(time.Minute); !c.absent(context.Background(),
		w.signed); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("crio did not become ready")
		}
	}
	return "unix://" + socket, dir
}

func TestCRIO(t *testing.T) {
	w := newWorld(t)
	socket, dir := startCRIO(t, w)
	o := Options{Runtime: CRI, CRISocket: socket, Root: filepath.Join(dir, "host")}
	one := func(image string, expect verdict.Answer) judge.Canary {
		t.Helper()
		out, err := Run(context.Background(), []trust.Canary{{Image: image, Expect: expect}}, o)
		check(t, err)
		return out[0]
	}
	isThere := func(image string) bool {
		c, err := dialCRI(socket, "")
		check(t, err)
		defer c.Close()
		return !c.absent(context.Background(), image)
	}
	for _, tt := range w.expectations() {
		t.Run(tt.name, func(t *testing.T) {
			got := one(tt.image, verdict.Refuse)
			t.Logf("%s", got.Message)
			if got.Answer != tt.want || got.Reason != tt.reason {
				t.Errorf("got %s %s (%s), want %s %s", got.Answer, got.Reason, got.Message, tt.want, tt.reason)
			}
			if isThere(tt.image) {
				t.Error("the image was left behind")
			}
		})
	}
	t.Run("version", func(t *testing.T) {
		rs := Runtimes(context.Background(), o)
		if len(rs) != 1 || rs[0].Name != "cri-o" || rs[0].Version == "" {
			t.Errorf("got %+v", rs)
		}
	})
	t.Run("kept and removed", func(t *testing.T) {
		o.KeepAccepted = true
		var absent []string
		o.Announce = func(refs []string) error { absent = refs; return nil }
		defer func() { o.KeepAccepted, o.Announce = false, nil }()
		if one(w.signed, verdict.Accept); !isThere(w.signed) || len(absent) != 1 || absent[0] != w.signed {
			t.Errorf("want the image kept and announced, got %v", absent)
		}
		if one(w.signed, verdict.Accept); len(absent) != 0 {
			t.Errorf("announced although it is there: %v", absent)
		}
		o.KeepAccepted = false
		if one(w.signed, verdict.Accept); !isThere(w.signed) {
			t.Error("an image that was there before was removed")
		}
		check(t, Remove(context.Background(), []string{w.signed, w.unsigned}, o))
		if isThere(w.signed) {
			t.Error("not removed")
		}
	})
	t.Run("namespaced", func(t *testing.T) {
		check(t, os.WriteFile(filepath.Join(o.Root, "etc/crio/policies/open.json"),
			[]byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644))
		defer os.Remove(filepath.Join(o.Root, "etc/crio/policies/open.json"))
		out, err := Run(context.Background(), []trust.Canary{
			{Image: w.signed, Expect: verdict.Accept},
			{Image: w.unsigned, Expect: verdict.Refuse},
		}, o)
		check(t, err)
		var got []string
		for _, c := range out {
			got = append(got, fmt.Sprintf("%s/%s/%s/%v", c.Namespace, c.Expect, c.Answer, c.OK))
		}
		if s := strings.Join(got, " "); s != "/accept/accept/true /refuse/refuse/true open/accept/accept/true open/refuse/accept/false" {
			t.Errorf("got %s", s)
		}
		if isThere(w.unsigned) {
			t.Error("the pulled refuse-canary was left behind")
		}
	})
	policy := filepath.Join(w.home, ".config/containers/policy.json")
	good, err := os.ReadFile(policy)
	check(t, err)
	for _, tt := range []struct {
		name   string
		break_ func()
		reason verdict.Reason
	}{
		{"lookaside down", w.lookaside.Stop, verdict.LookasideUnreachable},
		{"policy broken", func() {
			check(t, w.lookaside.Start())
			check(t, os.WriteFile(policy, []byte("{"), 0o644))
		}, verdict.PolicyInvalid},
		{"policy missing", func() { check(t, os.Remove(policy)) }, verdict.PolicyInvalid},
		{"registries.d twice", func() {
			check(t, os.WriteFile(policy, good, 0o644))
			w.write(t, ".config/containers/registries.d/bad.yaml", "docker:\n  "+w.registry.Host+": {}\n")
		}, verdict.RegistriesDInvalid},
		{
			"registries.d broken", func() { w.write(t, ".config/containers/registries.d/bad.yaml", "docker: [\n") },
			verdict.RegistriesDInvalid,
		},
		{"registry down", func() {
			check(t, os.Remove(filepath.Join(w.home, ".config/containers/registries.d/bad.yaml")))
			w.registry.Stop()
		}, verdict.RegistryUnreachable},
		{"socket gone", func() { o.CRISocket = filepath.Join(dir, "nobody") }, verdict.RuntimeFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.break_()
			got := one(w.signed, verdict.Refuse)
			t.Logf("%s", got.Message)
			if got.Answer != verdict.Unknown || got.Reason != tt.reason || got.OK {
				t.Errorf("got %s %s (%s), want unknown %s", got.Answer, got.Reason, got.Message, tt.reason)
			}
		})
	}
}
