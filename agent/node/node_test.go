package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	return node.Report{
		State: state, Reason: "R", Message: "m", Desired: "sha256:d", Observed: "sha256:o",
		CheckedAt: time.Now(),
	}
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
		if len(patch.Metadata) != 1 || len(keys) != 6 ||
			slices.ContainsFunc(keys, func(k string) bool { return !strings.HasPrefix(k, "nodetrust.io/") }) {
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
		// Each after 2½ to 5 minutes, the first ones sooner.
		if tried["patch"] < 285 || tried["patch"] > 585 {
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

// TestKubeconfigIsRenewed: the token in a kubeconfig was replaced, and the server doesn't take the old one any more.
func TestKubeconfigIsRenewed(t *testing.T) {
	patched := make(chan string, 10)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if req.Header.Get("Authorization") != "Bearer new" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401}`)
			return
		}
		if req.Method == http.MethodPatch {
			patched <- req.URL.Path
		}
		fmt.Fprint(w, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"node1"}}`)
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	write := func(token string) {
		text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q,"insecure-skip-tls-verify":true}}],`+
			`"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{"token":%q}}]}`,
			server.URL, token)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	c, err := node.Client(file)
	if err != nil {
		t.Fatal(err)
	}
	write("new")
	ctx, cancel := context.WithCancel(t.Context())
	r := node.New(c, name, 0, slog.New(slog.DiscardHandler))
	r.RenewFrom(file)
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r.Report(report("Enforced"))
	select {
	case p := <-patched:
		if p != "/api/v1/nodes/node1" {
			t.Errorf("patched %s", p)
		}
	case <-time.After(time.Minute):
		t.Error("nothing was written with the new token")
	}
}

// TestNoSuchNode: a Node that is not there is asked for seldom; once it is made again it has the newest report.
func TestNoSuchNode(t *testing.T) {
	c := client(t, nil)
	gone := true
	c.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return gone, nil, apierrors.NewNotFound(nodes.GroupResource(), name)
	})
	run(t, c, func(r *node.Reporter) {
		for range 10 {
			r.Report(report(time.Now().String()))
			time.Sleep(time.Minute)
		}
		if is, ok := <-r.MCO(); is || ok {
			t.Error("somebody knows of a node that does not exist")
		}
		if got := verbs(c); got["patch"] != 2 {
			t.Errorf("in ten minutes %v", got)
		}
		gone = false
		r.Report(report("Blocked"))
		time.Sleep(6 * time.Minute)
		if got := annotations(t, c)[node.StateKey]; got != "Blocked" {
			t.Errorf("state %q on the new node", got)
		}
	})
}

// TestStray404: something between the agent and the API server has answered, once.
func TestStray404(t *testing.T) {
	c := client(t, map[string]string{"machineconfiguration.openshift.io/currentConfig": "rendered-1"})
	stray := map[string]bool{"get": true, "patch": true}
	c.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		is := stray[a.GetVerb()]
		stray[a.GetVerb()] = false
		return is, nil, apierrors.NewGenericServerResponse(http.StatusNotFound, a.GetVerb(), nodes.GroupResource(), name,
			"<html>", 0, true)
	})
	run(t, c, func(r *node.Reporter) {
		r.Report(report("NotEnforced"))
		time.Sleep(2 * time.Minute)
		if is := <-r.MCO(); !is {
			t.Error("who owns the node was taken from a stray answer")
		}
		if got := annotations(t, c)[node.StateKey]; got != "NotEnforced" {
			t.Errorf("state %q", got)
		}
	})
}

// TestClear removes our annotations and no others, however often the server is away.
func TestClear(t *testing.T) {
	c := client(t, map[string]string{"other.io/key": "kept", node.StateKey: "Enforced", node.MessageKey: "m"})
	away := 3
	c.PrependReactor("patch", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		away--
		return away >= 0, nil, apierrors.NewServiceUnavailable("away")
	})
	run(t, c, func(r *node.Reporter) {
		if err := r.Clear(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if got := annotations(t, c); len(got) != 1 || got["other.io/key"] != "kept" {
		t.Errorf("annotations %v", got)
	}
	none := client(t, nil)
	none.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(nodes.GroupResource(), name)
	})
	run(t, none, func(r *node.Reporter) {
		if err := r.Clear(context.Background()); err != nil {
			t.Errorf("a node that is gone: %v", err)
		}
	})
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

// TestClientDoesNotRetry: how often and when a request is tried again is the Reporter's business alone.
func TestClientDoesNotRetry(t *testing.T) {
	for _, code := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			var asked atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				w.Header().Set("Retry-After", "0")
				http.Error(w, "try again", code)
			}))
			defer server.Close()
			kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
			config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],
