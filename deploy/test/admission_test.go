package test

import (
	"maps"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
)

const (
	account = "system:serviceaccount:nodetrust:nodetrust-agent"
	claim   = "authentication.kubernetes.io/node-name"
	budget  = 10_000_000
)

// compile does what the API server does with a policy that it is sent, with the CEL of the oldest version that the
// docs name.
func compile(t *testing.T, p *admissionv1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	c, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MajorMinor(1, 30)))
	if err != nil {
		t.Fatal(err)
	}
	options := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	var variables []cel.NamedExpressionAccessor
	for _, v := range p.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	c.CompileAndStoreVariables(variables, options, environment.NewExpressions)
	var conditions, checks, messages []cel.ExpressionAccessor
	for _, m := range p.Spec.MatchConditions {
		conditions = append(conditions, &matchconditions.MatchCondition{Name: m.Name, Expression: m.Expression})
	}
	for _, v := range p.Spec.Validations {
		checks = append(checks, &validating.ValidationCondition{
			Expression: v.Expression, Message: v.Message,
			Reason: v.Reason,
		})
		var message cel.ExpressionAccessor
		if v.MessageExpression != "" {
			message = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
		messages = append(messages, message)
	}
	match := c.CompileCondition(conditions, options, environment.NewExpressions)
	validate := c.CompileCondition(checks, options, environment.NewExpressions)
	for _, e := range []cel.ConditionEvaluator{match, validate} {
		if err := e.CompilationErrors(); len(err) > 0 {
			t.Fatalf("the policy does not compile: %v", err)
		}
	}
	return validating.NewValidator(validate, matchconditions.NewMatcher(match, p.Spec.FailurePolicy, "policy",
		"validate", p.Name),
		c.CompileCondition(nil, options, environment.NewExpressions),
		c.CompileCondition(messages, cel.OptionalVariableDeclarations{}, environment.NewExpressions),
		p.Spec.FailurePolicy, nil)
}

func testNode() *corev1.Node {
	return &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "node-1", Labels: map[string]string{"kubernetes.io/hostname": "node-1"},
			Annotations:     map[string]string{"other.example/a": "1", "nodetrust.io/state": "Unknown"},
			Finalizers:      []string{"example.com/keep"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Machine", Name: "m", UID: "u"}},
		},
		Spec: corev1.NodeSpec{
			PodCIDR: "10.0.0.0/24",
			Taints:  []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}},
		},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

func agentOn(node string) *user.DefaultInfo {
	return &user.DefaultInfo{Name: account, Extra: map[string][]string{claim: {node}}}
}

