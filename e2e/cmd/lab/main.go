// Command lab runs the cluster of the tests in the foreground, or ends it:
//
//	lab build|up|down
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/nodetrust/nodetrust/e2e/cluster"
	"github.com/nodetrust/nodetrust/e2e/lab"
)

func main() {
	if len(os.Args) != 2 || !slices.Contains([]string{"build", "up", "down"}, os.Args[1]) {
		fmt.Fprintln(os.Stderr, "usage: lab build|up|down")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	switch os.Args[1] {
	case "build":
		err = lab.Prepare(ctx)
	case "up":
		err = up(ctx)
	case "down":
		err = down()
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
	if err == nil {
		err = serve(ctx, c)
		fmt.Println("lab: ending")
		err = errors.Join(err, c.Close())
	}
	if err == context.Canceled {
		return nil // as asked for, and nothing is left
	}
	return err
}

func serve(ctx context.Context, c *cluster.Cluster) error {
	err := c.InstallCRDs(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
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
	registry, err := c.ForwardRegistry()
	if err != nil {
		return err
	}
	fmt.Printf(`lab: %d nodes are ready after %s

  export KUBECONFIG=%s REGISTRY=%s
  %s get nodes        # or any kubectl

  %-44s signed, runs
  %-44s unsigned, is refused
  %-44s not asked for a signature; push to $REGISTRY/open/…

See docs/lab.md. ^C or make lab-down ends it.
`, len(c.Nodes), c.Started[len(c.Started)-1].After, c.Kubeconfig, registry, kubectl, c.Signed, c.Unsigned, c.Registry.Host+"/open/…")
	<-ctx.Done()
	return nil
}

func down() error {
	n, kept, err := cluster.Down()
	if kept > 0 {
		fmt.Printf("lab: %d of tests that run: left alone\n", kept)
	}
	if err != nil {
		return err
	}
	switch n {
	case 0:
		fmt.Println("lab: none is up")
	case 1:
		fmt.Println("lab: ended, nothing is left")
	default:
		fmt.Printf("lab: %d of them ended, nothing is left\n", n)
	}
	return nil
}
