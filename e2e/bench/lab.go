package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/e2e/cluster"
)

// lab is the tests' cluster, started when the first section wants it.
func (b *bench) lab(ctx context.Context) (*cluster.Cluster, error) {
	if b.cluster == nil {
		b.progress("starting the cluster; what isn't built yet is built first, which takes ten minutes")
		c, err := cluster.Start(ctx)
		if err != nil {
			return nil, err
		}
		b.cluster = c
	}
	return b.cluster, nil
}

// startOfLab says how long each step of the lab's start took.
func (b *bench) startOfLab(ctx context.Context, w *bytes.Buffer) error {
	c, err := b.lab(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "## Start of the lab\n\n`make lab`: etcd, the control plane, and two nodes of CRI-O and kubelet on this machine, programs built before.\n\n| step | done after |\n|---|---|\n")
	for _, s := range c.Started {
		fmt.Fprintf(w, "| %s | %.1f s |\n", s.Name, s.After.Seconds())
	}
	fmt.Fprintf(w, "\nGoal: all within 15 s.\n\n")
	return nil
}

// pollEvery is how often the API is asked while something is waited for: rarely enough not to be what is measured.
const pollEvery = 500 * time.Millisecond

// poll asks until ok has no complaint.
func poll(ctx context.Context, d time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

// enforced waits until a Node says that another digest than old is enforced, and returns it.
func enforced(ctx context.Context, n *cluster.Node, old string) (digest string, err error) {
	err = poll(ctx, 2*time.Minute, func() error {
		o, err := n.Object()
		if err != nil {
			return err
		}
		a := o.Metadata.Annotations
		digest = a["nodetrust.io/desired"]
		if a["nodetrust.io/state"] != "Enforced" || digest == old || digest != a["nodetrust.io/observed"] {
			return fmt.Errorf("%s says %s (%s)", n.Name, a["nodetrust.io/state"], a["nodetrust.io/message"])
		}
		return nil
	})
	return digest, err
}

// agentContainer is that of the agent's pod on a node.
func agentContainer(c *cluster.Cluster, n *cluster.Node) (*cluster.Container, error) {
	var list struct {
		Items []struct {
			Status struct {
				ContainerStatuses []struct {
					ContainerID string `json:"containerID"`
				} `json:"containerStatuses"`
			} `json:"status"`
		} `json:"items"`
	}
	q := url.Values{
		"labelSelector": {"app.kubernetes.io/name=nodetrust-agent"},
		"fieldSelector": {"spec.nodeName=" + n.Name},
	}
	if err := c.Get("/api/v1/namespaces/nodetrust/pods?"+q.Encode(), &list); err != nil {
		return nil, err
	}
	if len(list.Items) != 1 || len(list.Items[0].Status.ContainerStatuses) != 1 {
		return nil, fmt.Errorf("%s has %d pods of the agent", n.Name, len(list.Items))
	}
	_, id, _ := strings.Cut(list.Items[0].Status.ContainerStatuses[0].ContainerID, "://")
	return c.Container(id)
}

// reading is what all daemons of a node have taken at one moment.
type reading struct {
	at      time.Time
	agent   cluster.ContainerUsage
	daemons map[string]cluster.Usage
}

func read(n *cluster.Node, g *cluster.Container) (r reading, err error) {
	if r.agent, err = g.Usage(); err != nil {
		return r, err
	}
	r.at = time.Now()
	r.daemons, err = n.Daemons()
	return r, err
}

// pod runs the agents from deploy/ as they are and measures them on one node beside the node's other daemons.
func (b *bench) pod(ctx context.Context, w *bytes.Buffer) (err error) {
	c, err := b.lab(ctx)
	if err != nil {
		return err
	}
	manifests, err := c.AgentManifests()
	if err != nil {
		return err
	}
	defer func() {
		if end := c.Delete(manifests); err == nil {
			err = end
		}
	}()
	if err := c.Apply(manifests); err != nil {
		return err
	}
	if err := c.Desire(c.Trust("")); err != nil {
		return err
	}
	digests := map[string]string{}
	for _, n := range c.Nodes {
		if digests[n.Name], err = enforced(ctx, n, ""); err != nil {
			return err
		}
	}
	n := c.Nodes[0]
	g, err := agentContainer(c, n)
	if err != nil {
		return err
	}
	if err := pause(ctx, 5*time.Second); err != nil { // what was under way
		return err
	}
	b.progress("pod: %s of quiet", b.idle)
	before, err := read(n, g)
	if err != nil {
		return err
	}
	since, err := c.Audited()
	if err != nil {
		return err
	}
	if err := pause(ctx, b.idle); err != nil {
		return err
	}
	quiet, err := read(n, g)
	if err != nil {
		return err
	}
	asked, err := c.Requests(since)
	if err != nil {
		return err
	}

	b.progress("pod: a change of the ConfigMap")
	g.ResetPeak()
	if since, err = c.Audited(); err != nil {
		return err
	}
	began := time.Now()
	if err := c.Desire(c.Trust(changed(c, "changed"))); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if _, err := enforced(ctx, n, digests[n.Name]); err != nil {
			return err
		}
	}
	took := time.Since(began)
	if err := pause(ctx, 5*time.Second); err != nil { // for writes that are too many
		return err
	}
	after, err := read(n, g)
	if err != nil {
		return err
	}
	h, err := c.Herd(since, began)
	if err != nil {
		return err
	}

	millicores := func(d time.Duration) float64 { return float64(d) / float64(quiet.at.Sub(before.at)) * 1000 }
	fmt.Fprintf(w, "## The agent in its pod, beside the node's other daemons\n\n")
	fmt.Fprintf(w, "A node of the lab with deploy/ as it is: a full check every 30 s, canaries every 15 minutes. At rest: %s after the state was Enforced. The\n", b.idle)
	fmt.Fprintf(w, "change: another ConfigMap, from its writing until five seconds after both Nodes said Enforced for it (%.0f s; the kubelet's syncs and the\nspread of reports are most of it).\n\n", took.Seconds())
	fmt.Fprintf(w, "| daemon | processes | resident | CPU at rest | CPU of the change |\n|---|---|---|---|---|\n")
	row := func(name string, processes int, rss int64, rest, change time.Duration) {
		fmt.Fprintf(w, "| %s | %d | %.1f MiB | %.2f millicores | %d ms |\n", name, processes, mib(rss), millicores(rest),
			change.Milliseconds())
	}
	row("**nodetrust-agent** (cgroup, children included)", 1, quiet.agent.Process, quiet.agent.CPU-before.agent.CPU,
		after.agent.CPU-quiet.agent.CPU)
	for _, name := range []string{"kubelet", "CRI-O", "conmon"} {
		d := quiet.daemons[name]
		if d.Processes == 0 {
			return fmt.Errorf("%s is not found on %s", name, n.Name)
		}
		row(name, d.Processes, d.Resident, d.CPU-before.daemons[name].CPU, after.daemons[name].CPU-d.CPU)
	}
	fmt.Fprintf(w, "\nThe container's cgroup:\n\n| | at rest | after the change | goal |\n|---|---|---|---|\n")
	fmt.Fprintf(w, "| resident memory of the agent (program file included) | %.1f MiB | %.1f MiB | ≤ 20 MiB |\n",
		mib(quiet.agent.Process), mib(after.agent.Process))
	fmt.Fprintf(w, "| memory that no file is behind | %.1f MiB | %.1f MiB | – |\n", mib(quiet.agent.Anonymous),
		mib(after.agent.Anonymous))
	fmt.Fprintf(w, "| working set, as the kubelet counts it | %.1f MiB | %.1f MiB | ≤ 24 MiB, the request |\n",
		mib(quiet.agent.Working), mib(after.agent.Working))
	fmt.Fprintf(w, "| peak, with the children and the page cache | – | %.1f MiB | ≤ 128 MiB, the limit |\n",
		mib(after.agent.Peak))
	fmt.Fprintf(w, "\nRequests to the API server: %d in %s of rest (goal 0); for the change %d writes by two agents, at most %d by one (goal ≤ 4), of %d bytes each.\n\n",
		len(asked), b.idle, h.Writes, h.PerNode, h.Body)
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

const (
	simulated = 1000
	outage    = 25 * time.Second
)

// counted is what the API server and etcd have counted themselves.
type counted struct{ puts, walBytes, events, eventBytes float64 }

func count(c *cluster.Cluster) (n counted, err error) {
	store, err := c.StoreMetrics()
	if err != nil {
		return n, err
	}
	api, err := c.APIServerMetrics()
	if err != nil {
		return n, err
	}
	return counted{
		puts: store.Sum("etcd_mvcc_put_total"), walBytes: store.Sum("etcd_disk_wal_write_bytes_total"),
		events:     api.Sum("apiserver_watch_events_total", `version="v1"`, `resource="nodes"`),
		eventBytes: api.Sum("apiserver_watch_events_sizes_sum", `version="v1"`, `resource="nodes"`),
	}, nil
}

// thousand runs simulated agents on the real API server and counts what it sees of them.
func (b *bench) thousand(ctx context.Context, w *bytes.Buffer) (err error) {
	c, err := b.lab(ctx)
	if err != nil {
		return err
	}
	b.progress("thousand: making %d nodes, pods and tokens", simulated)
	f, err := c.NewFleet(simulated)
	if err != nil {
		return err
	}
	defer func() {
		if end := f.Close(); err == nil {
			err = end
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := f.Provision(c.Trust("")); err != nil {
		return err
	}
	digest, err := f.Desire(c.Trust(""))
	if err != nil {
		return err
	}
	var herds []herd
	for _, step := range []struct {
		name, state string
		do          func() error
	}{
		{"all start within the same second", "Unknown", func() error { return f.Start(ctx) }},
		{"another desired state, given to all at the same moment", "Drifted", func() (err error) {
			digest, err = f.Desire(c.Trust(changed(c, "one")))
			return err
		}},
		{
			fmt.Sprintf("another desired state while the API server is away for %s; since it is back", outage), "Drifted",
			func() error {
				c.StopAPIServer()
				if digest, err = f.Desire(c.Trust(changed(c, "two"))); err != nil {
					return err
				}
				if err := pause(ctx, outage); err != nil {
					return err
				}
				if err := c.StartAPIServer(); err != nil {
					return err
				}
				return c.WaitReady()
			},
		},
	} {
		b.progress("thousand: %s", step.name)
		h, err := watchHerd(ctx, c, f, step.state, step.do, &digest)
		if err != nil {
			return err
		}
		h.name = step.name
		herds = append(herds, h)
	}
	memory, err := f.Memory()
	if err != nil {
		return err
	}
	decided, err := f.Stop()
	if err != nil {
		return err
	}
	told, err := f.Said()
	if err != nil {
		return err
	}
	lost := 0
	for name, d := range decided {
		if told[name] != d {
			lost++
		}
	}
	writeHerds(w, herds, memory, lost, len(decided))
	return nil
}

// herd is one step of thousand.
type herd struct {
	name string
	cluster.Herd
	counted
}

func changed(c *cluster.Cluster, scope string) string {
	return fmt.Sprintf("  - scope: %s/%s\n    require: reject\n", c.Registry.Host, scope)
}

// watchHerd does something and counts until all agents have told of it.
func watchHerd(ctx context.Context, c *cluster.Cluster, f *cluster.Fleet, state string, do func() error,
	digest *string,
) (h herd, err error) {
	since, err := c.Audited()
	if err != nil {
		return h, err
	}
	before, err := count(c)
	if err != nil {
		return h, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return h, err
	}
	if time.Since(began) > outage { // the API server counts from its start
		began, before = time.Now(), counted{}
		store, err := c.StoreMetrics()
		if err != nil {
			return h, err
		}
		before.puts, before.walBytes = store.Sum("etcd_mvcc_put_total"), store.Sum("etcd_disk_wal_write_bytes_total")
	}
	if err := f.Wait(ctx, state, *digest); err != nil {
		return h, err
	}
	after, err := count(c)
	if err != nil {
		return h, err
	}
	h.counted = counted{
		after.puts - before.puts, after.walBytes - before.walBytes, after.events - before.events,
		after.eventBytes - before.eventBytes,
	}
	h.Herd, err = c.Herd(since, began)
	return h, err
}

func writeHerds(w *bytes.Buffer, herds []herd, memory int64, lost, agents int) {
	fmt.Fprintf(w, "## %d agents\n\n", simulated)
	fmt.Fprintf(w, `The agent's own loop and reporting code, %d times in one process (%.0f MiB), each with a Node of real size, a token bound to a pod on it and
a connection of its own; the lab's API server with RBAC, admission policy and flow control of deploy/. Counted from its audit log.

| | requests | of them failed | busiest second | writes | by one agent | bytes of a write | reported: p50 | p99 | last |
|---|---|---|---|---|---|---|---|---|---|
`, agents, mib(memory))
	for _, h := range herds {
		failed := 0
		for _, n := range h.Failed {
			failed += n
		}
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | ≤ %d | %d | %.1f s | %.1f s | %.1f s |\n", h.name, h.Requests, failed,
			h.Busiest, h.Writes, h.PerNode, h.Body,
			h.Delay(50).Seconds(), h.Delay(99).Seconds(), h.Delay(100).Seconds())
	}
	fmt.Fprintf(w, "\nGoal: at most 100 requests a second for a change and after an outage. At its start each agent also reads its Node,\nwithout waiting: a burst where all start within one second, which kubelets that pull an image don't. States lost, comparing each Node with what\nits agent decided last: **%d of %d**.\n\n", lost, agents)
	h := herds[1]
	perWrite, perEvent := h.walBytes/h.puts, h.eventBytes/max(h.events, 1)
	fmt.Fprintf(w, "What %d writes cost behind the API server, by its own and etcd's counters: %.0f puts (others' included), %.1f KiB of write-ahead log each; %.0f watch events\nof Nodes, %.1f KiB each.\n\n",
		h.Writes, h.puts, perWrite/1024, h.events, perEvent/1024)
	writeArithmetic(w, h.Body, perWrite, perEvent)
}

// writeArithmetic extrapolates one change of the desired state to larger clusters.
func writeArithmetic(w *bytes.Buffer, body int, wal, event float64) {
	const spread, polite = 20.0, 50.0
	fmt.Fprintf(w, `### The arithmetic to larger clusters

One change of the desired state at N nodes is N writes, whatever the time. At the same moment is the worst case: kubelets bring a ConfigMap
within 60 to 90 s, a pool at a time. Reports at the default spread come at N/20 s; the spread that keeps 50 a second is N/50 s.
Every watcher of all Nodes (the lab: controller manager, scheduler, and the test's own) is sent each write, and so is the node's own kubelet:
bytes are per watcher of all.

| nodes | requests/s at 20 s | with kubelets' 60 s | `+"`--report-spread`"+` for 50/s | bodies | etcd's log | to one watcher | its rate at 50/s |
|---|---|---|---|---|---|---|---|
`)
	for _, n := range []float64{1000, 5000, 100000} {
		fmt.Fprintf(w, "| %.0f | %.0f | %.0f | %s | %.1f MB | %.0f MB | %.0f MB | %.1f MB/s |\n", n, n/spread, n/(60+spread),
			(time.Duration(max(spread, n/polite)) * time.Second).String(), n*float64(body)/1e6, n*wal/1e6, n*event/1e6,
			polite*event/1e6)
	}
	fmt.Fprintf(w, "\nIn quiet there are no requests at any size. A heartbeat of one write a minute, which is not made, would be %.0f requests a second at 5,000 nodes and %.0f at\n100,000, for ever.\n\n", 5000/60.0, 100000/60.0)
}

// listing reads the pods of a large cluster.
func (b *bench) listing(ctx context.Context, w *bytes.Buffer) (err error) {
	const pods = 5000
	c, err := b.lab(ctx)
	if err != nil {
		return err
	}
	b.progress("listing: making %d pods", pods)
	remove, err := c.FillPods(pods, c.Signed, c.Unsigned)
	if err != nil {
		return err
	}
	defer func() {
		if end := remove(); err == nil {
			err = end
		}
	}()
	l, err := c.ListPods(ctx)
	if err != nil {
		return err
	}
	trust := filepath.Join(b.dir, "lab.yaml")
	if err := os.WriteFile(trust, []byte(c.Trust("")), 0o644); err != nil {
		return err
	}
	b.progress("listing: audit")
	cmd := c.Audit(ctx, trust)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	began := time.Now()
	resident, err := runPeak(cmd)
	took := time.Since(began)
	out := stdout.Bytes()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 { // the unsigned image
		err = nil
	}
	if err != nil {
		return fmt.Errorf("auditing: %w: %s%.2000s", err, &stderr, out)
	}
	var report struct {
		Images []struct{ UsedBy []string }
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return err
	}
	used := 0
	for _, i := range report.Images {
		used += len(i.UsedBy)
	}
	if used < pods {
		return fmt.Errorf("the audit names %d uses of images, want at least %d", used, pods)
	}
	fmt.Fprintf(w, "## %d pods\n\nPods of 8 KiB each on the lab's API server, read as `nodetrust audit` does.\n\n| | |\n|---|---|\n", l.Pods)
	fmt.Fprintf(w, "| pages | %d |\n| sent by the API server, compressed | %.1f MiB |\n| held at most at a time | %.1f MiB |\n", l.Pages, mib(l.Sent), mib(l.Live))
	fmt.Fprintf(w, "| `nodetrust audit --images-from cluster`, %d images with %d uses, all judged | %.1f s, at most %.0f MiB resident (goal ≤ 300 MiB) |\n\n",
		len(report.Images), used, took.Seconds(), mib(resident))
	return nil
}
