package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster/rollout"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

const (
	machineConfigs = "/apis/machineconfiguration.openshift.io/v1/machineconfigs/"
	machinePools   = "/apis/machineconfiguration.openshift.io/v1/machineconfigpools"
	clusterVersion = "/apis/config.openshift.io/v1/clusterversions/version"
)

// mcoServer answers with objects of the shapes that OpenShift 4.18 has. Nodes and pods it answers as apiServer does.
type mcoServer struct {
	*apiServer
	mu      sync.Mutex
	objects map[string]any
	asked   []string
	pool    map[string]any
}

func (s *mcoServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/v1/") {
		s.apiServer.ServeHTTP(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	o, ok := s.objects[r.URL.Path]
	if !ok {
		o = map[string]any{"kind": "Status", "reason": "NotFound", "code": 404, "message": "not found"}
		w.WriteHeader(http.StatusNotFound)
	}
	if text, ok := o.(string); ok {
		_, _ = w.Write([]byte(text))
		return
	}
	_ = json.NewEncoder(w).Encode(o)
}

func machineConfig(name, role string, content map[string]any, annotations map[string]any) map[string]any {
	return map[string]any{
		"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig",
		"metadata": map[string]any{
			"name": name, "labels": map[string]any{"machineconfiguration.openshift.io/role": role},
			"annotations": annotations,
		},
		"spec": map[string]any{"config": content},
	}
}

func policyOnly(data string) map[string]any {
	return map[string]any{"ignition": map[string]any{"version": "3.4.0"}, "storage": map[string]any{"files": []any{
		map[string]any{
			"path": "/etc/containers/policy.json", "mode": 420,
			"contents": map[string]any{"source": "data:," + data},
		},
	}}}
}

// merged is the MCO's merge of files by path.
func mergedFiles(contents ...map[string]any) map[string]any {
	byPath := map[string]any{}
	for _, c := range contents {
		for _, f := range c["storage"].(map[string]any)["files"].([]any) {
			byPath[f.(map[string]any)["path"].(string)] = f
		}
	}
	var files []any
	for _, f := range byPath {
		files = append(files, f)
	}
	return map[string]any{"ignition": map[string]any{"version": "3.4.0"}, "storage": map[string]any{"files": files}}
}

// rolloutLab is a cluster on which a MachineConfig of ours is rolled out on n1 and n2, and its files.
type rolloutLab struct {
	*mcoServer
	trust, desired string
	ours           map[string]any // spec.config
	digest         string
}

// corpKey is one public key for all of these tests: what is signed doesn't matter to them.
var corpKey = sync.OnceValues(func() ([]byte, error) {
	g, err := fixture.NewGPG()
	if err != nil {
		return nil, err
	}
	defer g.Close()
	key, err := g.NewKey("corp", fixture.KeyOptions{})
	if err != nil {
		return nil, err
	}
	return key.Armored, nil
})

func newRolloutLab(t *testing.T) *rolloutLab {
	t.Helper()
	dir := t.TempDir()
	key, err := corpKey()
	if err != nil {
		t.Fatal(err)
	}
	l := &rolloutLab{trust: filepath.Join(dir, "trust.yaml"), desired: filepath.Join(dir, "mc.yaml")}
	config := `{apiVersion: nodetrust.io/v1alpha1, kind: TrustConfig, metadata: {name: corp}, spec: {pools: [worker], default: accept,
  keys: [{name: corp, file: corp.asc}], registries: [{scope: quay.io/corp, require: [{signedBy: [corp]}], lookaside: "https://sigs.example/quay"}]}}`
	for name, data := range map[string][]byte{l.trust: []byte(config), filepath.Join(dir, "corp.asc"): key} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"render", "--to", "machineconfig", l.trust}, strings.NewReader(""), &out,
		&errs); code != 0 {
		t.Fatal(errs.String())
	}
	if err := os.WriteFile(l.desired, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	var mc map[string]any
	if err := yaml.Unmarshal(out.Bytes(), &mc); err != nil {
		t.Fatal(err)
	}
	l.ours = mc["spec"].(map[string]any)["config"].(map[string]any)
	l.digest = mc["metadata"].(map[string]any)["annotations"].(map[string]any)["nodetrust.io/digest"].(string)

	base := policyOnly("base")
	l.mcoServer = &mcoServer{apiServer: &apiServer{forbidden: map[string]bool{}}}
	l.Server = httptest.NewServer(l.mcoServer)
	t.Cleanup(l.Close)
	l.pool = map[string]any{
		"metadata": map[string]any{"name": "worker", "generation": 7},
		"spec": map[string]any{
			"paused": false,
			"machineConfigSelector": map[string]any{"matchLabels": map[string]any{
				"machineconfiguration.openshift.io/role": "worker",
			}},
			"nodeSelector": map[string]any{"matchLabels": map[string]any{"node-role.kubernetes.io/worker": ""}},
			"configuration": map[string]any{
				"name":   "rendered-worker-new",
				"source": sources("01-worker-container-runtime", "51-worker-corp"),
			},
		},
		"status": map[string]any{
			"observedGeneration": 7, "machineCount": 2, "updatedMachineCount": 2, "readyMachineCount": 2,
			"unavailableMachineCount": 0, "degradedMachineCount": 0,
			"configuration": map[string]any{"name": "rendered-worker-new"},
			"conditions": []any{
				map[string]any{"type": "Updated", "status": "True"},
				map[string]any{"type": "Degraded", "status": "False"},
			},
		},
	}
	master := map[string]any{"metadata": map[string]any{"name": "master", "generation": 2}, "spec": map[string]any{
		"nodeSelector":  map[string]any{"matchLabels": map[string]any{"node-role.kubernetes.io/master": ""}},
		"configuration": map[string]any{"name": "rendered-master-1", "source": sources("00-master")},
	}}
	template := machineConfig("01-worker-container-runtime", "worker", base, nil)
	template["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{"kind": "ControllerConfig"}}
	l.objects = map[string]any{
		machinePools: map[string]any{"kind": "MachineConfigPoolList", "items": []any{master, l.pool}},
		machineConfigs + "01-worker-container-runtime": template,
		machineConfigs + "00-master":                   machineConfig("00-master", "master", policyOnly("base"), nil),
		machineConfigs + "51-worker-corp":              mc,
		machineConfigs + "rendered-worker-new": machineConfig("rendered-worker-new", "",
			mergedFiles(base, l.ours), nil),
		machineConfigs + "rendered-worker-old": machineConfig("rendered-worker-old", "", base, nil),
		clusterVersion: map[string]any{
			"apiVersion": "config.openshift.io/v1",
			"kind":       "ClusterVersion", "metadata": map[string]any{"name": "version"},
			"status": map[string]any{"desired": map[string]any{"version": "4.18.9"}},
		},
	}
	now := time.Now()
	control := reportedNode("m1", "Ready", "", now) // both roles: the MCO counts it to master
	control["metadata"].(map[string]any)["labels"].(map[string]string)["node-role.kubernetes.io/master"] = ""
	l.nodes = []map[string]any{control}
	for _, name := range []string{"n1", "n2"} {
		n := reportedNode(name, "Ready", "Enforced", now)
		a := n["metadata"].(map[string]any)["annotations"].(map[string]string)
		a["nodetrust.io/desired"], a["nodetrust.io/observed"] = l.digest, l.digest
		l.nodes = append(l.nodes, n)
		l.daemon(name, "Done", "rendered-worker-new")
		l.pods = append(l.pods, agentPod(name, "worker", "1/1", now))
	}
	return l
}

func sources(names ...string) (out []any) {
	for _, n := range names {
		out = append(out, map[string]any{"name": n})
	}
	return out
}

func (l *rolloutLab) annotate(name string, annotations map[string]string) {
	for _, n := range l.nodes {
		if n["Name"] == name {
			for k, v := range annotations {
				n["metadata"].(map[string]any)["annotations"].(map[string]string)[k] = v
			}
		}
	}
}

func (l *rolloutLab) daemon(name, state, config string) {
	const prefix = "machineconfiguration.openshift.io/"
	l.annotate(name, map[string]string{
		prefix + "state": state, prefix + "currentConfig": config,
		prefix + "desiredConfig": config,
	})
}

func (l *rolloutLab) set(section string, fields map[string]any) {
	for k, v := range fields {
		l.pool[section].(map[string]any)[k] = v
	}
}

// justApplied is what the API server has right after oc apply: Updated=True of what was before.
func (l *rolloutLab) justApplied() {
	l.set("spec", map[string]any{"configuration": map[string]any{
		"name":   "rendered-worker-old",
		"source": sources("01-worker-container-runtime"),
	}})
	l.set("status", map[string]any{"configuration": map[string]any{"name": "rendered-worker-old"}})
	l.daemon("n1", "Done", "rendered-worker-old")
	l.daemon("n2", "Done", "rendered-worker-old")
}

// shadow adds the MCO's own policy.json, and rolls it out in place of ours.
func (l *rolloutLab) shadow(data string) {
	const name = "99-worker-generated-registries"
	theirs := policyOnly(data)
	l.objects[machineConfigs+name] = machineConfig(name, "worker", theirs, nil)
	l.objects[machineConfigs+"rendered-worker-new"] = machineConfig("rendered-worker-new", "",
		mergedFiles(policyOnly("base"), l.ours, theirs), nil)
	l.set("spec", map[string]any{"configuration": map[string]any{
		"name":   "rendered-worker-new",
		"source": sources("01-worker-container-runtime", "51-worker-corp", name),
	}})
}

func (l *rolloutLab) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"rollout", "status", "--kubeconfig", l.kubeconfig(t)}, args...),
		strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// TestRolloutStatus drives the objects of a cluster through every state.
