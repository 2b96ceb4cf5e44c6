package test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// TestRestoreOverlay: one program restores, with the rights of the agent and all that it wrote; what runs afterwards
// has none.
func TestRestoreOverlay(t *testing.T) {
	agent, pod := container(t, "overlays/kubernetes")
	ds := decode[appsv1.DaemonSet](t, "overlays/restore", "DaemonSet", "nodetrust-agent-worker")
	spec := ds.Spec.Template.Spec
	if len(spec.InitContainers) != 1 || len(spec.Containers) != 1 {
		t.Fatalf("%d init containers and %d containers", len(spec.InitContainers), len(spec.Containers))
	}
	restore, idle := spec.InitContainers[0], spec.Containers[0]
	if !slices.Contains(restore.Args, "--restore") || slices.Contains(restore.Args, "--observe") {
		t.Errorf("args %q", restore.Args)
	}
	for _, a := range restore.Args {
		if a == "--desired=/etc/nodetrust/desired" {
			t.Error("a desired state is asked for, which may be gone")
		}
	}
	if restore.Image != agent.Image || !slices.Equal(restore.Command, agent.Command) {
		t.Errorf("%s %q is not the agent", restore.Image, restore.Command)
	}
	if !slices.Equal(restore.SecurityContext.Capabilities.Add, agent.SecurityContext.Capabilities.Add) {
		t.Errorf("capabilities %v", restore.SecurityContext.Capabilities.Add)
	}
	if !slices.ContainsFunc(restore.Env, func(e corev1.EnvVar) bool {
		return e.Name == "NODE_NAME" && e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "spec.nodeName"
	}) {
		t.Errorf("environment %v: whose annotations are to be removed?", restore.Env)
	}
	for _, m := range agent.VolumeMounts {
		if m.Name != "desired" && !slices.ContainsFunc(restore.VolumeMounts, func(r corev1.VolumeMount) bool {
			return r.Name == m.Name && r.MountPath == m.MountPath && r.ReadOnly == m.ReadOnly
		}) {
			t.Errorf("%s is not mounted", m.MountPath)
		}
	}
	for _, v := range spec.Volumes {
		if v.Name == "desired" || v.ConfigMap != nil {
			t.Errorf("volume %s", v.Name)
		}
	}
	if len(spec.Volumes) != len(pod.Volumes)-1 {
		t.Errorf("%d volumes of %d", len(spec.Volumes), len(pod.Volumes))
	}
	s := idle.SecurityContext
	if len(idle.VolumeMounts)+len(idle.Ports)+len(idle.Env)+len(idle.Args) > 0 || *s.RunAsUser == 0 ||
		len(s.Capabilities.Add) > 0 || len(s.Capabilities.Drop) != 1 || idle.LivenessProbe != nil {
		t.Errorf("what is left has rights: %+v", idle)
	}
	if idle.Image != agent.Image || !slices.Equal(idle.Command, []string{"sleep", "infinity"}) {
		t.Errorf("%s %q", idle.Image, idle.Command)
	}
}
