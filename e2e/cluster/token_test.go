package cluster

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// call is a request to the API server.
type call struct {
	name, method, path string
	kind               string // of content
	body               string
	as                 string // to impersonate
}

// make does it with a token and returns the status and what the server says.
func (c call) make(on *Cluster, client *http.Client, token string) (code int, message string, err error) {
	req, err := http.NewRequest(c.method, on.server+c.path, bytes.NewReader([]byte(c.body)))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if c.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.kind != "" {
		req.Header.Set("Content-Type", "application/"+c.kind)
	}
	if c.as != "" {
		req.Header.Set("Impersonate-User", c.as)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", err
	}
	var status struct{ Message string }
	if json.Unmarshal(b, &status) != nil {
		status.Message = string(b)
	}
	return resp.StatusCode, status.Message, nil
}

const (
	mergePatch = "merge-patch+json"
	jsonPatch  = "json-patch+json"
	strategic  = "strategic-merge-patch+json"
	applyPatch = "apply-patch+yaml"
)

// fixedNode is what nobody but an admin changes of a Node, and what the agent must not.
type fixedNode struct {
	Metadata struct {
		Annotations, Labels         map[string]string
		Finalizers, OwnerReferences []any
	}
	Spec   any
	Status struct{ Capacity map[string]string }
}

func (c *Cluster) fixed(t *testing.T, node string) fixedNode {
	t.Helper()
	var n fixedNode
	must(t, c.Get("/api/v1/nodes/"+node, &n))
	for _, key := range []string{"state", "reason", "message", "desired", "observed", "checked-at"} {
		delete(n.Metadata.Annotations, "nodetrust.io/"+key)
	}
	return n
}

// furnish gives node1 something of everything, so that all of it can be tried to change and remove.
func furnish(t *testing.T, c *Cluster) {
	t.Helper()
	var owner struct{ Metadata Metadata }
	must(t, c.Get("/api/v1/namespaces/kube-system", &owner)) // one that lives as long as the cluster
	patch := func(format string, args ...any) error {
		return c.Do(http.MethodPatch, "/api/v1/nodes/node1", "application/"+mergePatch,
			fmt.Appendf(nil, format, args...), nil)
	}
	t.Cleanup(func() {
		must(t, patch(`{"metadata":{"labels":{"example.com/label":null},"annotations":{"example.com/annotation":null},"finalizers":null,"ownerReferences":null},"spec":{"taints":null}}`))
	})
	must(t, patch(`{"metadata":{"labels":{"example.com/label":"1"},"annotations":{"example.com/annotation":"1"},"finalizers":["example.com/keep"],
"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"kube-system","uid":%q}]},
"spec":{"taints":[{"key":"example.com/taint","effect":"PreferNoSchedule"}]}}`, owner.Metadata.UID))
}

