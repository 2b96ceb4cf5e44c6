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

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// run is the whole program but for the process: it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out, notes := cli.NewWriter(stdout, args), cli.NewWriter(stderr, nil)
	code := execute(ctx, args, stdin, out, notes)
	if err := errors.Join(out.Flush(), notes.Flush()); err != nil && code == cli.ExitOK {
		return cli.ExitFailed
	}
	return code
}

// execute is run behind the border.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(verify.TakeEnv())
	root.SetArgs(args)
	root.SetIn(cli.Interruptible(ctx, stdin))
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	checkArgs(root)
	cli.FitHelp(root, cli.NewScreen(stdout).Width())
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return cli.ExitOK
	}
	code, hint := cli.ExitFailed, ""
	if e, ok := errors.AsType[*cli.ExitError](err); ok {
		code, hint, err = e.Code, e.Hint, e.Err
	} else if _, ok := errors.AsType[usageError](err); ok {
		code, hint = cli.ExitUsage, "see "+cmd.CommandPath()+" --help"
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err, hint = errors.New("interrupted"), "" // what was under way then is no news
	}
	if err != nil {
		cli.Say(stderr, cli.Error, "%v", err)
	}
	if hint != "" {
		cli.Say(stderr, cli.Hint, "%s", hint)
	}
	return code
}

// usageError marks errors that cobra makes of flags and arguments.
type usageError struct{ error }

// programName is how help texts call the program: as kubectl does when it runs as a plug-in.
func programName() string {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-") {
		return "kubectl nodetrust"
	}
	return "nodetrust"
}

func newRoot(env verify.Env) *cobra.Command {
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
		newProbeCommand(env),
		newLintCommand(),
		newVerifyCommand(env),
		newExplainCommand(env),
		newAuditCommand(env),
		newVerifySignatureCommand(),
		newVerifyChecksumsCommand(),
		group("release", "Judge OpenShift releases", "release verify --key RPM-GPG-KEY-redhat-release "+
			"quay.io/openshift-release-dev/ocp-release@sha256:…", newReleaseVerifyCommand(env)),
		group("signatures", "Collect signatures for sites without a network",
			"signatures bundle --config trust.yaml --images-from images.txt --to bundle", newSignaturesBundleCommand(env)),
		newStatusCommand(),
		group("rollout", "Tell how far MachineConfigs have come on OpenShift", "rollout status --config trust.yaml --wait",
			newRolloutStatusCommand()),
	)
	root.SetUsageTemplate(cli.UsageTemplate)
	return root
}

// group returns a command that only has another one below it.
func group(name, short, example string, below *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Example: "  nodetrust " + example}
	cmd.AddCommand(below)
	return cmd
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
		if _, ok := errors.AsType[*cli.ExitError](err); ok || err == nil {
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
		return cli.WithHint(cli.Usage(err), "did you mean "+c.CommandPath()+" "+strings.Join(names, " or ")+"?")
	}
	return err
}
