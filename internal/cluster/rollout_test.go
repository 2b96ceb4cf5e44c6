package cluster

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/cluster/rollout"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// TestRolloutSnapshots_real reads the MachineConfigs of a real cluster, the rendered one among them.
func TestRolloutSnapshots_real(t *testing.T) {
	real := os.Getenv("NODETRUST_REALDATA")
	if real == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	configs := realConfigs(t, filepath.Join(real, "machineconfigs", "4.16.0-single-node-mc.yaml.gz"))
	rendered, sources := "", []any{}
	for name, c := range configs {
		switch labels, _ := c["metadata"].(map[string]any)["labels"].(map[string]any); {
		case strings.HasPrefix(name, "rendered-master-"): // there are two, with the same policy
			rendered = max(rendered, name)
		case labels[desired.RoleLabel] == "master":
			sources = append(sources, map[string]any{"name": name})
		}
	}
	const base, ours = "01-master-container-runtime", "51-master-corp"
	b, err := json.Marshal(configs[base])
	if err != nil {
		t.Fatal(err)
	}
	state, err := desired.Extract(b, func(p string) bool { return p == trust.PolicyPath })
	if err != nil || len(state.Files) != 1 {
		t.Fatalf("%v, %+v", err, state)
	}
	other := state.Files.Sorted()
	other[0].Data = []byte(`{"default":[{"type":"reject"}]}`)
	configs[ours] = map[string]any{
		"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig",
		"metadata": map[string]any{"name": ours, "labels": map[string]any{desired.RoleLabel: "master"}},
		"spec": map[string]any{"config": map[string]any{
			"ignition": map[string]any{"version": "3.4.0"},
			"storage": map[string]any{"files": []any{
				map[string]any{
					"path": trust.PolicyPath, "mode": 420,
					"contents": map[string]any{"source": "data:;base64," + base64.StdEncoding.EncodeToString(other[0].Data)},
				},
			}},
		}},
	}
	pool := map[string]any{
		"metadata": map[string]any{"name": "master", "generation": 3},
		"spec": map[string]any{
			"machineConfigSelector": map[string]any{"matchLabels": map[string]any{desired.RoleLabel: "master"}},
			"nodeSelector":          map[string]any{"matchLabels": map[string]any{"node-role.kubernetes.io/master": ""}},
			"configuration":         map[string]any{"name": rendered, "source": sources},
		},
		"status": map[string]any{
			"observedGeneration": 3, "machineCount": 1, "updatedMachineCount": 1, "readyMachineCount": 1,
			"configuration": map[string]any{"name": rendered},
			"conditions":    []any{map[string]any{"type": "Updated", "status": "True"}},
		},
	}
	node := map[string]any{"metadata": map[string]any{
		"name": "sno", "labels": map[string]any{"node-role.kubernetes.io/master": "", "node-role.kubernetes.io/worker": ""},
		"annotations": map[string]any{
			mcoPrefix + "currentConfig": rendered, mcoPrefix + "desiredConfig": rendered, mcoPrefix + "state": "Done",
			stateKey: "Enforced", desiredKey: state.Files.Digest(),
		},
	}, "status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}}
	client := serve(t, func(path string) any {
		switch {
		case path == poolsPath:
			return map[string]any{"items": []any{pool}}
		case path == nodesPath:
			return map[string]any{"items": []any{node}}
		case configs[strings.TrimPrefix(path, configsPath)] != nil:
			return configs[strings.TrimPrefix(path, configsPath)]
		}
		return nil
	})
	for _, c := range []struct {
		name  string
		files trust.FileSet
		want  rollout.State
	}{
		{base, state.Files, rollout.RolledOut},
		{ours, other, rollout.Progressing}, // merged after the template's, before the empty one of the MCO
		{base, other, rollout.Unknown},     // the cluster has other bytes
	} {
		got, err := client.RolloutSnapshots(t.Context(),
			Rollouts{Wanted: []Wanted{{Pool: "master", Name: c.name, Files: c.files}}, Agents: AgentsElsewhere}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if v := rollout.Judge(got[0]); v.State != c.want {
			t.Errorf("%s: %s (%s): %s; want %s", c.name, v.State, v.Reason, v.Message, c.want)
		}
	}
}

func realConfigs(t *testing.T, file string) map[string]map[string]any {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]any{}
	for dec := yaml.NewDecoder(z); ; {
		var doc map[string]any
		err := dec.Decode(&doc)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		items, ok := doc["items"].([]any)
		if !ok {
			items = []any{doc}
		}
		for _, item := range items {
			o := item.(map[string]any)
			out[o["metadata"].(map[string]any)["name"].(string)] = o
		}
	}
}

// serve answers with objects, and with 404 where there is none.
func serve(t *testing.T, object func(path string) any) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := object(r.URL.Path)
		if o == nil {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(o)
	}))
	t.Cleanup(s.Close)
	return clientOf(t, s.URL)
}
