package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cluster/mco"
)

// kubeconfigHint goes with a cluster that isn't named.
const kubeconfigHint = "name a cluster with --kubeconfig, $KUBECONFIG or --context"

// openCluster returns a client of the cluster that is named.
func openCluster(config cluster.Config) (*cluster.Client, error) {
	client, err := cluster.New(config)
	if err != nil {
		return nil, cli.WithHint(cli.Usage(err), kubeconfigHint)
	}
	return client, nil
}

// completionTime is how long who presses Tab waits for an API server.
const completionTime = 3 * time.Second

// completePool completes --pool with the pools that the cluster's nodes are in.
func completePool(cmd *cobra.Command, config *cluster.Config, agents *string) {
	_ = cmd.RegisterFlagCompletionFunc("pool", func(cmd *cobra.Command, _ []string, _ string) (pools []cobra.Completion,
		_ cobra.ShellCompDirective,
	) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var snapshot *cluster.Snapshot
		client, err := cluster.New(*config)
		if err == nil {
			snapshot, err = client.Read(ctx, *agents)
		}
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, p := range snapshot.Status("", time.Now()).Pools {
			if p.Pool != "" {
				pools = append(pools, p.Pool)
			}
		}
		return pools, cobra.ShellCompDirectiveNoFileComp
	})
}

// live is the name of the cluster that the kubeconfig names, where a dump may be named as well.
const live = "live"

// readCluster reads a dump, or the live cluster. What the caller may not read there is written to notes.
func readCluster(ctx context.Context, name string, config cluster.Config, notes io.Writer) (*mco.Dump, error) {
	if name != live {
		return readDump(name)
	}
	client, err := openCluster(config)
	if err != nil {
		return nil, err
	}
	d, unread, err := client.Dump(ctx)
	switch {
	case errors.Is(err, cluster.ErrNoPools):
		return nil, cli.WithHint(err, "without the Machine Config Operator there is nothing to merge with: render without --cluster, or --to configmap")
	case cluster.IsForbidden(err):
		return nil, cli.WithHint(err, "this needs the right to list MachineConfigs and MachineConfigPools: ask for it, or use a file made by "+dumpCommand)
	case err != nil:
		return nil, cli.WithHint(fmt.Errorf("reading the cluster: %w", err), "the API server is "+client.Server())
	}
	for _, kind := range unread {
		cli.Say(notes, cli.Note, "%s objects may not be read by this user: what they ask for is known as far as the Machine Config Operator has written it", kind)
	}
	return d, nil
}

const dumpCommand = "oc get mc,mcp,clusterversion,images.config,clusterimagepolicies -o yaml"

func readDump(file string) (*mco.Dump, error) {
	data, err := bounded.ReadFile(file, mco.MaxDump)
	large, tooLarge := errors.AsType[*bounded.TooLargeError](err)
	if err != nil && !tooLarge {
		return nil, cli.Usage(fmt.Errorf("reading the cluster dump: %w", err))
	}
	var d *mco.Dump
	if err == nil {
		d, err = mco.ParseDump(data)
		large, tooLarge = errors.AsType[*bounded.TooLargeError](err)
	}
	switch {
	case tooLarge:
		return nil, cli.WithHint(cli.Usage(fmt.Errorf("reading the cluster dump: %s: %w", file, large)),
			"--cluster live reads a page at a time")
	case err != nil:
		return nil, cli.WithHint(cli.Usage(fmt.Errorf("reading the cluster dump: %s: %w", file, err)),
			"make it by "+dumpCommand)
	}
	return d, nil
}
