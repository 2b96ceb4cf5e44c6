package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// usageTemplate is cobra's, with the exit status and the examples last.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]

Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}

EXIT STATUS
  0  ok, or accepted
  1  the operation failed
  2  bad usage or invalid input
  3  refused, drifted, or findings of severity error
  4  could not tell (unknown is never 0 and never 3){{if .HasExample}}

EXAMPLES
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" says more about a command.{{end}}
`

// run is the whole program but for the process: it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdinReader{ctx, stdin})
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code, hint := exitFailed, ""
	var e *exitError
	switch {
	case errors.As(err, &e):
		code, hint, err = e.code, e.hint, e.err
	case isUsage(err):
		code = exitUsage
		hint = "see nodetrust --help"
	}
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(stderr, "nodetrust: error: %s\n", line)
		}
	}
	if hint != "" {
		fmt.Fprintf(stderr, "nodetrust: hint: %s\n", hint)
	}
	return code
}

// usageError marks errors that cobra makes of flags and arguments.
type usageError struct{ error }

func isUsage(err error) bool {
	var u usageError
	return errors.As(err, &u) || strings.HasPrefix(err.Error(), "unknown command")
}

// programName is how help texts call the program: as kubectl does when it runs as a plug-in.
func programName() string {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-") {
		return "kubectl nodetrust"
	}
	return "nodetrust"
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "nodetrust",
		Short: "Turn image signature enforcement on for every node, and prove that it is on",
		Long: `nodetrust renders one trust.yaml into the policy.json and registries.d files that CRI-O and Podman read,
says beforehand which images a node would refuse, and why, and proves on a node that enforcement is on.`,
		Example: `  nodetrust init --preset redhat > trust.yaml
  nodetrust lint trust.yaml
  nodetrust render --to machineconfig trust.yaml | oc apply -f -
  nodetrust explain registry.redhat.io/ubi9/ubi`,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: programName()},
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newInitCommand(),
		newRenderCommand(),
		newDiffCommand(),
		newReadersCommand(),
		newVersionCommand(),
		newProbeCommand(),
		newLintCommand(),
		newVerifyCommand(),
		newExplainCommand(),
		newAuditCommand(),
		newVerifySignatureCommand(),
		newVerifyChecksumsCommand(),
		newReleaseCommand(),
		newSignaturesCommand(),
		newStatusCommand(),
		newRolloutCommand(),
	)
	root.SetUsageTemplate(usageTemplate)
	for _, c := range root.Commands() {
		if c.Args != nil {
			args := c.Args
			c.Args = func(cmd *cobra.Command, a []string) error {
				if err := args(cmd, a); err != nil {
					return usageError{err}
				}
				return nil
			}
		}
	}
	return root
}
