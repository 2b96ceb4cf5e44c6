package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/agent/child"
	"github.com/nodetrust/nodetrust/internal/judge"
)

// crashEnv has this test program be an agent, to be killed: "agent" or "restore", host root, desired state, CLI.
const crashEnv = "NODETRUST_TEST_CRASH"

func TestMain(m *testing.M) {
	if what := os.Getenv(crashEnv); what != "" {
		if err := crash(strings.Split(what, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func crash(args []string) error {
	o := Options{
		HostRoot: args[1], Desired: args[2], Child: child.New(args[3]), Runtime: "auto", CRISocket: "/run/crio/crio.sock",
		Resync: time.Hour, ProbeInterval: time.Hour, ContestedAfter: 10,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: NewMetrics(),
		Report: func(s Status) {
			if s.State == judge.Enforced {
				fmt.Println("enforced")
			}
		},
	}
	fmt.Println("begins")
	if args[0] == "agent" {
		_, err := Run(context.Background(), o)
		return err
	}
	left, err := Restore(context.Background(), o)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left %q", left)
	}
	return err
}

// killed runs an agent or a restore and kills it after a time; 0 lets it end, or come to Enforced.
func (w *world) killed(what string, after time.Duration) {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+strings.Join([]string{what, w.host, w.desired, w.script()}, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	lines := bufio.NewScanner(out)
	lines.Scan()
	if after > 0 {
		time.Sleep(after)
	} else {
		for lines.Scan() && lines.Text() != "enforced" {
		}
	}
	if after > 0 || what == "agent" {
		w.must(cmd.Process.Kill())
		_ = cmd.Wait()
	} else if err := cmd.Wait(); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// TestKilled: killed while it keeps, writes or restores, at any moment; the way back is always there.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	w.varLib()
	w.write(policyFile, accepting)
	w.write(labFile, "docker: {lab.example.com: {lookaside: https://old.example.com}}\n")
	before := snapshot(t, w.host)
	sets := []map[string]string{
		files(otherFile, "docker: {other.example.com: {}}\n"),
		{policyFile: policy(locked), movedFile: lab},
	}
	whole := map[string]bool{accepting: true, policy(""): true, policy(locked): true}
	upTo := func(d time.Duration) time.Duration { return 1 + rand.N(d) }
	counts := map[string]int{}
	for round := range 30 {
		for i := range 1 + round%3 {
			w.desire(sets[i%2], canaries)
			after := upTo(120 * time.Millisecond)
			if round%5 == 4 {
				after = 0
			}
			w.killed("agent", after)
			if got := w.read(policyFile); !whole[got] {
				t.Fatalf("policy.json is %q", got)
			}
			counts[w.read(policyFile)]++
		}
		if round%2 == 0 {
			w.killed("restore", upTo(8*time.Millisecond))
			if got := w.read(policyFile); !whole[got] {
				t.Fatalf("policy.json is %q", got)
			}
		}
		w.killed("restore", 0)
		if after := snapshot(t, w.host); after != before {
			t.Fatalf("round %d: the host is\n%s\nand was\n%s", round, after, before)
		}
	}
	if counts[accepting] == 0 || len(counts) < 2 {
		t.Errorf("the kills came at the same moment: %v", counts)
	}
}