// TestAdmissionPolicy judges what a token of the agent on node-1 may do to Nodes: its six annotations and nothing else.
func TestAdmissionPolicy(t *testing.T) {
	policy := decode[admissionv1.ValidatingAdmissionPolicy](t, "overlays/kubernetes", "ValidatingAdmissionPolicy",
		"nodetrust-agent")
	if policy.Spec.FailurePolicy == nil || *policy.Spec.FailurePolicy != admissionv1.Fail {
		t.Fatal("the policy does not fail closed")
	}
	binding := decode[admissionv1.ValidatingAdmissionPolicyBinding](t, "overlays/kubernetes",
		"ValidatingAdmissionPolicyBinding", "nodetrust-agent")
	if binding.Spec.PolicyName != policy.Name || len(binding.Spec.ValidationActions) != 1 ||
		binding.Spec.ValidationActions[0] != admissionv1.Deny || binding.Spec.MatchResources != nil {
		t.Fatalf("the binding does not deny everywhere: %+v", binding.Spec)
	}
	validator := compile(t, policy)
	six := map[string]string{
		"nodetrust.io/state": "Enforced", "nodetrust.io/reason": "", "nodetrust.io/message": strings.Repeat("m", 256),
		"nodetrust.io/desired": "sha256:" + strings.Repeat("0", 64), "nodetrust.io/observed": "",
		"nodetrust.io/checked-at": "2026-01-01T00:00:00Z",
	}
	self := agentOn("node-1")
	for _, c := range []struct {
		name   string
		who    *user.DefaultInfo
		sub    string
		change func(old, node *corev1.Node)
		allow  bool
	}{
		{"its six annotations", self, "", func(_, n *corev1.Node) { maps.Copy(n.Annotations, six) }, true},
		{"its first annotations on a bare node", self, "", func(o, n *corev1.Node) {
			o.ObjectMeta, n.ObjectMeta = metav1.ObjectMeta{Name: "node-1"}, metav1.ObjectMeta{Name: "node-1", Annotations: six}
		}, true},
		{"removing one of its own", self, "", func(_, n *corev1.Node) { delete(n.Annotations, "nodetrust.io/state") }, true},
		{"nothing", self, "", func(_, _ *corev1.Node) {}, true},
		{"what the server changes itself", self, "", func(_, n *corev1.Node) {
			n.Annotations["nodetrust.io/state"], n.ResourceVersion, n.Generation = "Drifted", "7", 3
			n.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "nodetrust-agent"}}
		}, true},
		{
			"somebody else's change", &user.DefaultInfo{Name: "admin"}, "",
			func(_, n *corev1.Node) { n.Labels["x"], n.Spec.Unschedulable = "y", true }, true,
		},
		{
			"the agents' account of another namespace", &user.DefaultInfo{Name: "system:serviceaccount:other:nodetrust-agent"},
			"", func(_, n *corev1.Node) { n.Labels["x"] = "y" }, true,
		},

		{"another node", agentOn("node-2"), "", func(_, n *corev1.Node) { maps.Copy(n.Annotations, six) }, false},
		{
			"another node whose name begins alike", agentOn("node-10"), "",
			func(_, n *corev1.Node) { maps.Copy(n.Annotations, six) }, false,
		},
		{
			"a token without a node", &user.DefaultInfo{Name: account}, "",
			func(_, n *corev1.Node) { maps.Copy(n.Annotations, six) }, false,
		},
		{
			"a token with other claims only", &user.DefaultInfo{
				Name:  account,
				Extra: map[string][]string{"authentication.kubernetes.io/pod-name": {"p"}},
			}, "",
			func(_, n *corev1.Node) { maps.Copy(n.Annotations, six) }, false,
		},
		{
			"a token of two nodes", &user.DefaultInfo{Name: account, Extra: map[string][]string{claim: {"node-1", "node-2"}}},
			"", func(_, n *corev1.Node) { maps.Copy(n.Annotations, six) }, false,
		},
		{"subresource status", self, "status", func(_, n *corev1.Node) { maps.Copy(n.Annotations, six) }, false},
		{"unschedulable", self, "", func(_, n *corev1.Node) { n.Spec.Unschedulable = true }, false},
		{"a taint less", self, "", func(_, n *corev1.Node) { n.Spec.Taints = nil }, false},
		{
			"a taint more", self, "", func(_, n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "x"}) },
			false,
		},
		{"the pod network", self, "", func(_, n *corev1.Node) { n.Spec.PodCIDR = "10.1.0.0/24" }, false},
		{"the provider", self, "", func(_, n *corev1.Node) { n.Spec.ProviderID = "x" }, false},
		{"a condition", self, "", func(_, n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse }, false},
		{"capacity", self, "", func(_, n *corev1.Node) { n.Status.Capacity = corev1.ResourceList{"cpu": {}} }, false},
		{"a label more", self, "", func(_, n *corev1.Node) { n.Labels["node-role.kubernetes.io/control-plane"] = "" }, false},
		{"a label with our prefix", self, "", func(_, n *corev1.Node) { n.Labels["nodetrust.io/pool"] = "p" }, false},
		{"a label changed", self, "", func(_, n *corev1.Node) { n.Labels["kubernetes.io/hostname"] = "x" }, false},
		{"a label less", self, "", func(_, n *corev1.Node) { delete(n.Labels, "kubernetes.io/hostname") }, false},
		{"all labels gone", self, "", func(_, n *corev1.Node) { n.Labels = nil }, false},
		{"a finalizer less", self, "", func(_, n *corev1.Node) { n.Finalizers = nil }, false},
		{
			"a finalizer more", self, "", func(_, n *corev1.Node) { n.Finalizers = append(n.Finalizers, "example.com/stay") },
			false,
		},
		{"no owner", self, "", func(_, n *corev1.Node) { n.OwnerReferences = nil }, false},
		{"another owner", self, "", func(_, n *corev1.Node) { n.OwnerReferences[0].UID = "v" }, false},
		{"a foreign annotation changed", self, "", func(_, n *corev1.Node) { n.Annotations["other.example/a"] = "2" }, false},
		{"a foreign annotation less", self, "", func(_, n *corev1.Node) { delete(n.Annotations, "other.example/a") }, false},
		{"a foreign annotation more", self, "", func(_, n *corev1.Node) {
			n.Annotations["machineconfiguration.openshift.io/desiredConfig"] = "x"
		}, false},
		{
			"a seventh annotation of our prefix", self, "",
			func(_, n *corev1.Node) { n.Annotations["nodetrust.io/x"] = "x" }, false,
		},
		{"a key like ours", self, "", func(_, n *corev1.Node) { n.Annotations["nodetrust.io/statex"] = "x" }, false},
		{"all annotations gone", self, "", func(_, n *corev1.Node) { n.Annotations = nil }, false},
		{"a message of 257 characters", self, "", func(_,
			n *corev1.Node,
		) {
			n.Annotations["nodetrust.io/message"] = strings.Repeat("m", 257)
		}, false},
		{"a state of a megabyte", self, "", func(_,
			n *corev1.Node,
		) {
			n.Annotations["nodetrust.io/state"] = strings.Repeat("m", 250<<10)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, node := testNode(), testNode()
			c.change(old, node)
			allowed, why := admit(t, validator, c.who, c.sub, old, node)
			if allowed != c.allow {
				t.Errorf("allowed: %v (%s)", allowed, why)
			}
			if !allowed && why == "" {
				t.Error("denied without a reason")
			}
		})
	}
}

// admit is the API server's way through the policy.
func admit(t *testing.T, v validating.Validator, who user.Info, sub string, old, node *corev1.Node) (allowed bool,
	why string,
) {
	t.Helper()
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Node"}
	resource := schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	attr := admission.NewAttributesRecord(node, old, kind, "", node.Name, resource, sub, admission.Update,
		&metav1.UpdateOptions{}, false, who)
	res := v.Validate(t.Context(), resource, &admission.VersionedAttributes{
		Attributes: attr, VersionedKind: kind, VersionedObject: node, VersionedOldObject: old,
	}, nil, nil, budget, nil)
	for _, d := range res.Decisions {
		if d.Evaluation == validating.EvalError {
			t.Errorf("evaluating: %s", d.Message)
		}
		if d.Action == validating.ActionDeny {
			return false, d.Message
		}
	}
	return true, ""
}