"clusters":[{"name":"c","cluster":{"server":%q}}]}`, server.URL)
			if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := node.Client(kubeconfig)
			if err != nil {
				t.Fatal(err)
			}
			r := node.New(c, name, 0, slog.New(slog.DiscardHandler))
			r.Report(report("Enforced"))
			err = r.Flush(t.Context())
			if err == nil || !strings.Contains(err.Error(), strconv.Itoa(code)) {
				t.Errorf("error %v, want one that names %d", err, code)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("%d requests for one write", n)
			}
		})
	}
}

// fleet is many Reporters of one server, which counts what they ask of it.
type fleet struct {
	*fake.FakeMetadataClient
	mu      sync.Mutex
	seconds map[int64]int        // requests by second of the bubble's clock
	states  map[string]string    // written last, by node
	at      map[string]time.Time // when
	fail    func() error         // what the server says, nil for yes
	all     map[string]*node.Reporter
}

func newFleet(ctx context.Context, t *testing.T, n int, spread time.Duration) (f *fleet, wait func()) {
	t.Helper()
	f = &fleet{
		FakeMetadataClient: client(t, nil), fail: func() error { return nil },
		seconds: map[int64]int{}, states: map[string]string{}, at: map[string]time.Time{}, all: map[string]*node.Reporter{},
	}
	f.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		p, ok := a.(clienttesting.PatchAction)
		if !ok {
			return true, &metav1.PartialObjectMetadata{}, nil
		}
		f.seconds[time.Now().Unix()]++
		if err := f.fail(); err != nil {
			return true, nil, err
		}
		var patch struct {
			Metadata struct{ Annotations map[string]string }
		}
		if err := json.Unmarshal(p.GetPatch(), &patch); err != nil {
			return true, nil, err
		}
		f.states[p.GetName()], f.at[p.GetName()] = patch.Metadata.Annotations[node.StateKey]+" "+
			patch.Metadata.Annotations[node.DesiredKey], time.Now()
		return true, &metav1.PartialObjectMetadata{}, nil
	})
	var running sync.WaitGroup
	for i := range n {
		name := fmt.Sprintf("node%d", i)
		r := node.New(f, name, spread, slog.New(slog.DiscardHandler))
		f.all[name] = r
		running.Go(func() { r.Run(ctx) })
	}
	return f, running.Wait
}

// report makes every agent report the same.
func (f *fleet) report(state, reason, desired string) {
	for _, r := range f.all {
		r.Report(node.Report{State: state, Reason: reason, Desired: desired, CheckedAt: time.Now()})
	}
}

// busiest is the largest number of requests in one second, since the last call.
func (f *fleet) busiest() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	most := 0
	for _, n := range f.seconds {
		most = max(most, n)
	}
	clear(f.seconds)
	return most
}

// told reports how many nodes say what was reported last, and when the last of them was written.
func (f *fleet) told(want string) (n int, last time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, state := range f.states {
		if state == want {
			n++
			if f.at[name].After(last) {
				last = f.at[name]
			}
		}
	}
	return n, last
}

// TestCommonCause: what all agents want to write at the same moment is written over the spread, and nothing is lost.
func TestCommonCause(t *testing.T) {
	const agents, atMost = 1000, 100
	const spread = 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f, wait := newFleet(ctx, t, agents, spread)
		began := time.Now()
		check := func(what, want string, within time.Duration) {
			t.Helper()
			if n, last := f.told(want); n != agents || last.Sub(began) > within {
				t.Errorf("%s: %d of %d nodes say %q, the last after %s, want all within %s", what, n, agents, want,
					last.Sub(began), within)
			}
			if n := f.busiest(); n > atMost {
				t.Errorf("%s: %d requests in one second, want at most %d", what, n, atMost)
			}
			began = time.Now()
		}
		f.report("Enforced", "", "a")
		time.Sleep(time.Minute)
		check("start", "Enforced a", 2*time.Second+spread)

		f.report("Unknown", "ProbePending", "b")
		time.Sleep(5 * time.Second)
		f.report("Enforced", "", "b") // some have told that it is pending
		time.Sleep(time.Minute)
		check("another desired state", "Enforced b", 2*(2*time.Second+spread))

		for _, err := range []error{errors.New("connection refused"), apierrors.NewTooManyRequests("slow down", 30)} {
			f.mu.Lock()
			f.fail = func() error { return err }
			f.mu.Unlock()
			desired := err.Error()
			f.report("Enforced", "", desired)
			time.Sleep(time.Minute)
			if n := f.busiest(); n > atMost {
				t.Errorf("%v: %d tries in one second, want at most %d", err, n, atMost)
			}
			f.mu.Lock()
			f.fail = func() error { return nil }
			f.mu.Unlock()
			began = time.Now()
			time.Sleep(3 * time.Minute)
			check("after "+desired, "Enforced "+desired, 90*time.Second)
		}
		cancel()
		wait()
	})
}

// TestOwnCause: what happens to one node is told at once.
func TestOwnCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f, wait := newFleet(ctx, t, 1, time.Hour)
		f.report("Enforced", "", "a")
		time.Sleep(2 * time.Hour)
		for _, state := range []string{"NotEnforced", "Enforced", "Unknown"} {
			f.report(state, "R", "a")
			time.Sleep(3 * time.Second)
			if n, _ := f.told(state + " a"); n != 1 {
				t.Errorf("%s is not told after 3s", state)
			}
		}
		cancel()
		wait()
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
			"go.podman.io/", "github.com/containers/image", "google.golang.org/grpc", "k8s.io/client-go/kubernetes",
			"k8s.io/api/", "k8s.io/cri-api",
			"github.com/coreos/butane", "k8s.io/client-go/informers", "github.com/proglottis/gpgme",
		} {
			if strings.HasPrefix(dep, bad) {
				t.Errorf("the agent links %s", dep)
			}
		}
	}
}
