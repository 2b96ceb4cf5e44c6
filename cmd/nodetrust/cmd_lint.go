package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/lint"
)

func newLintCommand() *cobra.Command {
	var out cli.Format
	o := lint.Options{}
	cmd := &cobra.Command{
		Use:   "lint PATH… | --root DIR",
		Short: "Find what is wrong with policies, keys or a whole host",
		Long: `Finds what is wrong with the files that decide which images a node accepts, with file and line: what a reader would
reject, so that every pull on the node fails, and what it would load without doing what was meant. Says for each reader whether
it loads the files; for the current library by really loading them.

PATH is a trust.yaml, a policy.json, a registries.d directory or file, a registries.conf, a crio.conf, a key file, a MachineConfig,
the output of ` + "`oc get mc -o yaml`" + `, an Ignition config or a directory with desired.ign; told apart by content. Several paths are
looked at together. --root DIR lints a whole host: the files that are in effect there for each reader, with what masks them,
namespaced policies and key files. With paths, --root is where key files are looked up. docs/lint.md explains the codes.`,
		Example: `  nodetrust lint trust.yaml
  nodetrust lint /etc/containers/policy.json /etc/containers/registries.d
  nodetrust lint --root /host --reader openshift-4.16 -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Now, o.Stdin = time.Now(), cmd.InOrStdin()
			report, err := lint.Run(args, o)
			if _, input := errors.AsType[*lint.InputError](err); input {
				return cli.Usage(err)
			} else if err != nil {
				return err
			}
			code := cli.ExitOK
			if !report.Clean() {
				code = cli.ExitRefused
			}
			return cli.Finish(out, cmd.OutOrStdout(), report, writeLint, code)
		},
	}
	out.Add(cmd)
	cmd.Flags().StringVar(&o.Root, "root", "", "root `DIR` of a host")
	addReaders(cmd, &o.Readers)
	return cmd
}

func writeLint(w *cli.Screen, r *lint.Report) {
	for _, f := range r.Findings {
		if f.File != "" {
			fmt.Fprint(w, f.File)
			if f.Line > 0 {
				fmt.Fprintf(w, ":%d", f.Line)
			}
			fmt.Fprint(w, ": ")
		}
		fmt.Fprintf(w, "%s: %s [%s]\n", f.Severity, f.Message, f.Code)
		if f.Hint != "" {
			fmt.Fprintf(w, "  hint: %s\n", f.Hint)
		}
	}
	for _, reader := range r.Readers {
		name := reader.Reader
		if reader.Note != "" {
			name += " (" + reader.Note + ")"
		}
		if reader.Loads {
			fmt.Fprintf(w, "%s: loads\n", name)
		} else {
			fmt.Fprintf(w, "%s: does not load: %s\n", name, reader.Error)
		}
	}
	if len(r.Findings) == 0 && len(r.Readers) == 0 {
		fmt.Fprintln(w, "no findings")
	}
}
