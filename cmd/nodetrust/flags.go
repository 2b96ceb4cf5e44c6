package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cri"
)

// Flags that several commands have, each with one name, default, text and completion. TestFlags compares them.

// addCluster adds --kubeconfig and --context, which name the cluster that a command reads.
func addCluster(cmd *cobra.Command, to *cluster.Config) {
	fl := cmd.Flags()
	fl.StringVar(&to.Kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of a live cluster (default: as kubectl)")
	fl.StringVar(&to.Context, "context", "", "`CONTEXT` of the kubeconfig for a live cluster")
	_ = cmd.RegisterFlagCompletionFunc("context",
		func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return cluster.Contexts(to.Kubeconfig), cobra.ShellCompDirectiveNoFileComp
		})
}

// addNodes adds the flags of commands that read the nodes of a cluster.
func addNodes(cmd *cobra.Command, to *cluster.Config, pool, agents *string) {
	addCluster(cmd, to)
	addPool(cmd, pool)
	*agents = cluster.AgentsPods
	cli.Choice(cmd, agents, "agents", "", "string", "where the agents run: pods or elsewhere",
		cluster.AgentsPods, cluster.AgentsElsewhere)
	completePool(cmd, to, agents)
}

// addPool adds --pool.
func addPool(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "pool", "", "`POOL` that is meant, where there are several")
}

// addConfig adds --config, which takes the place of another policy or MachineConfig.
func addConfig(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "config", "", "trust.yaml `FILE`: what it renders to is meant")
}

// addDesired adds --desired.
func addDesired(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "desired", "", "`PATH` of what was rendered: a MachineConfig, or a directory with desired.ign")
}

// addRegistriesConf adds --registries-conf.
func addRegistriesConf(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "registries-conf", "",
		"registries.conf `FILE` (default $CONTAINERS_REGISTRIES_CONF, else the host's)")
}

// addReaders adds --reader.
func addReaders(cmd *cobra.Command, to *[]string) {
	cmd.Flags().StringArrayVar(to, "reader", nil,
		"`NAME` of who reads the files, for example openshift-4.18 or rhel7; see nodetrust readers (repeatable)")
	completeReaders(cmd)
}

// addKeys adds --key of commands that judge signatures without a policy.
func addKeys(cmd *cobra.Command, to *[]string, which string) {
	cmd.Flags().StringArrayVar(to, "key", nil, "public key `FILE`, "+which+" must have signed (repeatable)")
}

// addDeadline adds --timeout.
func addDeadline(cmd *cobra.Command, to *time.Duration, most time.Duration, of string) {
	*to = most
	cmd.Flags().Var(cli.Deadline(to), "timeout", "deadline of "+of)
}

// addAuthfile adds --authfile.
func addAuthfile(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "authfile", "", "containers-auth.json `FILE` with logins for registries (none are used without it)")
}

// addCRISocket adds --cri-socket.
func addCRISocket(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "cri-socket", cri.DefaultSocket, "socket of the CRI runtime")
}

// addSignatureStores adds the flags that say where signatures of releases are.
func addSignatureStores(cmd *cobra.Command, to *releaseFlags) {
	fl := cmd.Flags()
	fl.StringArrayVar(&to.stores, "store", nil,
		"signature store of releases at this http, https or file `URL`, or path (repeatable; default Red Hat's, unless --signatures-from is given)")
	fl.StringArrayVar(&to.signaturesFrom, "signatures-from", nil,
		"`FILE` with ConfigMaps that have signatures of releases, or live: those of the cluster (repeatable)")
}

// addRequireSigned adds --require-signed.
func addRequireSigned(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "require-signed", false, "refuse what the policy accepts without a signature (NotSignedFor)")
}
