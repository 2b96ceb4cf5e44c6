package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// podAgents are the process ids of the agents in pods, by node.
func podAgents() (map[string][]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	found := map[string][]int{}
	for _, dir := range dirs {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if !bytes.HasPrefix(cmdline, []byte("/usr/bin/nodetrust-agent\x00")) {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(dir, "status"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		// The first process of its pod: a child looks the same until it runs another program.
		_, pids, _ := strings.Cut(string(status), "NSpid:")
		pids, _, _ = strings.Cut(pids, "\n")
		f := strings.Fields(pids)
		if len(f) == 0 || f[len(f)-1] != "1" {
			continue // or ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		for env := range bytes.SplitSeq(environ, []byte{0}) {
			if node, ok := bytes.CutPrefix(env, []byte("NODE_NAME=")); ok {
				found[string(node)] = append(found[string(node)], pid)
			}
		}
	}
	return found, nil
}

// TestRollingUpdate: agents are replaced one node after the other, never two work on a node, and no Node says
// anything but Enforced meanwhile.
func TestRollingUpdate(t *testing.T) {
	c := need(t)
	d := deploy(t, c)
	old, marks := map[string]pod{}, map[string]int{}
	for _, n := range c.Nodes {
		p, err := d.pod(n.Name)
		must(t, err)
		old[n.Name], marks[n.Name] = p, d.on[n.Name].mark()
	}
	first, err := podAgents()
	must(t, err)
	for _, n := range c.Nodes {
		if len(first[n.Name]) != 1 {
			t.Fatalf("agents before the update: %v, want one on each node", first)
		}
	}
	since, began := c.audited(t), time.Now()
	_, err = c.Kubectl("-n", "nodetrust", "patch", "daemonset", "nodetrust-agent-worker", "-p",
		`{"spec":{"template":{"metadata":{"annotations":{"example.com/version":"2"}}}}}`)
	must(t, err)
	err = lab.Poll(2*patience, func() error {
		now, err := podAgents()
		if err != nil {
			return err
		}
		missing := 0
		for _, n := range c.Nodes {
			if len(now[n.Name]) > 1 {
				t.Errorf("%s has the agents %v at the same time", n.Name, now[n.Name])
			}
			if len(now[n.Name]) == 0 {
				missing++
			}
		}
		if missing > 1 {
			t.Errorf("no agent on any node: maxUnavailable is one of two")
		}
		for _, n := range c.Nodes {
			p, err := d.pod(n.Name)
			if err != nil {
				return err
			}
			if p.Metadata.UID == old[n.Name].Metadata.UID {
				return fmt.Errorf("%s has the old pod", n.Name)
			}
			if err := ready(p); err != nil {
				return fmt.Errorf("pod on %s: %w", n.Name, err)
			}
		}
		return nil
	})
	must(t, err)
	time.Sleep(settling)
	requests := c.requests(t, since)
	for _, n := range c.Nodes {
		took := d.pending(t, n.Name, began)
		for _, r := range d.on[n.Name].all()[marks[n.Name]:] {
			switch {
			case r.State == "Enforced":
			case took > gathered && r.preliminary():
				t.Logf("%s said %q: its new agent took %s", n.Name, r, took)
			default:
				t.Errorf("%s said %q", n.Name, r)
			}
		}
		frugal(t, n.Name, requests[n.Name])
	}

	t.Run("second writer", func(t *testing.T) {
		n := c.Nodes[0]
		config, err := n.Render(c.another("second"), "--to", "machineconfig")
		must(t, err)
		desired := filepath.Join(c.dir, "second.yaml")
		must(t, os.WriteFile(desired, config, 0o644))
		before := snapshot(t, n, hostDirs...)
		p, err := n.Start(c.Lab.Programs.Agent, "--host-root", "/", "--desired", desired, "--node-name", n.Name,
			"--runtime", "cri")
		must(t, err)
		t.Cleanup(func() {
			if !p.Exited() {
				p.Stop()
			}
		})
		err = lab.Poll(patience, func() error {
			if !p.Exited() {
				return errors.New("it runs")
			}
			return nil
		})
		if err != nil || !strings.Contains(p.Log.String(), "another nodetrust-agent is at work") {
			t.Errorf("a second agent on %s: %v: %s", n.Name, err, p.Log)
		}
		if after := snapshot(t, n, hostDirs...); !maps.Equal(after, before) {
			t.Errorf("the second agent wrote:\n%q\n%q", before, after)
		}
	})
}
