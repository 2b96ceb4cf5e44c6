package test

import (
	"slices"
	"strings"
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

var overlays = []string{"overlays/kubernetes", "overlays/observe", "overlays/openshift"}

// design are the capabilities of the design: what the agent needs to heal, and to run its child as another user.
var design = []corev1.Capability{"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"}

func TestPodsHaveNoMoreThanTheyNeed(t *testing.T) {
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			c, pod := container(t, overlay)
			if pod.HostPID || pod.HostIPC || pod.HostNetwork {
				t.Error("shares a namespace with the host")
			}
			if p := pod.SecurityContext.SeccompProfile; p == nil || p.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Error("seccomp is not RuntimeDefault")
			}
			s := c.SecurityContext
			if s == nil || s.Privileged == nil || *s.Privileged || s.AllowPrivilegeEscalation == nil ||
				*s.AllowPrivilegeEscalation ||
				s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				t.Fatal("privileged, or may become so, or writes its root")
			}
			if !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("drops %v, want ALL", s.Capabilities.Drop)
			}
			add := slices.Sorted(slices.Values(s.Capabilities.Add))
			want := design
			if overlay == "overlays/observe" { // FOWNER only serves to write
				want = slices.DeleteFunc(slices.Clone(design), func(c corev1.Capability) bool { return c == "FOWNER" })
			}
			if !slices.Equal(add, want) {
				t.Errorf("adds %v, want %v", add, want)
			}
			if pod.PriorityClassName != "system-node-critical" {
				t.Errorf("priority class %q", pod.PriorityClassName)
			}
			if len(pod.Tolerations) != 1 || pod.Tolerations[0] != (corev1.Toleration{Operator: corev1.TolerationOpExists}) {
				t.Errorf("tolerations %v: a tainted node would have no agent", pod.Tolerations)
			}
			r := c.Resources
			if r.Requests.Cpu().String() != "5m" || r.Requests.Memory().String() != "24Mi" {
				t.Errorf("requests %v", r.Requests)
			}
			if _, limited := r.Limits[corev1.ResourceCPU]; limited {
				t.Error("a CPU limit would throttle healing")
			}
			if got := r.Limits.Memory().Value(); got < 96<<20 || got > 256<<20 {
				t.Errorf("memory limit %d leaves no room for the child, or is none", got)
			}
		})
	}
}

// TestTokenIsRootsAlone holds the child off the token: it has group 0 and must find no group bit.
func TestTokenIsRootsAlone(t *testing.T) {
	for _, overlay := range overlays {
		_, pod := container(t, overlay)
		if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
			t.Errorf("%s: the token is mounted by default, with mode 0644", overlay)
		}
		tokens := 0
		for _, v := range pod.Volumes {
			if v.Projected == nil {
				continue
			}
			for _, src := range v.Projected.Sources {
				if src.ServiceAccountToken != nil {
					tokens++
					if m := v.Projected.DefaultMode; m == nil || *m != 0o400 {
						t.Errorf("%s: volume %s has not mode 0400", overlay, v.Name)
					}
				}
			}
		}
		if tokens != 1 {
			t.Errorf("%s: %d tokens, want one", overlay, tokens)
		}
		if f := pod.SecurityContext.FSGroup; f != nil {
			t.Errorf("%s: fsGroup opens the token to a group", overlay)
		}
	}
}

func TestMounts(t *testing.T) {
	writable := map[string][]string{
		"overlays/kubernetes": {"/etc/containers", "/var/lib/nodetrust"},
		"overlays/observe":    nil,
		"overlays/openshift":  {"/var/lib/nodetrust"},
	}
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			c, pod := container(t, overlay)
			paths := map[string]corev1.HostPathVolumeSource{}
			for _, v := range pod.Volumes {
				if v.HostPath != nil {
					paths[v.Name] = *v.HostPath
				}
			}
			var writes []string
			tmp := false
			for _, m := range c.VolumeMounts {
				h, host := paths[m.Name]
				if m.SubPath != "" {
					t.Errorf("%s is a subPath, which never changes", m.MountPath)
				}
				tmp = tmp || m.MountPath == "/tmp" && slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool {
					return v.Name == m.Name && v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory &&
						v.EmptyDir.SizeLimit != nil
				})
				if !host {
					continue
				}
				if m.MountPath != "/host"+h.Path {
					t.Errorf("%s is mounted at %s", h.Path, m.MountPath)
				}
				if h.Type == nil || (*h.Type != corev1.HostPathDirectory && *h.Type != corev1.HostPathDirectoryOrCreate) {
					t.Errorf("%s is no directory", h.Path)
				}
				for _, secret := range []string{
					"/", "/etc", "/root", "/var", "/var/lib", "/run", "/etc/kubernetes",
					"/var/lib/kubelet",
				} {
					if h.Path == secret {
						t.Errorf("%s is more than the agent needs", h.Path)
					}
				}
				if !m.ReadOnly {
					writes = append(writes, h.Path)
				}
			}
			if !slices.Equal(slices.Sorted(slices.Values(writes)), writable[overlay]) {
				t.Errorf("writable: %v, want %v", writes, writable[overlay])
			}
			if !tmp {
				t.Error("TMPDIR is not a bounded tmpfs")
			}
			if mcd := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool {
				return v.HostPath != nil && v.HostPath.Path == "/etc/machine-config-daemon"
			}); mcd != (overlay == "overlays/openshift") {
				t.Error("/etc/machine-config-daemon is to be mounted on OpenShift only: its existence says whose node it is")
			}
			for _, name := range []string{"etc-mcd", "etc-containers", "run-crio"} {
				if h, ok := paths[name]; ok && *h.Type != corev1.HostPathDirectory {
					t.Errorf("%s would be made where it is missing", h.Path)
				}
			}
			if observe := slices.Contains(c.Args, "--observe"); observe != (overlay == "overlays/observe") {
				t.Errorf("--observe: %v", observe)
			}
		})
	}
}

