package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
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
		client, err := cluster.New(*config)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		snapshot, err := client.Read(ctx, *agents)
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
