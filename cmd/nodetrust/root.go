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

	"github.com/nodetrust/nodetrust/internal/outside"
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
	out, notes := border(stdout, args), border(stderr, nil)
	code := execute(ctx, args, stdin, out, notes)
	if err := errors.Join(out.Flush(), notes.Flush()); err != nil && code == exitOK {
		return exitFailed
	}
	return code
}

// execute is run behind the border.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdinReader{ctx, stdin})
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	checkArgs(root)
	if width := newScreen(stdout).width(); width > 0 {
		fitHelp(root, width)
	}
	cmd, err := root.ExecuteContextC(ctx)
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
		hint = "see " + cmd.CommandPath() + " --help"
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err, hint = errors.New("interrupted"), "" // what was under way then is no news
	}
	if err != nil {
		say(stderr, "error", err)
	}
	if hint != "" {
		fmt.Fprintf(stderr, "nodetrust: hint: %s\n", outside.Name(hint))
	}
	return code
}

// usageError marks errors that cobra makes of flags and arguments.
type usageError struct{ error }

func isUsage(err error) bool {
	var u usageError
	return errors.As(err, &u)
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
		Version:       version,
	}
	root.SetVersionTemplate("nodetrust {{.Version}}\n")
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
	return root
}

// checkArgs makes what c and the commands below it have to say of their arguments bad usage. A command that only has
// others below it prints its help when it is alone.
func checkArgs(c *cobra.Command) {
	for _, sub := range c.Commands() {
		checkArgs(sub)
	}
	check := c.Args
	switch {
	case c.HasSubCommands():
		check = knownCommand
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	case c.Name() == "help":
		check = func(c *cobra.Command, args []string) error {
			of, rest, err := c.Root().Find(args)
			if err != nil || len(rest) == 0 {
				return err
			}
			return knownCommand(of, rest)
		}
	case check == nil:
		return
	}
	c.Args = func(c *cobra.Command, args []string) error {
		err := check(c, args)
		if e := (*exitError)(nil); err == nil || errors.As(err, &e) {
			return err
		}
		if !c.HasSubCommands() && c.Name() != "help" {
			err = wrongArgs(c, args)
		}
		return usageError{err}
	}
}

// wrongArgs says what a command was given and what it takes.
func wrongArgs(c *cobra.Command, args []string) error {
	given := "no argument"
	if len(args) > 0 {
		given = strings.Trim(fmt.Sprintf("%q", args), "[]")
	}
	return fmt.Errorf("given %s, want: %s", given, c.UseLine())
}

// maxMisspelled is the longest argument, in bytes, that may be a command misspelled. cobra compares with tables of the
// argument's length times the name's: 4 MiB are seconds and gigabytes.
const maxMisspelled = 64

// knownCommand says that there is no command args[0] below c, and which may have been meant.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	_, below, _ := strings.Cut(c.CommandPath()+" ", c.Root().CommandPath()+" ")
	err := fmt.Errorf("unknown command %q", below+args[0])
	if len(args[0]) > maxMisspelled {
		return err
	}
	c.SuggestionsMinimumDistance = 2
	if names := c.SuggestionsFor(args[0]); len(names) > 0 {
		return withHint(usageErr(err), "did you mean "+c.CommandPath()+" "+strings.Join(names, " or ")+"?")
	}
	return err
}
