package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// version is set by the Makefile with -ldflags -X.
var version = "devel"

type versionInfo struct {
	Version   string `json:"version"`
	Mechanism string `json:"mechanism"`
	Library   string `json:"library"`
	Go        string `json:"go"`
	Platform  string `json:"platform"`
}

func newVersionCommand() *cobra.Command {
	var out cli.Format
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print version, OpenPGP mechanism and image library version",
		Long: `Prints the version of nodetrust, the OpenPGP mechanism that judges signatures (gpgme, or openpgp in a pure-Go
build, which cannot judge OpenPGP v3 packets and answers unknown for them) and the version of the image library.`,
		Example: "  nodetrust version\n  nodetrust version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionInfo{
				Version:   version,
				Mechanism: mechanism.Name,
				Library:   libraryVersion(),
				Go:        runtime.Version(),
				Platform:  runtime.GOOS + "/" + runtime.GOARCH,
			}
			return cli.Write(out, cmd.OutOrStdout(), v, func(w *cli.Screen, v versionInfo) {
				fmt.Fprintf(w, "nodetrust %s\nmechanism: %s\nlibrary:   %s\ngo:        %s %s\n", v.Version, v.Mechanism,
					v.Library, v.Go, v.Platform)
			})
		},
	}
	out.Add(cmd)
	return cmd
}

func libraryVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "go.podman.io/image/v5" {
				return m.Path + " " + m.Version
			}
		}
	}
	return "unknown"
}
