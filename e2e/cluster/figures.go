package cluster

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// Metrics are samples of Prometheus' text format: values by name with labels, as they are written.
type Metrics map[string]float64

// Sum adds up the samples of a name that have all the labels, each as name="value".
func (m Metrics) Sum(name string, labels ...string) float64 {
	var sum float64
next:
	for key, v := range m {
		n, rest, _ := strings.Cut(key, "{")
		if n != name {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue next
			}
		}
		sum += v
	}
	return sum
}

// APIServerMetrics are the API server's own.
func (c *Cluster) APIServerMetrics() (Metrics, error) {
	return scrape(c.client, c.server+"/metrics")
}

// StoreMetrics are etcd's.
func (c *Cluster) StoreMetrics() (Metrics, error) {
	transport := &http.Transport{DialContext: c.dial}
	defer transport.CloseIdleConnections()
	return scrape(&http.Client{Transport: transport, Timeout: 10 * time.Second}, etcdURL+"/metrics")
}

func scrape(client *http.Client, url string) (Metrics, error) {
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("reading %s: %s", url, resp.Status)
	}
	m := Metrics{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			m[line[:i]] = v
		}
	}
	return m, nil
}

// Usage is what a daemon of a node has taken.
type Usage struct {
	// Resident is the memory of its process, or of all its processes, in bytes.
	Resident int64
	// Processes is how many these are.
	Processes int
	// CPU is the time since its start.
	CPU time.Duration
}

// Daemons are the node daemons that the lab runs itself: the kubelet, CRI-O, and CRI-O's conmon, one per container.
func (n *Node) Daemons() (map[string]Usage, error) {
	all := map[string]Usage{}
	add := func(name string, pid int) error {
		u := all[name]
		rss, err := lab.ResidentMemory(pid)
		if err != nil {
			return err
		}
		cpu, err := cpuTime(pid)
		if err != nil {
			return err
		}
		all[name] = Usage{u.Resident + rss, u.Processes + 1, u.CPU + cpu}
		return nil
	}
	procs, err := n.Processes()
	if err != nil {
		return nil, err
	}
	for _, p := range procs {
		name, _, _ := strings.Cut(p.Command, " ")
		switch filepath.Base(name) {
		case "conmon":
			if add("conmon", p.PID) != nil {
				continue // it has ended
			}
		case "crio":
			if err := add("CRI-O", p.PID); err != nil {
				return nil, err
			}
		case "kube":
			if err := add("kubelet", p.PID); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// cpuTime of a process and its threads, those that have ended included; in steps of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("stat of process %d is not understood", pid)
	}
	var ticks int64
	for _, s := range f[11:13] { // utime, stime
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += v
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// Container is one container's cgroup, of either version of cgroups.
type Container struct {
	memory, cpu string // directories
	unified     bool
}

// ContainerUsage is what a cgroup says of a container, its children included.
type ContainerUsage struct {
	// Anonymous is memory that no file is behind (what cAdvisor calls RSS); Working is what the kubelet goes by: all
	// memory but the files that were not used lately; Peak is the most that was used, page cache included.
	Anonymous, Working, Peak int64
	// Process is the resident memory of its first process, shared pages of its program file included.
	Process int64
	CPU     time.Duration
}

// Container finds the cgroup of a container by its id.
func (c *Cluster) Container(id string) (*Container, error) {
	found := &Container{}
	for _, g := range c.cgroups {
		err := filepath.WalkDir(g.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || !strings.Contains(d.Name(), id) || strings.Contains(d.Name(), "conmon") {
				return nil
			}
			switch {
			case exists(path, "memory.current"):
				found.memory, found.cpu, found.unified = path, path, true
			case exists(path, "memory.usage_in_bytes"):
				found.memory = path
			case exists(path, "cpuacct.usage"):
				found.cpu = path
			}
			return fs.SkipDir
		})
		if err != nil {
			return nil, err
		}
	}
	if found.memory == "" || found.cpu == "" {
		return nil, fmt.Errorf("container %s has no cgroup", id)
	}
	return found, nil
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// ResetPeak makes Peak count from now on. Where the kernel can't it does nothing, and Peak counts from the start.
func (g *Container) ResetPeak() {
	if !g.unified {
		_ = os.WriteFile(filepath.Join(g.memory, "memory.max_usage_in_bytes"), []byte("0"), 0)
	}
}

// Usage reads the cgroup.
func (g *Container) Usage() (u ContainerUsage, err error) {
	r := reader{}
	var current, inactive int64
	if g.unified {
		stat := r.table(filepath.Join(g.memory, "memory.stat"))
		current, inactive, u.Anonymous = r.number(filepath.Join(g.memory, "memory.current")), stat["inactive_file"],
			stat["anon"]
		u.Peak = r.number(filepath.Join(g.memory, "memory.peak"))
		u.CPU = time.Duration(r.table(filepath.Join(g.cpu, "cpu.stat"))["usage_usec"]) * time.Microsecond
	} else {
		stat := r.table(filepath.Join(g.memory, "memory.stat"))
		current, inactive, u.Anonymous = r.number(filepath.Join(g.memory, "memory.usage_in_bytes")),
			stat["total_inactive_file"], stat["total_rss"]
		u.Peak = r.number(filepath.Join(g.memory, "memory.max_usage_in_bytes"))
		u.CPU = time.Duration(r.number(filepath.Join(g.cpu, "cpuacct.usage")))
	}
	u.Working = current - inactive
	if r.err != nil {
		return u, r.err
	}
	procs, err := os.ReadFile(filepath.Join(g.memory, "cgroup.procs"))
	if err != nil {
		return u, err
	}
	first, _, _ := strings.Cut(string(procs), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return u, fmt.Errorf("the container has no process: %w", err)
	}
	u.Process, err = lab.ResidentMemory(pid)
	return u, err
}

// reader keeps the first error.
type reader struct{ err error }

func (r *reader) file(path string) string {
	b, err := os.ReadFile(path)
	if err != nil && r.err == nil {
		r.err = err
	}
	return string(b)
}

func (r *reader) number(path string) int64 {
	v, err := strconv.ParseInt(strings.TrimSpace(r.file(path)), 10, 64)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("reading %s: %w", path, err)
	}
	return v
}

// table reads lines of a name and a number.
func (r *reader) table(path string) map[string]int64 {
	t := map[string]int64{}
	for line := range strings.Lines(r.file(path)) {
		if f := strings.Fields(line); len(f) == 2 {
			t[f[0]], _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return t
}
