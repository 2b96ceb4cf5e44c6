package cluster

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// operator does to the objects of one pool, and to the files of its nodes, what the Machine Config Operator of
// OpenShift 4.15 and later does, one step at a time and in its order: render, sync (its controllers), begin and
// finish (its daemon on a node). No Machine Config Operator runs in the lab. It knows nothing of nodetrust: the merge
// is its own.
type operator struct {
	t    *testing.T
	c    *Cluster
	pool string
}

const (
	machineConfigs = "/apis/machineconfiguration.openshift.io/v1/machineconfigs"
	machinePools   = "/apis/machineconfiguration.openshift.io/v1/machineconfigpools"
	mcoAnnotation  = "machineconfiguration.openshift.io/"
)

// config is a MachineConfig as far as it matters here.
type config struct {
	Metadata struct {
		Name            string            `json:"name"`
		Labels          map[string]string `json:"labels"`
		OwnerReferences []struct {
			Kind string `json:"kind"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		Config struct {
			Storage struct {
				Files []json.RawMessage `json:"files"`
			} `json:"storage"`
		} `json:"config"`
	} `json:"spec"`
}

// poolObject is a MachineConfigPool as far as it matters here.
type poolObject struct {
	Metadata struct {
		UID        string `json:"uid"`
		Generation int64  `json:"generation"`
	} `json:"metadata"`
	Spec struct {
		Paused        bool            `json:"paused"`
		Configuration json.RawMessage `json:"configuration"`
	} `json:"spec"`
	Status struct {
		Configuration json.RawMessage `json:"configuration"`
	} `json:"status"`
}

func (p poolObject) rendered() string { return nameOf(p.Spec.Configuration) }

func nameOf(raw json.RawMessage) string {
	var v struct{ Name string }
	_ = json.Unmarshal(raw, &v)
	return v.Name
}

func (o *operator) get() poolObject {
	o.t.Helper()
	var p poolObject
	must(o.t, o.c.Get(machinePools+"/"+o.pool, &p))
	return p
}

// patch changes the pool; sub is "" or "/status".
func (o *operator) patch(sub string, v any) {
	o.t.Helper()
	b, err := json.Marshal(v)
	must(o.t, err)
	must(o.t, o.c.Do(http.MethodPatch, machinePools+"/"+o.pool+sub, "application/merge-patch+json", b, nil))
}

// generate is the controller of image policies and the Image config: it updates its MachineConfig as a whole.
func (o *operator) generate(object []byte) {
	o.t.Helper()
	_, err := o.c.kubectl(object, "replace", "-f", "-")
	must(o.t, err)
}

// render is the render controller: it merges what the pool selects, makes the rendered MachineConfig, and points the
// pool's spec to it. That raises the pool's generation.
func (o *operator) render() string {
	o.t.Helper()
	var list struct {
		Items []config `json:"items"`
	}
	must(o.t, o.c.Get(machineConfigs, &list))
	var sources []config
	for _, c := range list.Items {
		rendered := len(c.Metadata.OwnerReferences) > 0 && c.Metadata.OwnerReferences[0].Kind == "MachineConfigPool"
		if !rendered && c.Metadata.Labels["machineconfiguration.openshift.io/role"] == o.pool {
			sources = append(sources, c)
		}
	}
	slices.SortFunc(sources, func(a, b config) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	files, order := map[string]json.RawMessage{}, []string{}
	var references []any
	for _, c := range sources {
		references = append(references, map[string]any{
			"apiVersion": "machineconfiguration.openshift.io/v1",
			"kind":       "MachineConfig", "name": c.Metadata.Name,
		})
		for _, f := range c.Spec.Config.Storage.Files {
			p := pathOf(o.t, f)
			if files[p] == nil {
				order = append(order, p)
			}
			files[p] = f
		}
	}
	var merged []json.RawMessage
	for _, p := range order {
		merged = append(merged, files[p])
	}
	spec, err := json.Marshal(map[string]any{"config": map[string]any{
		"ignition": map[string]any{"version": "3.4.0"},
		"storage":  map[string]any{"files": merged},
	}})
	must(o.t, err)
	name := fmt.Sprintf("rendered-%s-%x", o.pool, md5.Sum(spec))
	object, err := json.Marshal(map[string]any{
		"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig", "spec": json.RawMessage(spec),
		"metadata": map[string]any{"name": name, "ownerReferences": []any{map[string]any{
			"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfigPool", "name": o.pool,
			"uid": o.get().Metadata.UID, "controller": true,
		}}},
	})
	must(o.t, err)
	must(o.t, o.c.Apply(object))
	o.patch("", map[string]any{"spec": map[string]any{"configuration": map[string]any{
		"name":   name,
		"source": references,
	}}})
	return name
}

func pathOf(t *testing.T, file json.RawMessage) string {
	t.Helper()
	var at struct{ Path string }
	must(t, json.Unmarshal(file, &at))
	return at.Path
}

func (o *operator) annotations(n *Node) map[string]string {
	o.t.Helper()
	object, err := n.Object()
	must(o.t, err)
	return object.Metadata.Annotations
}

// annotate sets annotations of the operator on a Node.
func (o *operator) annotate(n *Node, values map[string]string) {
	o.t.Helper()
	args := []string{"annotate", "--overwrite", "node", n.Name}
	for k, v := range values {
		args = append(args, mcoAnnotation+k+"="+v)
	}
	_, err := o.c.Kubectl(args...)
	must(o.t, err)
}

// sync is the node controller: unless the pool is paused it gives one node, if all others are available, the pool's
// rendered MachineConfig as desired; then it writes down what the nodes say. Of a degraded node the pool is degraded.
func (o *operator) sync() {
	o.t.Helper()
	p := o.get()
	rendered := p.rendered()
	var updated, unavailable, degraded int
	var why []string
	var candidate *Node
	for _, n := range o.c.Nodes {
		a := o.annotations(n)
		switch {
		case a[mcoAnnotation+"state"] == "Degraded":
			degraded, unavailable = degraded+1, unavailable+1
			why = append(why, fmt.Sprintf("Node %s is reporting: %q", n.Name, a[mcoAnnotation+"reason"]))
		case a[mcoAnnotation+"currentConfig"] != a[mcoAnnotation+"desiredConfig"] || a[mcoAnnotation+"state"] != "Done":
			unavailable++
		case a[mcoAnnotation+"currentConfig"] == rendered:
			updated++
		case candidate == nil:
			candidate = n
		}
	}
	if candidate != nil && !p.Spec.Paused && unavailable == 0 {
		o.annotate(candidate, map[string]string{"desiredConfig": rendered})
		unavailable++
	}
	all := len(o.c.Nodes)
	condition := func(kind string, is bool, message string) map[string]any {
		status := "False"
		if is {
			status = "True"
		}
		return map[string]any{
			"type": kind, "status": status, "reason": "", "message": message,
			"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
		}
	}
	done := updated == all && unavailable == 0
	status := map[string]any{
		"observedGeneration": p.Metadata.Generation, "machineCount": all, "updatedMachineCount": updated,
		"readyMachineCount":       updated,
		"unavailableMachineCount": unavailable, "degradedMachineCount": degraded,
		"conditions": []any{
			condition("RenderDegraded", false, ""), condition("NodeDegraded", degraded > 0, strings.Join(why, ", ")),
			condition("Degraded", degraded > 0, ""),
			condition("Updated", done, "All nodes are updated with "+rendered),
			condition("Updating", !done && !p.Spec.Paused, "All nodes are updating to "+rendered),
		},
	}
	if done {
		status["configuration"] = p.Spec.Configuration
	}
	o.patch("/status", map[string]any{"status": status})
}

// renderFails is the render controller with a MachineConfig that it can't merge: only a condition changes.
func (o *operator) renderFails(message string) {
	o.t.Helper()
	o.patch("/status", map[string]any{"status": map[string]any{"conditions": []any{
		map[string]any{
			"type": "RenderDegraded", "status": "True", "reason": "", "message": message,
			"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
		},
		map[string]any{
			"type": "Degraded", "status": "True", "reason": "", "message": "",
			"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
		},
		map[string]any{
			"type": "Updated", "status": "True", "reason": "", "message": "",
			"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
		},
	}}})
}

// begin is the daemon at the start of its work on a node.
func (o *operator) begin(n *Node) {
	o.t.Helper()
	o.annotate(n, map[string]string{"state": "Working"})
}

// finish writes the desired files to the node, removes those of the config before that are not among them, and says so.
func (o *operator) finish(n *Node) {
	o.t.Helper()
	a := o.annotations(n)
	desired := a[mcoAnnotation+"desiredConfig"]
	var object json.RawMessage
	must(o.t, o.c.Get(machineConfigs+"/"+desired, &object))
	var c, before config
	must(o.t, json.Unmarshal(object, &c))
	if err := o.c.Get(machineConfigs+"/"+a[mcoAnnotation+"currentConfig"], &before); err != nil && !Is404(err) {
		o.t.Fatal(err)
	}
	gone := map[string]bool{}
	for _, raw := range before.Spec.Config.Storage.Files {
		gone[pathOf(o.t, raw)] = true
	}
	for _, raw := range c.Spec.Config.Storage.Files {
		var f struct {
			Path     string
			Mode     os.FileMode
			Contents struct{ Source, Compression string }
		}
		must(o.t, json.Unmarshal(raw, &f))
		delete(gone, f.Path)
		to := n.Path(f.Path)
		must(o.t, os.MkdirAll(filepath.Dir(to), 0o755))
		must(o.t, os.WriteFile(to+".mco", decode(o.t, f.Contents.Source, f.Contents.Compression), f.Mode))
		must(o.t, os.Rename(to+".mco", to))
	}
	for p := range gone {
		must(o.t, os.Remove(n.Path(p)))
	}
	must(o.t, os.MkdirAll(n.Path("etc/machine-config-daemon"), 0o755))
	must(o.t, os.WriteFile(n.Path("etc/machine-config-daemon/currentconfig"), object, 0o644))
	o.annotate(n, map[string]string{"currentConfig": desired, "state": "Done", "reason": ""})
}

// boot is a node that has joined the pool: it has the pool's rendered MachineConfig.
func (o *operator) boot(n *Node) {
	o.t.Helper()
	o.annotate(n, map[string]string{"desiredConfig": o.get().rendered(), "currentConfig": "none", "state": "Working"})
	o.finish(n)
}

// decode is the content of a data URL.
func decode(t *testing.T, source, compression string) []byte {
	t.Helper()
	rest, ok := strings.CutPrefix(source, "data:")
	if !ok {
		t.Fatalf("%s is no data URL", source)
	}
	kind, data, _ := strings.Cut(rest, ",")
	text, err := url.PathUnescape(data)
	must(t, err)
	b := []byte(text)
	if strings.HasSuffix(kind, ";base64") {
		b = unbase64(t, text)
	}
	if compression == "gzip" {
		b = gunzip(t, b)
	}
	return b
}