func TestRolloutStatus(t *testing.T) {
	lab := func(change func(*rolloutLab)) func(*rolloutLab) { return change }
	for _, c := range []struct {
		name   string
		change func(*rolloutLab)
		state  rollout.State
		code   int
		text   string
	}{
		{
			"rolled out", lab(func(*rolloutLab) {}), rollout.RolledOut, 0,
			"pool worker: RolledOut: 51-worker-corp is on 2 of 2 nodes, and enforced\n",
		},
		{
			"just applied", (*rolloutLab).justApplied, rollout.Progressing, 4,
			"pool worker: Progressing: the rendered MachineConfig",
		},
		{
			"generation behind", func(l *rolloutLab) { l.set("status", map[string]any{"observedGeneration": 6}) },
			rollout.Progressing, 4, "pool worker: Progressing: ",
		},
		{
			"one node working", func(l *rolloutLab) { l.daemon("n2", "Working", "rendered-worker-old") }, rollout.Progressing, 4,
			"\n  n2: Working at rendered-worker-old; agent: Enforced (R)\n",
		},
		{"paused", func(l *rolloutLab) {
			l.set("spec", map[string]any{"paused": true})
			l.daemon("n2", "Done", "rendered-worker-old")
		}, rollout.Paused, 4, "pool worker: Paused: the pool is paused: 1 of 2 nodes"},
		{
			"shadowed", func(l *rolloutLab) { l.shadow("theirs") }, rollout.Shadowed, 3,
			"pool worker: Shadowed by 99-worker-generated-registries: /etc/containers/policy.json of 51-worker-corp never reaches a node",
		},
		{"degraded", func(l *rolloutLab) {
			l.set("status", map[string]any{"conditions": []any{map[string]any{
				"type": "Degraded", "status": "True",
				"message": "disk\nfull",
			}}})
		}, rollout.Degraded, 3, "pool worker: Degraded: Degraded: disk full\n"},
		{
			"not enforced", func(l *rolloutLab) { l.annotate("n2", map[string]string{"nodetrust.io/state": "NotEnforced"}) },
			rollout.NotEnforced, 3, "pool worker: NotEnforced on n2: n2: NotEnforced (R)\n",
		},
		{
			"agent gone", func(l *rolloutLab) { l.pods = l.pods[:1] }, rollout.Unknown, 4,
			"pool worker: Unknown: n2: no agent runs on the node",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newRolloutLab(t)
			c.change(l)
			for _, from := range [][]string{{"--config", l.trust}, {"--desired", l.desired}} {
				out, errs, code := l.run(t, append(from, "-o", "json")...)
				var got rollout.Report
				if err := json.Unmarshal([]byte(out), &got); err != nil {
					t.Fatalf("%v: %s%s", err, out, errs)
				}
				if len(got.Pools) != 1 || got.Pools[0].State != c.state || code != c.code || got.Pools[0].Digest != l.digest {
					t.Errorf("%v: exit status %d: %s; want %s, %d", from, code, out, c.state, c.code)
				}
			}
			if out, errs, code := l.run(t, "--config", l.trust); code != c.code || !strings.Contains(out, c.text) {
				t.Errorf("exit status %d, %s%s; want %d, %s", code, out, errs, c.code, c.text)
			}
			for _, asked := range l.asked {
				if !strings.HasPrefix(asked, "GET ") || asked == "GET "+strings.TrimSuffix(machineConfigs, "/") {
					t.Errorf("%s: only reads, and MachineConfigs by name", asked)
				}
			}
		})
	}
}

