package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/cluster/mco"
)

// openshiftAPI answers as the API server of a cluster does: lists in pages.
type openshiftAPI struct {
	// objects are by path of their list. status is the answer for a path, if it is another one than the list.
	objects map[string][]map[string]any
	status  map[string]int
	// expire ends that many lists with 410 after their first page.
	expire int
	asked  []string
	limits map[string]bool
}

func (s *openshiftAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	s.limits[query.Get("limit")] = true
	from, _ := strconv.Atoi(query.Get("continue"))
	code := s.status[r.URL.Path]
	items, ok := s.objects[r.URL.Path]
	switch {
	case !ok && code == 0:
		code = http.StatusNotFound
	case from > 0 && s.expire > 0:
		s.expire--
		code = http.StatusGone
	}
	if code != 0 {
		w.WriteHeader(code)
		reason := map[int]string{
			http.StatusNotFound: "NotFound", http.StatusForbidden: "Forbidden",
			http.StatusGone: "Expired",
		}[code]
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "reason": reason, "code": code, "message": reason})
		return
	}
	limit, _ := strconv.Atoi(query.Get("limit"))
	meta := map[string]any{}
	to := min(len(items), from+limit)
	if to < len(items) {
		meta["continue"] = strconv.Itoa(to)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "List", "metadata": meta, "items": items[from:to]})
}

const (
	mcPath  = "/apis/machineconfiguration.openshift.io/v1/machineconfigs"
	cipPath = "/apis/config.openshift.io/v1/clusterimagepolicies"
)

// anOpenShift is a cluster with 45 MachineConfigs and all that matters.
func anOpenShift() *openshiftAPI {
	s := &openshiftAPI{objects: map[string][]map[string]any{}, status: map[string]int{}, limits: map[string]bool{}}
	for i := range 45 {
		s.objects[mcPath] = append(s.objects[mcPath], map[string]any{
			"metadata": map[string]any{
				"name":   fmt.Sprintf("%02d-worker", i),
				"labels": map[string]any{"machineconfiguration.openshift.io/role": "worker"},
			},
			"spec": map[string]any{"config": map[string]any{"ignition": map[string]any{"version": "3.4.0"}}},
		})
	}
	s.objects[poolsPath] = []map[string]any{{"metadata": map[string]any{"name": "worker"}, "spec": map[string]any{}}}
	s.objects["/apis/config.openshift.io/v1/clusterversions"] = []map[string]any{
		{
			"metadata": map[string]any{"name": "version"},
			"status":   map[string]any{"desired": map[string]any{"version": "4.20.3"}},
		},
	}
	s.objects["/apis/config.openshift.io/v1/images"] = []map[string]any{{
		"metadata": map[string]any{"name": "cluster"},
		"spec":     map[string]any{"registrySources": map[string]any{"blockedRegistries": []any{"bad.io"}}},
	}}
	s.objects[cipPath] = []map[string]any{{"metadata": map[string]any{"name": "openshift"}}}
	s.objects["/apis/config.openshift.io/v1/imagepolicies"] = []map[string]any{{"metadata": map[string]any{
		"name":      "a",
		"namespace": "ns",
	}}}
	return s
}

func (s *openshiftAPI) client(t *testing.T) *Client {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return clientOf(t, server.URL)
}

// clientOf is a client of the API server at a URL.
func clientOf(t *testing.T, url string) *Client {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}", url)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Kubeconfig: kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDump(t *testing.T) {
	whole := func(d *mco.Dump) bool {
		return len(d.Configs) == 45 && len(d.Pools) == 1 && d.Minor == 20 && d.Restricted && len(d.ClusterPolicies) == 1 &&
			len(d.Namespaces) == 1
	}
	for _, tt := range []struct {
		name   string
		change func(*openshiftAPI)
		ok     func(*mco.Dump) bool
		unread string
		err    string
	}{
		{"all", func(*openshiftAPI) {}, whole, "", ""},
		{"a list that expires", func(s *openshiftAPI) { s.expire = 2 }, whole, "", ""},
		{
			"a list that always expires", func(s *openshiftAPI) { s.expire = 100 }, nil, "",
			"listing objects of kind MachineConfig: Expired",
		},
		{"an old version", func(s *openshiftAPI) {
			s.objects["/apis/config.openshift.io/v1alpha1/clusterimagepolicies"] = s.objects[cipPath]
			delete(s.objects, cipPath)
		}, whole, "", ""},
		{
			"no image policies", func(s *openshiftAPI) { delete(s.objects, cipPath) },
			func(d *mco.Dump) bool { return len(d.ClusterPolicies) == 0 }, "", "",
		},
		{
			"image policies that may not be read", func(s *openshiftAPI) { s.status[cipPath] = http.StatusForbidden },
			func(d *mco.Dump) bool { return len(d.ClusterPolicies) == 0 }, "ClusterImagePolicy", "",
		},
		{
			"MachineConfigs that may not be read", func(s *openshiftAPI) { s.status[mcPath] = http.StatusForbidden }, nil, "",
			"Forbidden",
		},
		{
			"a broken server", func(s *openshiftAPI) { s.status[cipPath] = http.StatusInternalServerError }, nil, "",
			"listing objects of kind ClusterImagePolicy",
		},
		{"no MCO", func(s *openshiftAPI) { delete(s.objects, mcPath) }, nil, "", ErrNoPools.Error()},
		{"nothing", func(s *openshiftAPI) { s.objects[mcPath] = nil }, nil, "", ErrNoPools.Error()},
		{
			"two of one name", func(s *openshiftAPI) { s.objects[mcPath] = append(s.objects[mcPath], s.objects[mcPath][0]) },
			nil, "", "two of this name",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := anOpenShift()
			tt.change(s)
			d, unread, err := s.client(t).Dump(t.Context())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !tt.ok(d) || strings.Join(unread, " ") != tt.unread {
				t.Errorf("got %d MachineConfigs, %+v, %v", len(d.Configs), d.Pools, unread)
			}
			for _, asked := range s.asked {
				if !strings.HasPrefix(asked, "GET ") {
					t.Errorf("%s: it only reads", asked)
				}
			}
			if len(s.limits) != 1 || !s.limits["20"] {
				t.Errorf("lists with the limits %v", s.limits)
			}
		})
	}
}
