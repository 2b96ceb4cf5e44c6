package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// serving returns a client of a server that answers with h.
func serving(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	config := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u"}]}`, s.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Kubeconfig: config})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestPods(t *testing.T) {
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	meta := func(name string, more ...any) map[string]any {
		m := map[string]any{"name": name, "namespace": "ns", "creationTimestamp": made.Format(time.RFC3339)}
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	owner := func(kind, name string) []any {
		return []any{
			map[string]any{"kind": "Other", "name": "other"},
			map[string]any{"kind": kind, "name": name, "controller": true},
		}
	}
	container := func(name, image string) map[string]any { return map[string]any{"name": name, "image": image} }
	status := func(name, id string) map[string]any { return map[string]any{"name": name, "imageID": id} }
	due := strconv.FormatInt(made.Unix()/60-3, 10)
	pods := []any{
		map[string]any{"metadata": meta("bare"), "spec": map[string]any{
			"nodeName":   "n1",
			"containers": []any{container("c", "quay.io/corp/app:v1")},
		}},
		map[string]any{
			"metadata": meta("web-5d4-x", "labels", map[string]any{"pod-template-hash": "5d4"}, "ownerReferences",
				owner("ReplicaSet", "web-5d4")),
			"spec": map[string]any{
				"initContainers":      []any{container("i", "q.io/init")},
				"containers":          []any{container("a", "q.io:5000/a:1"), container("b", "short")},
				"ephemeralContainers": []any{container("e", "q.io/e@"+someDigest)},
				"volumes": []any{
					map[string]any{"name": "x", "emptyDir": map[string]any{}},
					map[string]any{"name": "v", "image": map[string]any{"reference": "q.io/v:1"}},
				},
			},
			"status": map[string]any{
				"initContainerStatuses": []any{status("i", "sha256:"+strings.Repeat("0", 64))},
				"containerStatuses": []any{
					status("b", "docker.io/library/short@"+someDigest),
					status("a", "q.io:5000/a@"+someDigest),
				},
				"ephemeralContainerStatuses": []any{status("e", "other.io/e@"+someDigest)},
			},
		},
		map[string]any{"metadata": meta("rs-x", "ownerReferences", owner("ReplicaSet", "rs"))},
		map[string]any{"metadata": meta("c-x", "ownerReferences", owner("Job", "nightly-"+due))},
		map[string]any{"metadata": meta("j-x", "ownerReferences", owner("Job", "restore-20260301"))},
		map[string]any{"metadata": meta("etcd-n1", "annotations", map[string]any{"kubernetes.io/config.mirror": "x"},
			"ownerReferences", owner("Node", "n1")), "spec": map[string]any{"nodeName": "n1"}},
		map[string]any{"metadata": meta("agent", "labels", map[string]any{"app.kubernetes.io/name": "nodetrust-agent"},
			"ownerReferences", owner("DaemonSet", "agent"))},
	}
	var asked []string
	c := serving(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
		page := map[string]any{
			"kind": "PodList", "items": pods[from:min(from+3, len(pods))],
			"metadata": map[string]any{"resourceVersion": "1"},
		}
		if from+3 < len(pods) {
			page["metadata"] = map[string]any{"continue": strconv.Itoa(from + 3)}
		}
		_ = json.NewEncoder(w).Encode(page)
	})
	got := map[string]Pod{}
	if err := c.Pods(t.Context(), func(p Pod) error { got[p.Name] = p; return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"limit=500", "continue=3&limit=500", "continue=6&limit=500"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	for name, want := range map[string]string{
		"bare": "Pod/bare", "web-5d4-x": "Deployment/web", "rs-x": "ReplicaSet/rs", "c-x": "CronJob/nightly",
		"j-x":     "Job/restore-20260301",
		"etcd-n1": "static-pod/etcd", "agent": "DaemonSet/agent",
	} {
		if p := got[name]; p.Kind+"/"+p.Owner != want || p.Namespace != "ns" {
			t.Errorf("%s: %+v, want %s", name, p, want)
		}
	}
	if !got["etcd-n1"].Static || got["bare"].Static || !got["agent"].Agent || got["bare"].Agent ||
		got["bare"].Node != "n1" {
		t.Errorf("%+v", got)
	}
	want := []PodImage{
		{"q.io/init", ""},
		{"q.io:5000/a:1", someDigest},
		{"short", someDigest},
		{"q.io/e@" + someDigest, ""},
		{"q.io/v:1", ""},
	}
	if images := got["web-5d4-x"].Images; !slices.Equal(images, want) {
		t.Errorf("got  %v\nwant %v", images, want)
	}
}

// TestPods_expired: a list that expires goes on with the token of the refusal, or begins again; it doesn't go on for
// ever.
func TestPods_expired(t *testing.T) {
	expired := func(w http.ResponseWriter, token string) {
		w.WriteHeader(http.StatusGone)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"kind": "Status", "reason": "Expired", "code": 410,
			"metadata": map[string]any{"continue": token},
		})
	}
	page := func(w http.ResponseWriter, name, token string) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"items":    []any{map[string]any{"metadata": map[string]any{"name": name}}},
			"metadata": map[string]any{"continue": token},
		})
	}
	for _, test := range []struct {
		name string
		h    func(w http.ResponseWriter, token string, n int)
		want []string
		err  string
	}{
		{"goes on", func(w http.ResponseWriter, token string, _ int) {
			switch token {
			case "":
				page(w, "a", "old")
			case "old":
				expired(w, "new")
			case "new":
				page(w, "b", "")
			}
		}, []string{"a", "b"}, ""},
		{"begins again", func(w http.ResponseWriter, token string, n int) {
			switch {
			case token == "":
				page(w, "a", "old")
			case n < 4:
				expired(w, "")
			default:
				page(w, "b", "")
			}
		}, []string{"a", "a", "b"}, ""},
		{"always expired", func(w http.ResponseWriter, _ string, _ int) { expired(w, "again") }, nil, "listing pods"},
		{"same page", func(w http.ResponseWriter, _ string, _ int) { page(w, "a", "x") }, []string{"a", "a"}, "same page"},
		{"refused later", func(w http.ResponseWriter, token string, _ int) {
			if token != "" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			page(w, "a", "x")
		}, []string{"a"}, "listing pods"},
		{"no list", func(w http.ResponseWriter, _ string, _ int) { fmt.Fprint(w, `{"items":{}}`) }, nil, "no list"},
		{"null", func(w http.ResponseWriter, _ string, _ int) { fmt.Fprint(w, `{"items":null}`) }, nil, ""},
		{
			"cut off", func(w http.ResponseWriter, _ string, _ int) { fmt.Fprint(w, `{"items":[{"metadata":{}},`) }, nil,
			"reading",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := 0
			c := serving(t, func(w http.ResponseWriter, r *http.Request) {
				n++
				test.h(w, r.URL.Query().Get("continue"), n)
			})
			var got []string
			err := c.Pods(t.Context(), func(p Pod) error { got = append(got, p.Name); return nil })
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

func TestPods_yieldEnds(t *testing.T) {
	c := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"items":[{},{}],"metadata":{"continue":"x"}}`)
	})
	stop := errors.New("enough")
	n := 0
	if err := c.Pods(t.Context(), func(Pod) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestCachedImages(t *testing.T) {
	c := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"items":[{"metadata":{"name":"n1"},"status":{"images":[{"names":["q.io/a@`+someDigest+
			`","q.io/a:1","<none>:<none>"]},{"names":["q.io/b@`+someDigest+`"]}]}}]}`)
	})
	var got []PodImage
	err := c.CachedImages(t.Context(), func(i CachedImage) error {
		if i.Node != "n1" {
			t.Errorf("node %q", i.Node)
		}
		got = append(got, References(i.Names)...)
		return nil
	})
	if want := []PodImage{{"q.io/a:1", someDigest}, {"q.io/b@" + someDigest, someDigest}}; err != nil ||
		!slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}