// TestRolloutStatus_found: without being told what to look for, it is what the pools' sources have.
func TestRolloutStatus_found(t *testing.T) {
	l := newRolloutLab(t)
	if out, errs, code := l.run(t); code != 0 || !strings.HasPrefix(out, "pool worker: RolledOut: ") ||
		strings.Count(out, "\n") != 1 {
		t.Errorf("exit status %d, %s%s", code, out, errs)
	}
	if out, _, code := l.run(t, "--pool", "master"); code != 4 ||
		!strings.HasPrefix(out, "pool master: Unknown: no MachineConfig of nodetrust") {
		t.Errorf("a pool without: exit status %d, %s", code, out)
	}
	l.justApplied()
	if out, _, code := l.run(t); code != 4 || !strings.HasPrefix(out, "no pool has a MachineConfig of nodetrust") {
		t.Errorf("nothing found: exit status %d, %s", code, out)
	}
}

// TestRolloutStatus_sameBytes: another MachineConfig with our bytes that is merged later shadows nothing.
func TestRolloutStatus_sameBytes(t *testing.T) {
	l := newRolloutLab(t)
	const twin = "52-worker-twin"
	l.objects[machineConfigs+twin] = machineConfig(twin, "worker", l.ours, nil)
	l.justApplied()
	l.set("spec", map[string]any{"configuration": map[string]any{
		"name":   "rendered-worker-old",
		"source": sources("51-worker-corp", twin),
	}})
	if out, _, code := l.run(t, "--config", l.trust, "-o", "json"); code != 4 ||
		!strings.Contains(out, `"reason": "NotRendered"`) {
		t.Errorf("exit status %d, %s", code, out)
	}
}

