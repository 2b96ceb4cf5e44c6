// Command lab runs the cluster of the tests in the foreground, or ends it:
//
//	lab up|down
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/nodetrust/nodetrust/e2e/cluster"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: lab up|down")
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "up":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		err = up(ctx)
		stop()
	case "down":
		err = down()
	default:
		err = fmt.Errorf("unknown command %q: want up or down", os.Args[1])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: error: %v\n", err)
		os.Exit(1)
	}
}

func up(ctx context.Context) error {
	if reason := cluster.Unfit(); reason != "" {
		return errors.New(reason)
	}
	fmt.Println("lab: building what isn't built yet: CRI-O and Kubernetes take ten minutes the first time")
	c, err := cluster.Start(ctx)
	if err != nil {
		return err
	}
	err = serve(ctx, c)
	fmt.Println("lab: ending")
	return errors.Join(err, c.Close())
}

func serve(ctx context.Context, c *cluster.Cluster) error {
	if err := c.InstallCRDs(ctx); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := n.Provision(c.Trust("")); err != nil {
			return err
		}
	}
	// A kubectl of the cluster's version, for those who have none.
	kubectl := filepath.Join(filepath.Dir(c.Kubeconfig), "kubectl")
	if err := os.Symlink("kube", kubectl); err != nil {
		return err
	}
	fmt.Printf(`lab: %d nodes are ready after %s

  export KUBECONFIG=%s
  %s get nodes        # or any kubectl

  %-44s signed, runs
  %-44s unsigned, is refused

^C or make lab-down ends it.
`, len(c.Nodes), c.Started[len(c.Started)-1].After, c.Kubeconfig, kubectl, c.Signed, c.Unsigned)
	<-ctx.Done()
	return nil
}

func down() error {
	n, err := cluster.Down()
	if err == nil && n == 0 {
		fmt.Println("lab: none is up")
	}
	return err
}
