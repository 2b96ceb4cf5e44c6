package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// TestHerd counts requests of a log that is made up: the real one never has as many as are too many.
func TestHerd(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var log strings.Builder
	line := func(user, node, verb string, code int, at time.Duration) {
		fmt.Fprintf(&log, `{"stage":"ResponseComplete","verb":%q,"user":{"username":%q,"extra":{"authentication.kubernetes.io/node-name":[%q]}},`+
			`"responseStatus":{"code":%d},"requestReceivedTimestamp":%q,"requestObject":{"a":1}}`+"\n", verb, user, node, code,
			began.Add(at).Format(time.RFC3339Nano))
	}
	line(agentUser, "a", "get", 200, 0)
	since := int64(log.Len())
	line("somebody", "a", "patch", 200, time.Second)
	// Six in the second that begins in the middle of one; the log has them in the order of their answers.
	for _, at := range []time.Duration{2400, 1600, 1500, 2000, 2300, 2499} {
		line(agentUser, fmt.Sprint("node", at), "patch", 200, at*time.Millisecond)
	}
	line(agentUser, "a", "patch", 429, 2500*time.Millisecond)
	line(agentUser, "a", "patch", 200, 10*time.Second)
	line(agentUser, "a", "patch", 200, 12*time.Second)
	log.WriteString(`{"stage":"Response`) // still being written
	c := &Cluster{AuditLog: filepath.Join(t.TempDir(), "audit.log")}
	must(t, os.WriteFile(c.AuditLog, []byte(log.String()), 0o600))

	h, err := c.Herd(since, began)
	must(t, err)
	if h.Requests != 9 || h.Writes != 8 || h.Busiest != 6 || h.PerNode != 2 || h.Body != len(`{"a":1}`) ||
		h.Failed[429] != 1 {
		t.Errorf("%s", h)
	}
	if len(h.Delays) != 7 || h.Delay(0) != 1500*time.Millisecond || h.Delay(50) != 2300*time.Millisecond ||
		h.Delay(100) != 12*time.Second {
		t.Errorf("delays %v", h.Delays)
	}
	if h, err := c.Herd(int64(log.Len()), began); err != nil || h.Requests != 0 || h.Busiest != 0 || h.Delay(99) != 0 {
		t.Errorf("an empty log gives %s (%v)", h, err)
	}
}

// TestContainer reads cgroups of both versions, of which a machine has one.
func TestContainer(t *testing.T) {
	process := fmt.Sprintf("%d\n", os.Getpid())
	for _, tt := range []struct {
		name  string
		files map[string]string // below the mounts' directories of the lab
	}{
		{"unified", map[string]string{
			"a/crio-0123/memory.current": "5000\n", "a/crio-0123/memory.stat": "anon 3000\nfile 2000\ninactive_file 1500\n",
			"a/crio-0123/memory.peak": "9000\n",
			"a/crio-0123/cpu.stat":    "usage_usec 77\nuser_usec 1\n", "a/crio-0123/cgroup.procs": process,
			"a/crio-conmon-0123/memory.current": "1\n",
		}},
		{"version 1", map[string]string{
			"a/kubepods/crio-0123/memory.usage_in_bytes":     "5000\n",
			"a/kubepods/crio-0123/memory.stat":               "rss 1\ntotal_rss 3000\ntotal_inactive_file 1500\n",
			"a/kubepods/crio-0123/memory.max_usage_in_bytes": "9000\n", "a/kubepods/crio-0123/cgroup.procs": process,
			"b/crio-0123/cpuacct.usage": "77000\n", "b/crio-conmon-0123/cpuacct.usage": "1\n",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				path := filepath.Join(dir, name)
				must(t, os.MkdirAll(filepath.Dir(path), 0o755))
				must(t, os.WriteFile(path, []byte(text), 0o644))
			}
			c := &Cluster{cgroups: []lab.Cgroup{{Dir: filepath.Join(dir, "a")}, {Dir: filepath.Join(dir, "b")}}}
			g, err := c.Container("0123")
			must(t, err)
			u, err := g.Usage()
			must(t, err)
			if u.Anonymous != 3000 || u.Working != 3500 || u.Peak != 9000 || u.CPU != 77*time.Microsecond || u.Process == 0 {
				t.Errorf("%+v", u)
			}
			if _, err := c.Container("4567"); err == nil {
				t.Error("a container that isn't there has a cgroup")
			}
		})
	}
}