// TestRolloutStatus_customPool: a custom pool takes the MachineConfigs of role worker too, and its nodes are its own.
func TestRolloutStatus_customPool(t *testing.T) {
	l := newRolloutLab(t)
	const infra = "machineconfiguration.openshift.io/role"
	pool := map[string]any{
		"metadata": map[string]any{"name": "infra", "generation": 1},
		"spec": map[string]any{
			"machineConfigSelector": map[string]any{"matchExpressions": []any{map[string]any{
				"key": infra, "operator": "In",
				"values": []any{"worker", "infra"},
			}}},
			"nodeSelector": map[string]any{"matchLabels": map[string]any{"node-role.kubernetes.io/infra": ""}},
			"configuration": map[string]any{
				"name":   "rendered-infra",
				"source": sources("01-worker-container-runtime", "51-worker-corp", "50-infra-theirs"),
			},
		},
		"status": l.pool["status"],
	}
	list := l.objects[machinePools].(map[string]any)
	list["items"] = append(list["items"].([]any), pool)
	theirs := policyOnly("theirs")
	l.objects[machineConfigs+"50-infra-theirs"] = machineConfig("50-infra-theirs", "infra", theirs, nil)
	l.objects[machineConfigs+"rendered-infra"] = machineConfig("rendered-infra", "", mergedFiles(l.ours, theirs), nil)
	n := reportedNode("i1", "Ready", "Shadowed", time.Now())
	n["metadata"].(map[string]any)["labels"].(map[string]string)["node-role.kubernetes.io/infra"] = ""
	l.nodes = append(l.nodes, n)

	out, errs, code := l.run(t)
	if code != 3 || !strings.Contains(out, "pool worker: RolledOut: 51-worker-corp is on 2 of 2 nodes") ||
		!strings.Contains(out, "pool infra: Shadowed by 50-infra-theirs: ") {
		t.Errorf("exit status %d, %s%s", code, out, errs)
	}
	if out, errs, code := l.run(t, "--desired", l.desired, "--pool", "infra"); code != 3 ||
		!strings.HasPrefix(out, "pool infra: Shadowed by 50-infra-theirs: ") {
		t.Errorf("exit status %d, %s%s", code, out, errs)
	}

	// Up to 4.14 a name decides; without the version nobody knows.
	delete(l.objects, clusterVersion)
	if out, errs, code := l.run(t, "--pool", "infra", "-o", "json"); code != 4 ||
		!strings.Contains(out, `"reason": "OwnerUnknown"`) {
		t.Errorf("without a version: exit status %d, %s%s", code, out, errs)
	}

	// Of two that are ours the later one is meant.
	mine := policyOnly("mine")
	l.objects[machineConfigs+"52-infra-mine"] = machineConfig("52-infra-mine", "infra", mine,
		map[string]any{"nodetrust.io/digest": "sha256:0"})
	pool["spec"].(map[string]any)["configuration"] = map[string]any{
		"name":   "rendered-infra",
		"source": sources("51-worker-corp", "52-infra-mine"),
	}
	if out, errs, code := l.run(t, "--pool", "infra", "-o", "json"); code != 4 ||
		!strings.Contains(out, `"machineConfig": "52-infra-mine"`) || !strings.Contains(out, "one of them was edited") {
		t.Errorf("two of ours: exit status %d, %s%s", code, out, errs)
	}
}

