package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
)

// apiServer answers lists of nodes and pods as kube-apiserver does with tables. e2e/ asks a real one.
type apiServer struct {
	*httptest.Server
	mu        sync.Mutex
	nodes     []map[string]any // metadata and the cells Status and Container-Runtime
	pods      []map[string]any
	forbidden map[string]bool
	requests  []string
	events    chan map[string]any // what a watch of nodes gets
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{forbidden: map[string]bool{}, events: make(chan map[string]any)}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) kubeconfig(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}],
users: [{name: u, user: {token: t}}], contexts: [{name: c, context: {cluster: c, user: u}}]}`, s.URL)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

var nodeColumns = []string{"Name", "Status", "Container-Runtime"}

const perPage = 2 // so that three nodes need two requests

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	objects, columns := s.nodes, nodeColumns
	if strings.HasSuffix(r.URL.Path, "/pods") {
		objects, columns = s.pods, []string{"Name", "Ready", "Status", "Node"}
	}
	forbidden := s.forbidden[r.URL.Path]
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	if forbidden {
		w.WriteHeader(http.StatusForbidden)
		_ = enc.Encode(map[string]any{"kind": "Status", "reason": "Forbidden", "code": 403, "message": "no right to list"})
		return
	}
	if r.URL.Query().Get("watch") != "" {
		s.watch(w, r)
		return
	}
	from := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &from)
	to, next := min(from+perPage, len(objects)), ""
	if to < len(objects) {
		next = fmt.Sprint(to)
	}
	_ = enc.Encode(asTable(columns, objects[from:to], next))
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	w.(http.Flusher).Flush()
	events := s.events
	if strings.HasSuffix(r.URL.Path, "/pods") {
		events = nil
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case n := <-events:
			_ = json.NewEncoder(w).Encode(map[string]any{
				"type":   "MODIFIED",
				"object": asTable(nodeColumns, []map[string]any{n}, ""),
			})
			w.(http.Flusher).Flush()
		}
	}
}

func asTable(columns []string, objects []map[string]any, next string) map[string]any {
	var defs, rows []any
	for _, c := range columns {
		defs = append(defs, map[string]any{"name": c})
	}
	for _, o := range objects {
		cells := []any{}
		for _, c := range columns {
			cells = append(cells, o[c])
		}
		rows = append(rows, map[string]any{
			"cells":  cells,
			"object": map[string]any{"kind": "PartialObjectMetadata", "metadata": o["metadata"]},
		})
	}
	return map[string]any{
		"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": map[string]any{"resourceVersion": "1", "continue": next},
		"columnDefinitions": defs, "rows": rows,
	}
}

// reportedNode makes a node whose agent reported at a time.
func reportedNode(name, ready, state string, at time.Time) map[string]any {
	annotations := map[string]string{}
	if state != "" {
		annotations = map[string]string{
			"nodetrust.io/state": state, "nodetrust.io/reason": "R", "nodetrust.io/message": "because",
			"nodetrust.io/desired":    "sha256:" + strings.Repeat("ab", 32),
			"nodetrust.io/observed":   "sha256:" + strings.Repeat("cd", 32),
			"nodetrust.io/checked-at": at.UTC().Format(time.RFC3339),
		}
	}
	return map[string]any{"Name": name, "Status": ready, "metadata": map[string]any{
		"name": name, "resourceVersion": "2", "annotations": annotations,
		"labels": map[string]string{"node-role.kubernetes.io/worker": ""},
	}}
}

func agentPod(onNode, pool, ready string, since time.Time) map[string]any {
	return map[string]any{
		"Name": "agent-" + onNode, "Ready": ready, "Status": "Running", "Node": onNode,
		"metadata": map[string]any{
			"name": "agent-" + onNode, "creationTimestamp": since.UTC().Format(time.RFC3339),
			"labels": map[string]string{"nodetrust.io/pool": pool},
		},
	}
}

func runStatusOn(t *testing.T, s *apiServer, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"status", "--kubeconfig", s.kubeconfig(t)}, args...), strings.NewReader(""),
		&out, &errs)
	return out.String(), errs.String(), code
}

// TestStatus tells what one node beside two enforced ones comes to.
func TestStatus(t *testing.T) {
	now := time.Now()
	old := now.Add(-30 * 24 * time.Hour)
	for _, c := range []struct {
		name       string
		node       map[string]any
		pod        map[string]any
		args       []string
		code       int
		state, why string
		stale      bool
	}{
		{
			name: "enforced", node: reportedNode("n3", "Ready", "Enforced", now), pod: agentPod("n3", "worker", "1/1", old),
			state: "Enforced", why: "R",
		},
		{
			name: "an old report of a live agent", node: reportedNode("n3", "Ready", "Enforced", old.Add(time.Hour)),
			pod: agentPod("n3", "worker", "1/1", old), state: "Enforced", why: "R",
		},
		{
			name: "cordoned", node: reportedNode("n3", "Ready,SchedulingDisabled", "Enforced", now),
			pod: agentPod("n3", "worker", "1/1", old), state: "Enforced", why: "R",
		},
		{
			name: "drifted", node: reportedNode("n3", "Ready", "Drifted", now), pod: agentPod("n3", "worker", "1/1", old),
			code: 3, state: "Drifted", why: "R",
		},
		{
			name: "not enforced, and the agent is gone", node: reportedNode("n3", "Ready", "NotEnforced", now), code: 3,
			state: "NotEnforced", why: "R", stale: true,
		},
		{
			name: "unknown", node: reportedNode("n3", "Ready", "Unknown", now), pod: agentPod("n3", "worker", "1/1", old),
			code: 4, state: "Unknown", why: "R",
		},
		{
			name: "no report", node: reportedNode("n3", "Ready", "", now), pod: agentPod("n3", "worker", "1/1", now), code: 4,
			state: "Unknown", why: "NoReport",
		},
		{
			name: "a state of the future", node: reportedNode("n3", "Ready", "Sparkling", now),
			pod: agentPod("n3", "worker", "1/1", old), code: 4, state: "Unknown", why: "NoReport",
		},
		{
			name: "no agent", node: reportedNode("n3", "Ready", "Enforced", now), code: 4, state: "Unknown", why: "AgentMissing",
			stale: true,
		},
		{
			name: "agent not ready", node: reportedNode("n3", "Ready", "Enforced", now),
			pod: agentPod("n3", "worker", "0/1", old), code: 4, state: "Unknown", why: "AgentNotReady", stale: true,
		},
		{
			name: "an agent that never reported", node: reportedNode("n3", "Ready", "Enforced", old),
			pod: agentPod("n3", "worker", "1/1", now.Add(-time.Hour)), code: 4, state: "Unknown", why: "AgentSilent",
			stale: true,
		},
		{
			name: "an agent that has just started", node: reportedNode("n3", "Ready", "Enforced", old),
			pod: agentPod("n3", "worker", "1/1", now.Add(-time.Minute)), state: "Enforced", why: "R",
		},
		{
			name: "node not ready", node: reportedNode("n3", "NotReady", "Enforced", now),
			pod: agentPod("n3", "worker", "1/1", old), code: 4, state: "Unknown", why: "NodeNotReady", stale: true,
		},
		{
			name: "agents elsewhere", node: reportedNode("n3", "Ready", "Enforced", now),
			args: []string{"--agents", "elsewhere"}, state: "Enforced", why: "R",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newAPIServer(t)
			s.nodes = []map[string]any{
				reportedNode("n1", "Ready", "Enforced", now),
				reportedNode("n2", "Ready", "Enforced", now), c.node,
			}
			s.pods = []map[string]any{agentPod("n1", "worker", "1/1", old), agentPod("n2", "worker", "1/1", old)}
			if c.pod != nil {
				s.pods = append(s.pods, c.pod)
			}
			out, errs, code := runStatusOn(t, s, append(c.args, "-o", "json")...)
			if code != c.code {
				t.Errorf("exit status %d, want %d: %s", code, c.code, errs)
			}
			var got cluster.Status
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if len(got.Nodes) != 3 {
				t.Fatalf("%d nodes", len(got.Nodes))
			}
			for _, n := range got.Nodes {
				if n.Name == "n3" && (string(n.State) != c.state || n.Reason != c.why || n.Stale != c.stale) {
					t.Errorf("%s (%s), stale %v: want %s (%s), %v", n.State, n.Reason, n.Stale, c.state, c.why, c.stale)
				}
			}
			for _, r := range s.requests {
				if !strings.HasPrefix(r, "GET ") {
					t.Errorf("%s: status only reads", r)
				}
			}
		})
	}
}

func TestStatusText(t *testing.T) {
	now := time.Now()
	s := newAPIServer(t)
	s.nodes = []map[string]any{
		reportedNode("good", "Ready", "Enforced", now.Add(-3*time.Hour)),
		reportedNode("bad", "Ready", "Drifted", now.Add(-5*time.Hour)), reportedNode("other", "Ready", "Enforced", now),
	}
	for _, p := range []string{"good", "bad"} {
		s.pods = append(s.pods, agentPod(p, "infra", "1/1", now.Add(-24*time.Hour)))
	}
	out, errs, code := runStatusOn(t, s, "--pool", "infra")
	want := `NODE  POOL   STATE     REASON  DESIRED       OBSERVED      REPORTED  MESSAGE