// TestPools finds what ties a DaemonSet to the ConfigMap of its pool.
func TestPools(t *testing.T) {
	for _, overlay := range overlays {
		ds := decode[appsv1.DaemonSet](t, overlay, "DaemonSet", "nodetrust-agent-worker")
		const pool = "nodetrust.io/pool"
		if ds.Spec.Selector.MatchLabels[pool] != "worker" || ds.Spec.Template.Labels[pool] != "worker" {
			t.Errorf("%s: the pool is no label of pods and selector: two pools would fight over pods", overlay)
		}
		pod := ds.Spec.Template.Spec
		c := pod.Containers[0]
		at := ""
		for _, m := range c.VolumeMounts {
			if m.Name == "desired" {
				at = m.MountPath
			}
		}
		if !slices.Contains(c.Args, "--desired="+at) {
			t.Errorf("%s: the ConfigMap is at %s, the agent reads %v", overlay, at, c.Args)
		}
		for _, v := range pod.Volumes {
			if v.Name == "desired" && (v.ConfigMap == nil || v.ConfigMap.Name != "nodetrust-worker") {
				t.Errorf("%s: the desired state is not ConfigMap nodetrust-worker", overlay)
			}
		}
		u := ds.Spec.UpdateStrategy.RollingUpdate
		if u == nil || u.MaxUnavailable.String() != "10%" || u.MaxSurge.IntValue() != 0 {
			t.Errorf("%s: update strategy %v", overlay, u)
		}
	}
}

func TestRights(t *testing.T) {
	for _, overlay := range overlays {
		role := decode[rbacv1.ClusterRole](t, overlay, "ClusterRole", "nodetrust-agent")
		if len(role.Rules) != 1 {
			t.Fatalf("%s: %d rules, want one", overlay, len(role.Rules))
		}
		r := role.Rules[0]
		if !slices.Equal(r.APIGroups, []string{""}) || !slices.Equal(r.Resources, []string{"nodes"}) ||
			!slices.Equal(r.Verbs, []string{"get", "patch"}) {
			t.Errorf("%s: the agents may %v", overlay, r)
		}
		for _, x := range build(t, overlay) {
			if k := x.GetKind(); k == "Role" || k == "RoleBinding" || strings.HasPrefix(k, "ClusterRole") &&
				x.GetName() != "nodetrust-agent" {
				t.Errorf("%s: %s %s gives further rights", overlay, k, x.GetName())
			}
		}
	}
}

func TestSCCAllowsJustThePods(t *testing.T) {
	scc := decode[securityv1.SecurityContextConstraints](t, "overlays/openshift", "SecurityContextConstraints",
		"nodetrust-agent")
	c, pod := container(t, "overlays/openshift")
	ds := decode[appsv1.DaemonSet](t, "overlays/openshift", "DaemonSet", "nodetrust-agent-worker")
	if got := ds.Spec.Template.Annotations["openshift.io/required-scc"]; got != scc.Name {
		t.Errorf("the pods require SCC %q", got)
	}
	if scc.AllowPrivilegedContainer || scc.AllowHostIPC || scc.AllowHostNetwork || scc.AllowHostPID ||
		scc.AllowHostPorts ||
		scc.AllowPrivilegeEscalation == nil || *scc.AllowPrivilegeEscalation || !scc.ReadOnlyRootFilesystem {
		t.Error("the SCC allows more than the pods ask for")
	}
	if !slices.Equal(slices.Sorted(slices.Values(scc.AllowedCapabilities)),
		slices.Sorted(slices.Values(c.SecurityContext.Capabilities.Add))) {
		t.Errorf("allows capabilities %v", scc.AllowedCapabilities)
	}
	if scc.RunAsUser.UID == nil || *scc.RunAsUser.UID != *c.SecurityContext.RunAsUser {
		t.Error("user of SCC and pod differ")
	}
	if scc.SELinuxContext.SELinuxOptions.Type != "spc_t" || pod.SecurityContext.SELinuxOptions.Type != "spc_t" {
		t.Error("SELinux type of SCC and pod differ")
	}
	if want := "system:serviceaccount:nodetrust:" + pod.ServiceAccountName; !slices.Equal(scc.Users, []string{want}) ||
		len(scc.Groups) != 0 {
		t.Errorf("is for %v %v, want %s", scc.Users, scc.Groups, want)
	}
	kinds := map[securityv1.FSType]bool{}
	for _, v := range pod.Volumes {
		switch {
		case v.HostPath != nil:
			kinds[securityv1.FSTypeHostPath] = true
		case v.ConfigMap != nil:
			kinds[securityv1.FSTypeConfigMap] = true
		case v.Projected != nil:
			kinds[securityv1.FSProjected] = true
		case v.EmptyDir != nil:
			kinds[securityv1.FSTypeEmptyDir] = true
		default:
			t.Errorf("volume %s is of a kind that this test does not know", v.Name)
		}
	}
	for _, k := range scc.Volumes {
		if !kinds[k] {
			t.Errorf("allows volumes of kind %s, which no pod has", k)
		}
		delete(kinds, k)
	}
	if len(kinds) > 0 {
		t.Errorf("volumes %v are not allowed", kinds)
	}
}