// TestRolloutStatus_ambiguous: of two that are ours it depends on the version of OpenShift which one is meant.
func TestRolloutStatus_ambiguous(t *testing.T) {
	l := newRolloutLab(t)
	delete(l.objects, clusterVersion)
	list := l.objects[machinePools].(map[string]any)
	list["items"] = append(list["items"].([]any), map[string]any{
		"metadata": map[string]any{"name": "infra", "generation": 1},
		"spec": map[string]any{
			"machineConfigSelector": map[string]any{"matchExpressions": []any{
				map[string]any{
					"key": "machineconfiguration.openshift.io/role", "operator": "In",
					"values": []any{"worker", "infra"},
				},
			}},
			"nodeSelector": map[string]any{"matchLabels": map[string]any{"node-role.kubernetes.io/infra": ""}},
			"configuration": map[string]any{
				"name":   "rendered-infra",
				"source": sources("50-infra-mine", "51-worker-corp"),
			},
		},
	})
	l.objects[machineConfigs+"50-infra-mine"] = machineConfig("50-infra-mine", "infra", policyOnly("mine"),
		map[string]any{"nodetrust.io/digest": "sha256:0"})
	if out, errs, code := l.run(t); code != 4 || !strings.Contains(out, "pool worker: RolledOut: ") ||
		!strings.Contains(out, "pool infra: Unknown: the pool has several MachineConfigs of nodetrust") {
		t.Errorf("exit status %d, %s%s", code, out, errs)
	}
	if out, errs, code := l.run(t, "--pool", "infra", "-o", "json"); code != 4 ||
		!strings.Contains(out, `"reason": "OwnerUnknown"`) {
		t.Errorf("exit status %d, %s%s", code, out, errs)
	}
}

