package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/nodetrust/nodetrust/agent/node"
)

const name = "node1"

var nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

func client(t *testing.T, annotations map[string]string) *fake.FakeMetadataClient {
	t.Helper()
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewSimpleMetadataClient(scheme, &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
	})
}

// run runs a Reporter in a bubble of its own time.
func run(t *testing.T, c *fake.FakeMetadataClient, do func(r *node.Reporter)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := node.New(c, name, 10*time.Second, slog.New(slog.DiscardHandler))
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		do(r)
		cancel()
		<-done
	})
}

func verbs(c *fake.FakeMetadataClient) map[string]int {
	out := map[string]int{}
	for _, a := range c.Actions() {
		out[a.GetVerb()]++
	}
	return out
}

func annotations(t *testing.T, c *fake.FakeMetadataClient) map[string]string {
	t.Helper()
	n, err := c.Resource(nodes).Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.GetAnnotations()
}

func report(state string) node.Report {
	return node.Report{State: state, Reason: "R", Message: "m", Desired: "sha256:d", Observed: "sha256:o", CheckedAt: time.Now()}
}

func TestAnnotations(t *testing.T) {
	c := client(t, map[string]string{"other.io/key": "kept"})
	run(t, c, func(r *node.Reporter) {
		r.Report(report("Drifted"))
		time.Sleep(15 * time.Second)
	})
	got := annotations(t, c)
	checked := got[node.CheckedAtKey]
	delete(got, node.CheckedAtKey)
	want := map[string]string{
		"other.io/key": "kept", "nodetrust.io/state": "Drifted", "nodetrust.io/reason": "R", "nodetrust.io/message": "m",
		"nodetrust.io/desired": "sha256:d", "nodetrust.io/observed": "sha256:o",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if _, err := time.Parse(time.RFC3339, checked); err != nil {
		t.Error(err)
	}
	for _, a := range c.Actions() {
		p, ok := a.(clienttesting.PatchAction)
		if !ok {
			continue
		}
		var patch struct{ Metadata map[string]map[string]string }
		if err := json.Unmarshal(p.GetPatch(), &patch); err != nil || p.GetPatchType() != types.MergePatchType {
			t.Fatalf("%s: %v", p.GetPatchType(), err)
		}
		keys := slices.Sorted(maps.Keys(patch.Metadata["annotations"]))
		if len(patch.Metadata) != 1 || len(keys) != 6 || slices.ContainsFunc(keys, func(k string) bool { return !strings.HasPrefix(k, "nodetrust.io/") }) {
			t.Errorf("patch %s", p.GetPatch())
		}
	}
}

func TestWritesOnChangeOnly(t *testing.T) {
	c := client(t, nil)
	run(t, c, func(r *node.Reporter) {
		for range 100 {
			r.Report(report("Enforced"))
			time.Sleep(time.Minute)
		}
		if got := verbs(c); got["patch"] != 1 || got["get"] != 1 || len(got) != 2 {
			t.Errorf("%v for one state", got)
		}
		r.Report(report("Drifted"))
		time.Sleep(time.Minute)
		if got := verbs(c); got["patch"] != 2 {
			t.Errorf("%v for two states", got)
		}
	})
}

// A drift that is healed at once is told all the same; a file set that is applied at once is one write.
func TestHealedDrift(t *testing.T) {
	for _, tt := range []struct {
		name, between string
		want          []string
	}{
		{"drift", "Drifted", []string{"Enforced", "Drifted", "Enforced"}},
		{"probe", "Unknown", []string{"Enforced"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, nil)
			run(t, c, func(r *node.Reporter) {
				r.Report(report("Enforced"))
				time.Sleep(time.Minute)
				r.Report(report("Enforced"))
				time.Sleep(time.Second)
				r.Report(report(tt.between)) // while the Reporter pauses
				r.Report(report("Enforced"))
				time.Sleep(time.Minute)
			})
			var got []string
			for _, a := range c.Actions() {
				if p, ok := a.(clienttesting.PatchAction); ok {
					var patch struct {
						Metadata struct{ Annotations map[string]string }
					}
					if err := json.Unmarshal(p.GetPatch(), &patch); err != nil {
						t.Fatal(err)
					}
					got = append(got, patch.Metadata.Annotations[node.StateKey])
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("states written: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCoalesces(t *testing.T) {
	c := client(t, nil)
	run(t, c, func(r *node.Reporter) {
		time.Sleep(time.Minute)
		for range 10 {
			r.Report(report("Drifted"))
			time.Sleep(100 * time.Millisecond)
			r.Report(report("Enforced"))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
	})
	if got := verbs(c); got["patch"] != 1 {
		t.Errorf("%v", got)
	}
	if got := annotations(t, c); got[node.StateKey] != "Enforced" {
		t.Errorf("state is %s", got[node.StateKey])
	}
}

func TestServerAway(t *testing.T) {
	c := client(t, map[string]string{"machineconfiguration.openshift.io/currentConfig": "rendered-worker-1"})
	var away atomic.Bool
	away.Store(true)
	c.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		if away.Load() {
			return true, nil, errors.New("connection refused")
		}
		return false, nil, nil
	})
	run(t, c, func(r *node.Reporter) {
		for range 24 * 60 {
			r.Report(report("Unknown")) // never blocks
			time.Sleep(time.Minute)
		}
		tried := verbs(c)
		if tried["patch"] < 200 || tried["patch"] > 400 {
			t.Errorf("%d tries in a day", tried["patch"])
		}
		r.Report(report("Enforced"))
		away.Store(false)
		time.Sleep(10 * time.Minute)
		if is := <-r.MCO(); !is {
			t.Error("the MCO was not found")
		}
		if got := verbs(c)["patch"]; got != tried["patch"]+1 {
			t.Errorf("%d writes after it came back", got-tried["patch"])
		}
	})
	if got := annotations(t, c); got[node.StateKey] != "Enforced" {
		t.Errorf("the newest report was not written: %v", got)
	}
}

func TestNoSuchNode(t *testing.T) {
	c := client(t, nil)
	c.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(nodes.GroupResource(), name)
	})
	run(t, c, func(r *node.Reporter) {
		for range 10 {
			r.Report(report(time.Now().String()))
			time.Sleep(time.Minute)
		}
		if is, ok := <-r.MCO(); is || ok {
			t.Error("somebody knows of a node that does not exist")
		}
	})
	if got := verbs(c); got["patch"] != 1 {
		t.Errorf("%v", got)
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	c := client(t, nil)
	c.PrependReactor("patch", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewTooManyRequests("slow down", 120)
	})
	run(t, c, func(r *node.Reporter) {
		r.Report(report("Enforced"))
		time.Sleep(100 * time.Second)
		if got := verbs(c); got["patch"] != 1 {
			t.Errorf("%v", got)
		}
	})
}

// TestLinks keeps the agent small: what it must not link it does not.
func TestLinks(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/nodetrust/nodetrust/cmd/nodetrust-agent").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for _, bad := range []string{
			"go.podman.io/", "github.com/containers/image", "google.golang.org/grpc", "k8s.io/client-go/kubernetes", "k8s.io/api/", "k8s.io/cri-api",
			"github.com/coreos/butane", "k8s.io/client-go/informers", "github.com/proglottis/gpgme",
		} {
			if strings.HasPrefix(dep, bad) {
				t.Errorf("the agent links %s", dep)
			}
		}
	}
}
