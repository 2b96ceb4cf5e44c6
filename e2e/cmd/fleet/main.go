// Command fleet runs many agents in one process: each is the agent's own loop and its own reporting code, with a
// token and a connection of its own. They observe one host root and have one desired state, so that all of them
// decide the same at the same moment. The desired state names no canaries, so no child is started.
//
//	fleet -kubeconfigs DIR -host-root DIR -desired DIR -uid N
//
// DIR has one kubeconfig per agent, named like its node. At SIGTERM all agents end, and what each decided last is
// written to standard output: a JSON object of statuses by node.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/agent"
	"github.com/nodetrust/nodetrust/agent/child"
	"github.com/nodetrust/nodetrust/agent/node"
)

func main() {
	kubeconfigs := flag.String("kubeconfigs", "", "directory of the agents' kubeconfigs")
	hostRoot := flag.String("host-root", "", "what all agents observe")
	desired := flag.String("desired", "", "desired state of all agents")
	uid := flag.Int("uid", 0, "user to become once the kubeconfigs are read: inotify instances are counted by user")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	last, err := run(ctx, *kubeconfigs, agent.Options{HostRoot: *hostRoot, Desired: *desired}, *uid)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(last)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "fleet: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, common agent.Options, uid int) (map[string]agent.Status, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	reporters := map[string]*node.Reporter{}
	for _, f := range files {
		client, err := node.Client(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		reporters[f.Name()] = node.New(client, f.Name(), node.Spread, log)
	}
	if uid != 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
			return nil, fmt.Errorf("becoming user %d: %w", uid, err)
		}
	}
	common.Observe, common.Log = true, log
	common.Resync, common.ProbeInterval, common.ContestedAfter = 30*time.Second, 15*time.Minute, 10
	common.Child = child.New("/nonexistent")
	var (
		mu   sync.Mutex
		last = map[string]agent.Status{}
		errs []error
		all  sync.WaitGroup
	)
	for name, r := range reporters {
		all.Go(func() { r.Run(ctx) })
		all.Go(func() {
			s, err := one(ctx, name, common, r)
			mu.Lock()
			defer mu.Unlock()
			last[name], errs = s, append(errs, err)
		})
	}
	all.Wait()
	return last, errors.Join(errs...)
}

// one is wired like the program nodetrust-agent.
func one(ctx context.Context, name string, o agent.Options, r *node.Reporter) (agent.Status, error) {
	o.NodeName, o.MCO, o.Metrics = name, r.MCO(), agent.NewMetrics()
	o.Report = func(s agent.Status) {
		r.Report(node.Report{
			State: string(s.State), Reason: s.Reason, Message: s.Message, Desired: s.Desired, Observed: s.Observed,
			CheckedAt: s.CheckedAt,
		})
	}
	return agent.Run(ctx, o)
}
