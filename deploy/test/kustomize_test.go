// Package test checks what deploy/ ships with the programs that will read it: kustomize, the API server's types and its
// CEL, OpenShift's types, and Prometheus' rule engine. It is a module of its own: none of these are nodetrust's.
package test

import (
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// build is what `kubectl kustomize deploy/kustomize/DIR` prints.
func build(t *testing.T, dir string) []*resource.Resource {
	t.Helper()
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../kustomize/"+dir)
	if err != nil {
		t.Fatalf("kustomize %s: %v", dir, err)
	}
	return m.Resources()
}

// decode reads one resource of an overlay as its type; a field that the type lacks is an error.
func decode[T any](t *testing.T, overlay, kind, name string) *T {
	t.Helper()
	for _, r := range build(t, overlay) {
		if r.GetKind() == kind && r.GetName() == name {
			out := new(T)
			strict(t, r, out)
			return out
		}
	}
	t.Fatalf("%s has no %s %s", overlay, kind, name)
	return nil
}

func strict(t *testing.T, r *resource.Resource, into any) {
	t.Helper()
	b, err := r.AsYAML()
	if err == nil {
		err = yaml.UnmarshalStrict(b, into)
	}
	if err != nil {
		t.Errorf("%s %s: %v", r.GetKind(), r.GetName(), err)
	}
}

// TestOverlaysAreOfTheirTypes decodes everything strictly: a misspelt field would be dropped in silence by older
// servers.
func TestOverlaysAreOfTheirTypes(t *testing.T) {
	types := map[string]func() any{
		"Namespace":                        func() any { return new(corev1.Namespace) },
		"ServiceAccount":                   func() any { return new(corev1.ServiceAccount) },
		"ClusterRole":                      func() any { return new(rbacv1.ClusterRole) },
		"ClusterRoleBinding":               func() any { return new(rbacv1.ClusterRoleBinding) },
		"DaemonSet":                        func() any { return new(appsv1.DaemonSet) },
		"ValidatingAdmissionPolicy":        func() any { return new(admissionv1.ValidatingAdmissionPolicy) },
		"ValidatingAdmissionPolicyBinding": func() any { return new(admissionv1.ValidatingAdmissionPolicyBinding) },
		"FlowSchema":                       func() any { return new(flowcontrolv1.FlowSchema) },
		"PriorityLevelConfiguration":       func() any { return new(flowcontrolv1.PriorityLevelConfiguration) },
		"SecurityContextConstraints":       func() any { return new(securityv1.SecurityContextConstraints) },
	}
	for overlay, want := range map[string]int{
		"overlays/kubernetes": 9, "overlays/observe": 9, "overlays/openshift": 10, "overlays/restore": 9,
	} {
		t.Run(overlay, func(t *testing.T) {
			all := build(t, overlay)
			if len(all) != want {
				t.Errorf("%d resources, want %d", len(all), want)
			}
			for _, r := range all {
				into, ok := types[r.GetKind()]
				if !ok {
					t.Errorf("%s %s: no type to check it with", r.GetKind(), r.GetName())
					continue
				}
				strict(t, r, into())
			}
		})
	}
}

// container returns the agent of an overlay and its pod.
func container(t *testing.T, overlay string) (corev1.Container, corev1.PodSpec) {
	t.Helper()
	ds := decode[appsv1.DaemonSet](t, overlay, "DaemonSet", "nodetrust-agent-worker")
	pod := ds.Spec.Template.Spec
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Fatalf("%d containers and %d init containers, want one", len(pod.Containers), len(pod.InitContainers))
	}
	return pod.Containers[0], pod
}