// TestRolloutStatus_outdated: what --merge kept of the MCO's is no longer what the MCO has.
func TestRolloutStatus_outdated(t *testing.T) {
	l := newRolloutLab(t)
	l.objects[machineConfigs+"01-worker-container-runtime"].(map[string]any)["spec"].(map[string]any)["config"] = policyOnly(`%7B%22default%22%3A%5B%7B%22type%22%3A%22insecureAcceptAnything%22%7D%5D%7D`)
	digest := func(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }
	meta := l.objects[machineConfigs+"51-worker-corp"].(map[string]any)["metadata"].(map[string]any)
	annotations := meta["annotations"].(map[string]any)
	annotations["nodetrust.io/config"], annotations["nodetrust.io/merged-from"] = "corp", "01-worker-container-runtime"
	annotations["nodetrust.io/merged"] = digest(`{"default":[{"type":"insecureAcceptAnything"}]}`)
	if out, errs, code := l.run(t, "--config", l.trust); code != 0 || strings.Contains(out, "outdated") {
		t.Errorf("as it was merged: exit status %d, %s%s", code, out, errs)
	}
	annotations["nodetrust.io/merged"] = digest("other")
	const says = "01-worker-container-runtime has another /etc/containers/policy.json than the one that was merged"
	if out, errs, code := l.run(t, "--config", l.trust); code != 3 || !strings.HasPrefix(out, "pool worker: Outdated: ") ||
		!strings.Contains(out, says) {
		t.Errorf("exit status %d, %s%s", code, out, errs)
	}
	// It is said before, too, and takes no other state's place.
	l.daemon("n2", "Working", "rendered-worker-old")
	if out, errs, code := l.run(t, "--config", l.trust); code != 4 ||
		!strings.HasPrefix(out, "pool worker: Progressing: ") || !strings.Contains(out, "\n  outdated: "+says+"\n") {
		t.Errorf("exit status %d, %s%s", code, out, errs)
	}
	if out, _, _ := l.run(t, "--config", l.trust, "-o", "json"); !strings.Contains(out, `"outdated": [`) {
		t.Errorf("got %s", out)
	}
}

func TestRolloutStatus_other(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*rolloutLab)
		args   []string
		code   int
		says   string
	}{
		{
			"not applied", func(l *rolloutLab) { delete(l.objects, machineConfigs+"51-worker-corp") }, nil, 4,
			`"reason": "NotApplied"`,
		},
		{
			"not applied, merged perhaps", func(l *rolloutLab) { delete(l.objects, machineConfigs+"51-worker-corp") }, nil, 4,
			"hint: a MachineConfig that render --merge made has another name",
		},
		{"another one applied", func(l *rolloutLab) {
			l.objects[machineConfigs+"51-worker-corp"] = machineConfig("51-worker-corp", "worker", policyOnly("other"), nil)
		}, nil, 4, `"reason": "OtherBytes"`},
		{"wrong role", func(l *rolloutLab) {
			l.justApplied()
			l.objects[machineConfigs+"51-worker-corp"].(map[string]any)["metadata"].(map[string]any)["labels"] = map[string]any{
				"machineconfiguration.openshift.io/role": "worke",
			}
		}, nil, 4, `"reason": "NotSelected"`},
		{"undecodable", func(l *rolloutLab) {
			l.objects[machineConfigs+"rendered-worker-new"] = `{"kind":"MachineConfig","apiVersion":"machineconfiguration.openshift.io/v1","spec":{"config":{"ignition":{"version":"2.2.0"}}}}`
		}, nil, 4, `"reason": "Unreadable"`},
		{"too large", func(l *rolloutLab) {
			l.objects[machineConfigs+"rendered-worker-new"] = strings.Repeat(" ", 4<<20+1)
		}, nil, 1, "larger than 4194304 bytes"},
		{"no MCO", func(l *rolloutLab) { delete(l.objects, machinePools) }, nil, 1, "no MachineConfigPools"},
		{
			"no such pool", func(*rolloutLab) {},
			[]string{"--desired", "", "--config", "", "--pool", "infra"},
			1,
			"no such MachineConfigPool: infra",
		},
		{"both", func(*rolloutLab) {}, []string{"--desired", "x"}, 2, "exclude each other"},
		{
			"readers of nothing", func(*rolloutLab) {},
			[]string{"--config", "", "--reader", "rhel9"},
			2,
			"--reader goes with --config",
		},
		{"argument", func(*rolloutLab) {}, []string{"worker"}, 2, `given "worker", want: nodetrust rollout status `},
		{"pool that is not rendered", func(*rolloutLab) {}, []string{"--pool", "infra"}, 2, "is not in spec.pools"},
		{"agents nowhere", func(*rolloutLab) {}, []string{"--agents", "nowhere"}, 2, "must be pods or elsewhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newRolloutLab(t)
			c.change(l)
			out, errs, code := l.run(t, append([]string{"--config", l.trust, "-o", "json"}, c.args...)...)
			if code != c.code || !strings.Contains(out+errs, c.says) {
				t.Errorf("exit status %d, %s%s; want %d, %s", code, out, errs, c.code, c.says)
			}
		})
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"rollout", "undo"}, strings.NewReader(""), &out, &errs); code != 2 {
		t.Errorf("rollout undo: exit status %d, %s", code, errs.String())
	}
}