// TestToken tries what a thief of an agent's token might: the token is taken from the pod on node1, where the agent
// uses it.
func TestToken(t *testing.T) {
	c := need(t)
	d := deploy(t, c)
	furnish(t, c)
	token, err := d.token(c.Nodes[0])
	must(t, err)
	p, err := d.pod("node1")
	must(t, err)
	client := c.clientWith(&tls.Config{})
	defer client.CloseIdleConnections()
	before := map[string]fixedNode{}
	for _, n := range c.Nodes {
		before[n.Name] = c.fixed(t, n.Name)
	}

	const (
		own        = "/api/v1/nodes/node1"
		other      = "/api/v1/nodes/node2"
		ours       = "/api/v1/namespaces/nodetrust"
		rbac       = "/apis/rbac.authorization.k8s.io/v1"
		admission  = "/apis/admissionregistration.k8s.io/v1"
		report     = `{"metadata":{"annotations":{"nodetrust.io/state":"Enforced"}}}`
		newNode    = `{"apiVersion":"v1","kind":"Node","metadata":{"name":"node3"}}`
		newPod     = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`
		newToken   = `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`
		newSecret  = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}`
		newBinding = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"b"},
"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},
"subjects":[{"kind":"ServiceAccount","name":"nodetrust-agent","namespace":"nodetrust"}]}`
	)
	patch := func(name, path, body string) call {
		return call{name: name, method: "PATCH", path: path, kind: mergePatch, body: body}
	}
	annotate := func(name, key, value string) call {
		return patch(name, own, fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, key, value))
	}
	get := func(name, path string) call { return call{name: name, method: "GET", path: path} }
	post := func(name, path, body string) call { return call{name: name, method: "POST", path: path, body: body} }
	remove := func(name, path string) call { return call{name: name, method: "DELETE", path: path} }

	denied := []call{
		patch("report of another node", other, report),
		{
			name: "report of another node as JSON patch", method: "PATCH", path: other, kind: jsonPatch,
			body: `[{"op":"add","path":"/metadata/annotations/nodetrust.io~1state","value":"Enforced"}]`,
		},
		{name: "report of another node as strategic patch", method: "PATCH", path: other, kind: strategic, body: report},
		{
			name: "report of another node as applied", method: "PATCH", path: other + "?fieldManager=thief&force=true",
			kind: applyPatch, body: `{"apiVersion":"v1","kind":"Node","metadata":{"name":"node2","annotations":{"nodetrust.io/state":"Enforced"}}}`,
		},
		patch("label of another node", other, `{"metadata":{"labels":{"example.com/new":"1"}}}`),
		patch("label added", own, `{"metadata":{"labels":{"example.com/new":"1"}}}`),
		patch("label added with our prefix", own, `{"metadata":{"labels":{"nodetrust.io/pool":"p"}}}`),
		patch("label added that gives a role", own, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`),
		patch("label changed", own, `{"metadata":{"labels":{"example.com/label":"2"}}}`),
		patch("label removed", own, `{"metadata":{"labels":{"example.com/label":null}}}`),
		patch("all labels removed", own, `{"metadata":{"labels":null}}`),
		{
			name: "label applied", method: "PATCH", path: own + "?fieldManager=thief&force=true", kind: applyPatch,
			body: `{"apiVersion":"v1","kind":"Node","metadata":{"name":"node1","labels":{"example.com/new":"1"}}}`,
		},
		{
			name: "taint added", method: "PATCH", path: own, kind: strategic,
			body: `{"spec":{"taints":[{"key":"example.com/new","effect":"NoExecute"}]}}`,
		},
		patch("taint changed", own, `{"spec":{"taints":[{"key":"example.com/taint","effect":"NoSchedule"}]}}`),
		patch("taints removed", own, `{"spec":{"taints":null}}`),
		patch("unschedulable", own, `{"spec":{"unschedulable":true}}`),
		patch("provider", own, `{"spec":{"providerID":"example://1"}}`),
		patch("pod network", own, `{"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"]}}`),
		patch("finalizer added", own, `{"metadata":{"finalizers":["example.com/keep","example.com/stay"]}}`),
		patch("finalizer changed", own, `{"metadata":{"finalizers":["example.com/stay"]}}`),
		patch("finalizers removed", own, `{"metadata":{"finalizers":null}}`),
		{
			name: "owner added", method: "PATCH", path: own, kind: jsonPatch,
			body: `[{"op":"add","path":"/metadata/ownerReferences/-","value":{"apiVersion":"v1","kind":"Namespace","name":"default","uid":"1"}}]`,
		},
		{
			name: "owner changed", method: "PATCH", path: own, kind: jsonPatch,
			body: `[{"op":"replace","path":"/metadata/ownerReferences/0/uid","value":"1"}]`,
		},
		patch("owner removed", own, `{"metadata":{"ownerReferences":null}}`),
		annotate("foreign annotation added", "example.com/new", `"1"`),
		annotate("foreign annotation added of the Machine Config Operator", "machineconfiguration.openshift.io/desiredConfig",
			`"rendered-x"`),
		annotate("foreign annotation changed", "example.com/annotation", `"2"`),
		annotate("foreign annotation emptied", "example.com/annotation", `""`),
		annotate("foreign annotation removed", "example.com/annotation", "null"),
		patch("foreign annotation beside ours", own,
			`{"metadata":{"annotations":{"nodetrust.io/state":"Enforced","example.com/new":"1"}}}`),
		patch("all annotations removed", own, `{"metadata":{"annotations":null}}`),
		annotate("seventh key of our prefix", "nodetrust.io/seventh", `"1"`),
		annotate("key that begins like ours", "nodetrust.io/state-2", `"1"`),
		annotate("key of a domain below ours", "sub.nodetrust.io/state", `"1"`),
		annotate("value of 257 characters", "nodetrust.io/message", `"`+strings.Repeat("m", 257)+`"`),
		patch("status of its node", own+"/status", `{"status":{"capacity":{"example.com/gpu":"8"}}}`),
		patch("report through the status", own+"/status", report),
		get("proxy to the kubelet", own+"/proxy/pods"),
		get("nodes listed", "/api/v1/nodes"),
		get("own node listed", "/api/v1/nodes?fieldSelector=metadata.name%3Dnode1"),
		get("nodes watched", "/api/v1/nodes?watch=1"),
		post("node made", "/api/v1/nodes", newNode),
		{
			name: "node made by applying", method: "PATCH", path: "/api/v1/nodes/node3?fieldManager=thief", kind: applyPatch,
			body: newNode,
		},
		{
			name: "own node updated", method: "PUT", path: own,
			body: `{"apiVersion":"v1","kind":"Node","metadata":{"name":"node1"}}`,
		},
		remove("own node deleted", own),
		remove("another node deleted", other),
		remove("all nodes deleted", "/api/v1/nodes"),
		get("secrets of all", "/api/v1/secrets"),
		get("secrets of its namespace", ours+"/secrets"),
		get("one secret", "/api/v1/namespaces/kube-system/secrets/s"),
		post("secret made", ours+"/secrets", newSecret),
		get("configmaps listed", ours+"/configmaps"),
		get("its desired state", ours+"/configmaps/nodetrust-worker"),
		patch("its desired state changed", ours+"/configmaps/nodetrust-worker", `{"data":{"desired.ign":"{}"}}`),
		get("pods of all", "/api/v1/pods"),
		get("its own pod", ours+"/pods/"+p.Metadata.Name),
		post("pod made", ours+"/pods", newPod),
		remove("its own pod deleted", ours+"/pods/"+p.Metadata.Name),
		post("command in its pod", ours+"/pods/"+p.Metadata.Name+"/exec?command=sh&container=agent", ""),
		get("log of its pod", ours+"/pods/"+p.Metadata.Name+"/log"),
		patch("its DaemonSet", "/apis/apps/v1/namespaces/nodetrust/daemonsets/nodetrust-agent-worker",
			`{"spec":{"minReadySeconds":1}}`),
		get("its ServiceAccount", ours+"/serviceaccounts/nodetrust-agent"),
		post("token of its ServiceAccount", ours+"/serviceaccounts/nodetrust-agent/token", newToken),
		post("token of another ServiceAccount", "/api/v1/namespaces/kube-system/serviceaccounts/default/token", newToken),
		{name: "an admin impersonated", method: "GET", path: own, as: "admin"},
		{name: "a kubelet impersonated", method: "GET", path: own, as: "system:node:node1"},
		{
			name: "itself impersonated", method: "PATCH", path: own, kind: mergePatch, body: report,
			as: "system:serviceaccount:nodetrust:nodetrust-agent",
		},
		post("role binding made", rbac+"/clusterrolebindings", newBinding),
		patch("its role", rbac+"/clusterroles/nodetrust-agent", `{"rules":[]}`),
		remove("the admission policy deleted", admission+"/validatingadmissionpolicies/nodetrust-agent"),
		remove("its binding deleted", admission+"/validatingadmissionpolicybindings/nodetrust-agent"),
		get("namespaces listed", "/api/v1/namespaces"),
		post("event made", ours+"/events", `{"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"involvedObject":{}}`),
		get("the kubelet's lease", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node1"),
		get("the API server's metrics", "/metrics"),
	}
	if len(denied) < 40 {
		t.Errorf("%d calls that must be denied: want at least 40", len(denied))
	}
	for _, call := range denied {
		t.Run("denied/"+call.name, func(t *testing.T) {
			code, message, err := call.make(c, client, token)
			must(t, err)
			if code != http.StatusForbidden {
				t.Errorf("%s %s: %d %.200s", call.method, call.path, code, message)
			}
		})
	}

	// A token of the same ServiceAccount that is bound to no pod is nobody's, and one of node 2's agent is not node 1's.
	loose, err := c.Kubectl("-n", "nodetrust", "create", "token", "nodetrust-agent")
	must(t, err)
	foreign, err := d.token(c.Nodes[1])
	must(t, err)
	for name, token := range map[string]string{"without a pod": strings.TrimSpace(loose), "of the other agent": foreign} {
		t.Run("denied/report with a token "+name, func(t *testing.T) {
			code, message, err := patch("", own, report).make(c, client, token)
			must(t, err)
			if code != http.StatusForbidden || !strings.Contains(message, "bound to a pod on node") {
				t.Errorf("%d %.200s", code, message)
			}
		})
	}
	for _, n := range c.Nodes {
		if after := c.fixed(t, n.Name); !reflect.DeepEqual(after, before[n.Name]) {
			t.Errorf("%s was changed:\n%+v\n%+v", n.Name, before[n.Name], after)
		}
	}

	for _, call := range []call{
		get("its node", own),
		get("another node: roles can't tell them apart", other),
		patch("its report", own, `{"metadata":{"annotations":{"nodetrust.io/state":"Unknown","nodetrust.io/reason":"Test","nodetrust.io/message":"m",
"nodetrust.io/desired":"d","nodetrust.io/observed":"o","nodetrust.io/checked-at":"2026-01-01T00:00:00Z"}}}`),
		annotate("256 characters", "nodetrust.io/message", `"`+strings.Repeat("m", 256)+`"`),
		annotate("an annotation of its own removed", "nodetrust.io/reason", "null"),
		{
			name: "its report as JSON patch", method: "PATCH", path: own, kind: jsonPatch,
			body: `[{"op":"add","path":"/metadata/annotations/nodetrust.io~1observed","value":"p"}]`,
		},
		patch("status in a patch of the node, which the server leaves out", own,
			`{"status":{"capacity":{"example.com/gpu":"8"}}}`),
	} {
		t.Run("allowed/"+call.name, func(t *testing.T) {
			code, message, err := call.make(c, client, token)
			must(t, err)
			if code != http.StatusOK {
				t.Errorf("%s %s: %d %.200s", call.method, call.path, code, message)
			}
		})
	}
	o, err := c.Nodes[0].Object()
	must(t, err)
	for key, want := range map[string]string{"state": "Unknown", "reason": "", "desired": "d", "observed": "p"} {
		if got := o.Metadata.Annotations["nodetrust.io/"+key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if after := c.fixed(t, "node1"); !reflect.DeepEqual(after, before["node1"]) {
		t.Errorf("node1 was changed by its report:\n%+v\n%+v", before["node1"], after)
	}

	// What the agent asks is counted by the priority level of deploy/, and by no other.
	var level struct{ Metadata Metadata }
	must(t, c.Get("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/nodetrust-agent", &level))
	req, err := http.NewRequest(http.MethodGet, c.server+own, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	must(t, err)
	resp.Body.Close()
	if got := resp.Header.Get("X-Kubernetes-PF-PriorityLevel-UID"); got == "" || got != level.Metadata.UID {
		t.Errorf("its requests are of priority level %q, want nodetrust-agent (%s)", got, level.Metadata.UID)
	}
}
