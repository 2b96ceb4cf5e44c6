package main

import (
	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/templates"
)

func newInitCommand() *cobra.Command {
	var preset string
	cmd := &cobra.Command{
		Use:   "init --preset redhat",
		Short: "Print a starter trust.yaml",
		Long: `Prints a trust config to start from. The preset redhat demands signatures by Red Hat's release key of all images from
registry.redhat.io and registry.access.redhat.com, but for the catalogs that other keys sign. All other images stay as they are.
Canaries are there as a commented example.`,
		Example: "  nodetrust init --preset redhat > trust.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch preset {
			case "redhat":
				_, err := cmd.OutOrStdout().Write(templates.Redhat)
				return err
			case "":
				return usagef("--preset is missing: known is redhat")
			}
			return usagef("unknown preset %q: known is redhat", preset)
		},
	}
	cmd.Flags().StringVar(&preset, "preset", "", "which trust config: redhat")
	_ = cmd.RegisterFlagCompletionFunc("preset", cobra.FixedCompletions([]cobra.Completion{"redhat"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