bad   infra  Drifted   R       abababababab  cdcdcdcdcdcd  5h ago    because
good  infra  Enforced  R       abababababab  cdcdcdcdcdcd  3h ago    because

pool infra: 1 of 2 enforced (1 Enforced, 1 Drifted)
`
	if out != want || code != 3 || errs != "" {
		t.Errorf("exit status %d %s\n%s\nwant\n%s", code, errs, out, want)
	}
}

// TestStatusAdvisories: a hole of a runtime is known by the version that the kubelet tells, with and without an
// agent, and makes no node bad. Of podman's holes the agents tell.
func TestStatusAdvisories(t *testing.T) {
	now := time.Now()
	s := newAPIServer(t)
	node := func(name, runtime, reason, message string) {
		n := reportedNode(name, "Ready", "Enforced", now)
		n["Container-Runtime"] = runtime
		annotations := n["metadata"].(map[string]any)["annotations"].(map[string]string)
		annotations["nodetrust.io/reason"], annotations["nodetrust.io/message"] = reason, message
		s.nodes = append(s.nodes, n)
	}
	const told = "both canaries right through podman; by its version number podman 4.3.1 has forged-schema1, fixed in image library 5.42.1"
	node("agent", "cri-o://1.34.0", "RuntimeAdvisory", told)
	node("no-agent", "cri-o://1.29.5-7.rhaos4.16.git7db4ada.el9", "", "")
	node("podman", "containerd://1.7.0", "RuntimeAdvisory", told)
	node("other", "containerd://1.7.0", "RuntimeAdvisory", "podman 4.3.1 has forged-schema11 and moon-dust")
	node("past", "containerd://1.7.0", "", "forged-schema1")
	node("evil", "cri-o://1.34.0\x1b[2J", "", "")
	out, errs, code := runStatusOn(t, s, "--agents", "elsewhere", "-o", "json")
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, errs)
	}
	var got cluster.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, n := range got.Nodes {
		want := n.Name == "agent" || n.Name == "no-agent" || n.Name == "podman"
		if slices.Contains(n.Advisories, "forged-schema1") != want || n.Advisories == nil || n.Runtime == "" {
			t.Errorf("%s: %+v", n.Name, n)
		}
	}
	i := slices.IndexFunc(got.Advisories, func(a cluster.Advisory) bool { return a.ID == "forged-schema1" })
	if i < 0 || slices.ContainsFunc(got.Advisories, func(a cluster.Advisory) bool { return a.ID == "moon-dust" }) {
		t.Fatalf("advisories: %+v", got.Advisories)
	}
	a := got.Advisories[i]
	if a.Nodes != 3 || a.Fixed != "5.42.1" || a.Title == "" ||
		!slices.Equal(a.Runtimes, []string{"cri-o://1.29.5-7.rhaos4.16.git7db4ada.el9", "cri-o://1.34.0"}) {
		t.Errorf("advisory: %+v", a)
	}
	out, _, code = runStatusOn(t, s, "--agents", "elsewhere")
	const line = "\nadvisory forged-schema1: 3 of 6 nodes, by the version of the runtime (cri-o://1.29.5-7.rhaos4.16.git7db4ada.el9, cri-o://1.34.0); fixed in image library 5.42.1\n"
	if _, below, _ := strings.Cut(out, "\n\n"); code != 0 || !strings.Contains(below, line) ||
		strings.Contains(out, "\x1b") {
		t.Errorf("exit status %d\n%s\nwant\n%s", code, out, line)
	}
	s.nodes = s.nodes[2+1:]
	if out, _, _ = runStatusOn(t, s, "--agents", "elsewhere"); strings.Contains(out, "advisory ") {
		t.Errorf("nobody has one:\n%s", out)
	}
}

func TestStatusFailures(t *testing.T) {
	now := time.Now()
	s := newAPIServer(t)
	s.nodes = []map[string]any{reportedNode("n1", "Ready", "Enforced", now)}
	if _, errs, code := runStatusOn(t, s, "--pool", "none"); code != 1 ||
		!strings.Contains(errs, "no node is in pool none") {
		t.Errorf("empty pool: %d %s", code, errs)
	}
	s.forbidden["/api/v1/namespaces/nodetrust/pods"] = true
	out, errs, code := runStatusOn(t, s)
	if code != 4 || !strings.Contains(errs, "no right to list") || !strings.Contains(out, "AgentUnknown") {
		t.Errorf("pods forbidden: %d %s%s", code, errs, out)
	}
	if out, errs, code := runStatusOn(t, s, "--agents", "elsewhere"); code != 0 || errs != "" {
		t.Errorf("pods not asked for: %d %s%s", code, errs, out)
	}
	s.forbidden["/api/v1/nodes"] = true
	if out, errs, code := runStatusOn(t, s); code != 1 || out != "" || !strings.Contains(errs, "no right to list") {
		t.Errorf("nodes forbidden: %d %s%s", code, errs, out)
	}
	s.Close()
	if out, errs, code := runStatusOn(t, s); code != 1 || out != "" ||
		!strings.Contains(errs, "hint: the API server is 127.0.0.1:") {
		t.Errorf("no API server: %d %s%s", code, errs, out)
	}
	for _, args := range [][]string{
		{"--kubeconfig", "missing"},
		{"--agents", "nowhere"},
		{"extra"},
		{"--context", "none"},
	} {
		if out, errs, code := runStatusOn(t, s, args...); code != 2 || out != "" {
			t.Errorf("%v: exit status %d %s%s", args, code, errs, out)
		}
	}
}

// TestStatusCompletion: what a shell offers behind the flags that name a pool and a context.
func TestStatusCompletion(t *testing.T) {
	now := time.Now()
	s := newAPIServer(t)
	s.nodes = []map[string]any{
		reportedNode("n1", "Ready", "Enforced", now), reportedNode("n2", "Ready", "Enforced", now),
		reportedNode("n3", "Ready", "", now),
	}
	s.pods = []map[string]any{agentPod("n1", "infra", "1/1", now)}
	kubeconfig := s.kubeconfig(t)
	complete := func(args ...string) string {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"__complete"}, args...), strings.NewReader(""), &out, &errs); code != 0 {
			t.Errorf("%v: exit status %d, %s", args, code, &errs)
		}
		return out.String()
	}
	const noFiles = ":4\n"
	for _, command := range [][]string{{"status"}, {"rollout", "status"}} {
		args := append(command, "--kubeconfig", kubeconfig)
		if got, want := complete(append(args, "--pool", "")...), "infra\nworker\n"+noFiles; got != want {
			t.Errorf("%v --pool: %q, want %q", command, got, want)
		}
		if got, want := complete(append(args, "--context", "")...), "c\n"+noFiles; got != want {
			t.Errorf("%v --context: %q, want %q", command, got, want)
		}
	}
	if got, want := complete("status", "--agents", ""), "pods\nelsewhere\n"+noFiles; got != want {
		t.Errorf("--agents: %q, want %q", got, want)
	}
	if got := complete("status", "--"); !strings.Contains(got, "--watch\t") || !strings.Contains(got, "--pool\t") {
		t.Errorf("flags: %q", got)
	}
	s.Close()
	if got := complete("status", "--kubeconfig", kubeconfig, "--pool", ""); got != noFiles {
		t.Errorf("without a server: %q", got)
	}
	if got := complete("status", "--kubeconfig", "missing", "--context", ""); got != noFiles {
		t.Errorf("without a kubeconfig: %q", got)
	}
}

// TestStatusWatch shows the first picture, one change, and ends with the interrupt.
func TestStatusWatch(t *testing.T) {
	now := time.Now()
	s := newAPIServer(t)
	s.nodes = []map[string]any{reportedNode("n1", "Ready", "Enforced", now)}
	s.pods = []map[string]any{agentPod("n1", "worker", "1/1", now)}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ended := make(chan int, 1)
	var errs bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"status", "--watch", "-o", "json", "--kubeconfig", s.kubeconfig(t)},
			strings.NewReader(""), w, &errs)
		w.Close()
	}()
	dec := json.NewDecoder(r)
	next := func() cluster.Status {
		var st cluster.Status
		if err := dec.Decode(&st); err != nil {
			t.Fatalf("%v; %s", err, errs.String())
		}
		return st
	}
	if st := next(); st.Summary.Enforced != 1 {
		t.Errorf("at first: %+v", st.Summary)
	}
	s.events <- reportedNode("n1", "Ready", "Blocked", now)
	if st := next(); st.Summary.Bad != 1 {
		t.Errorf("after the change: %+v", st.Summary)
	}
	interrupt()
	if code := <-ended; code != 0 || errs.Len() > 0 {
		t.Errorf("exit status %d, %s", code, errs.String())
	}
}

// TestStatusFitsTerminals draws the same table for terminals of every width.
func TestStatusFitsTerminals(t *testing.T) {
	at := time.Now().Add(-90 * time.Minute)
	n := cluster.Node{
		Name: "ip-10-0-139-201.eu-central-1.compute.internal", Pool: "worker", State: "NotEnforced",
		Reason: "RefuseCanaryPulled", CheckedAt: &at,
		Message: "registry.access.redhat.com/ubi9/ubi-minimal was pulled, although the policy refuses it\x1b[2J",
		Desired: "sha256:0123456789abcdef", Observed: "sha256:0123456789abcdef",
	}
	old := n
	old.Stale = true
	st := cluster.Status{Nodes: []cluster.Node{n, old}, Pools: []cluster.Pool{{Pool: "worker"}}}
	for _, width := range []int{40, 60, 80, 100, 132, 200} {
		var b bytes.Buffer
		s := &cli.Screen{W: &b, TTY: true, Width: func() int { return width }, Height: func() int { return 0 }}
		writeStatus(s, st, time.Now())
		head, _, _ := strings.Cut(b.String(), "\n\n")
		for line := range strings.SplitSeq(head, "\n") {
			if got := utf8.RuneCountInString(line); got > width {
				t.Errorf("width %d: line of %d: %s", width, got, line)
			}
		}
		if !strings.Contains(head, "NotEnforced") || !strings.Contains(head, "ip-10-") {
			t.Errorf("width %d lacks node or state:\n%s", width, head)
		}
		if strings.Contains(b.String(), "\x1b") {
			t.Errorf("width %d: escape sequences without colour:\n%q", width, b.String())
		}
		if width >= 80 && !strings.Contains(head, "RefuseCanaryPulled") {
			t.Errorf("width %d has room for the reason:\n%s", width, head)
		}
	}
}

func TestStatusColour(t *testing.T) {
	s := &cli.Screen{Color: true}
	for state, want := range map[string]string{
		"Enforced": "\x1b[32m", "Unknown (stale)": "\x1b[33m",
		"Drifted": "\x1b[31m",
	} {
		if got := paintState(s, state); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "\x1b[0m") {
			t.Errorf("%s: %q", state, got)
		}
	}
	if cli.NewScreen(&bytes.Buffer{}).Color {
		t.Error("colour where there is no terminal")
	}
}
