package test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kustomize/api/resource"
)

// plural is where the API server has a kind.
var plural = map[string]string{
	"Namespace": "namespaces", "ServiceAccount": "serviceaccounts", "ClusterRole": "clusterroles",
	"ClusterRoleBinding": "clusterrolebindings",
	"DaemonSet":          "daemonsets", "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
	"ConfigMap":                        "configmaps",
	"ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings", "FlowSchema": "flowschemas",
	"PriorityLevelConfiguration": "prioritylevelconfigurations",
	"SecurityContextConstraints": "securitycontextconstraints",
	"PodMonitor":                 "podmonitors", "PrometheusRule": "prometheusrules",
}

// TestServerTakesManifests is a strict server-side dry run of every overlay on the cluster of the kubeconfig that
// NODETRUST_TEST_KUBECONFIG names. It makes the namespace nodetrust there, for real, if there is none: without it a
// dry run of what is in it fails.
func TestServerTakesManifests(t *testing.T) {
	path := os.Getenv("NODETRUST_TEST_KUBECONFIG")
	if path == "" {
		t.Skip("NODETRUST_TEST_KUBECONFIG is not set: no API server for a dry run")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, overlay := range append([]string{"monitoring"}, overlays...) {
		for _, r := range build(t, overlay) {
			namespace := r.GetKind() == "Namespace"
			code, message := apply(t, client, config.Host, r, !namespace)
			switch {
			case code == http.StatusOK || code == http.StatusCreated:
				taken++
			case code == http.StatusNotFound && strings.Contains(r.GetApiVersion(), "openshift.io"),
				code == http.StatusNotFound && strings.Contains(r.GetApiVersion(), "coreos.com"):
				t.Logf("%s: the cluster has no %s", overlay, r.GetKind())
			default:
				t.Errorf("%s: %s %s: %d %s", overlay, r.GetKind(), r.GetName(), code, message)
			}
		}
	}
	if taken == 0 {
		t.Error("the server took nothing")
	}
}

// apply sends one resource as kubectl apply --server-side --validate=strict does.
func apply(t *testing.T, client *http.Client, host string, r *resource.Resource, dry bool) (code int, message string) {
	t.Helper()
	body, err := r.AsYAML()
	if err != nil {
		t.Fatal(err)
	}
	url := host + "/apis/" + r.GetApiVersion()
	if !strings.Contains(r.GetApiVersion(), "/") {
		url = host + "/api/" + r.GetApiVersion()
	}
	if ns := r.GetNamespace(); ns != "" {
		url += "/namespaces/" + ns
	}
	name, ok := plural[r.GetKind()]
	if !ok {
		t.Fatalf("where is %s?", r.GetKind())
	}
	url += "/" + name + "/" + r.GetName() + "?fieldManager=nodetrust-test&force=true&fieldValidation=Strict"
	if dry {
		url += "&dryRun=All"
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, url, strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/apply-patch+yaml")
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var status struct {
		Message string `json:"message"`
	}
	_ = json.NewDecoder(res.Body).Decode(&status)
	return res.StatusCode, status.Message
}