func report(s rollout.State) rollout.Report {
	return rollout.Report{Pools: []rollout.Verdict{{Pool: "worker", State: s, Message: "because"}}}
}

// TestRolloutWait drives a wait through time: what it reads at each poll, and how and when it ends.
func TestRolloutWait(t *testing.T) {
	const p, bad = rollout.Progressing, rollout.Shadowed
	for _, c := range []struct {
		name  string
		reads []rollout.State // the last one stays; "" is an error
		stop  time.Duration   // interrupt, if not 0
		code  int
		after time.Duration
	}{
		{"at once", []rollout.State{rollout.RolledOut}, 0, 0, 0},
		{"progress", []rollout.State{p, p, rollout.RolledOut}, 0, 0, 10 * time.Second},
		{"shadowed", []rollout.State{p, bad}, 0, 3, 20 * time.Second},
		{"bad for a moment", []rollout.State{bad, bad, p, bad, rollout.RolledOut}, 0, 0, 20 * time.Second},
		{"never", []rollout.State{p}, 0, 4, time.Minute},
		{"paused", []rollout.State{rollout.Paused}, 0, 4, time.Minute},
		{"interrupted", []rollout.State{p}, 7 * time.Second, 4, 7 * time.Second},
		{"the API server away for a while", []rollout.State{p, "", "", rollout.RolledOut}, 0, 0, 15 * time.Second},
		{"never there", []rollout.State{""}, 0, 1, 0},
		{"interrupted while it is bad", []rollout.State{bad}, 7 * time.Second, 3, 7 * time.Second},
	} {
		for _, tty := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, terminal %v", c.name, tty), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					if c.stop > 0 {
						time.AfterFunc(c.stop, cancel)
					}
					var out, errs bytes.Buffer
					zero := func() int { return 0 }
					w := &rolloutWait{out: "text", stderr: &errs, screen: &cli.Screen{W: &out, TTY: tty, Width: zero, Height: zero}}
					n := 0
					w.read = func(context.Context) (rollout.Report, error) {
						s := c.reads[min(n, len(c.reads)-1)]
						n++
						if s == "" {
							return rollout.Report{}, errors.New("connection refused")
						}
						return report(s), nil
					}
					start := time.Now()
					code := cli.ExitOf(w.wait(ctx))
					if code != c.code || time.Since(start) != c.after {
						t.Errorf("exit status %d after %s, want %d after %s; %s", code, time.Since(start), c.code, c.after, out.String())
					}
					last := c.reads[len(c.reads)-1]
					if last != "" && strings.Count(out.String(), string(last)) == 0 {
						t.Errorf("the last state is not shown: %q", out.String())
					}
					if !tty && strings.Count(out.String(), "\n") > 1 {
						t.Errorf("more than the result: %q", out.String())
					}
					if hidden, shown := strings.Count(out.String(), "\x1b[?25l"),
						strings.Count(out.String(), "\x1b[?25h"); hidden != shown {
						t.Errorf("the cursor stays hidden: %q", out.String())
					}
				})
			})
		}
	}
}
