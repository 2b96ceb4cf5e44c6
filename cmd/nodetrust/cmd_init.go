package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/templates"

	"github.com/nodetrust/nodetrust/internal/cli"
)

func newInitCommand() *cobra.Command {
	var preset string
	var out cli.Format
	cmd := &cobra.Command{
		Use:   "init --preset redhat",
		Short: "Print a starter trust.yaml",
		Long: `Prints a trust config to start from. The preset redhat demands signatures by Red Hat's release key of all images from
registry.redhat.io and registry.access.redhat.com, but for the catalogs that other keys sign. All other images stay as they are.
Canaries are there as a commented example. JSON has no comments, and is a trust.yaml as well.`,
		Example: "  nodetrust init --preset redhat > trust.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch preset {
			case "redhat":
				return writePreset(cmd.OutOrStdout(), out, templates.Redhat)
			case "":
				return cli.Usagef("--preset is missing: known is redhat")
			}
			return cli.Usagef("unknown preset %q: known is redhat", preset)
		},
	}
	out.Add(cmd)
	cmd.Flags().StringVar(&preset, "preset", "", "which trust config: redhat")
	cli.Complete(cmd, "preset", "redhat")
	return cmd
}

// writePreset writes a preset as it is, or without its comments as JSON.
func writePreset(w io.Writer, out cli.Format, preset []byte) error {
	if out != "json" {
		return cli.WriteFile(w, preset)
	}
	var v any
	if err := yaml.Unmarshal(preset, &v); err != nil {
		return fmt.Errorf("reading the preset: %w", err)
	}
	return cli.Write(out, w, v, nil)
}
