package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

func newVerifyCommand(env verify.Env) *cobra.Command {
	judging := judgingCommand{policy: policyFlags{env: env}}
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Say whether a policy accepts an image, and why",
		Long: `Judges one image as a node's runtime would: the manifest is read from the registry (or its mirror), the signatures from
the lookaside, and both are judged by policy.json with the library that podman and CRI-O use. Nothing is pulled.

With --require-signed an accept that no signature stands behind is a refusal: where the policy asks for none, say.

The answer is accept, refuse or unknown. It is a health check, not an admission: only the runtime that pulls decides.

IMAGE is docker://REFERENCE, or REFERENCE alone, or dir:PATH, or oci:PATH (oci:PATH:NAME or oci:PATH:@N of a layout with
several images), or containers-storage:NAME-OR-ID, an image that the host below --root has stored, as CRI-O and Podman do:
if it was stored with signatures, these and the stored manifest are judged, else the image's digest in its registry ("judged"
in JSON says which). Of a tag together with a digest the tag is dropped, as podman and CRI-O do it. An OCI layout holds no
signatures that runtimes read: where the policy wants one, the answer is refuse, whatever the registry has.`,
		Example: `  nodetrust verify registry.redhat.io/ubi9/ubi:latest
  nodetrust verify --policy policy.json --registries-d registries.d quay.io/corp/app@sha256:…
  nodetrust verify --config trust.yaml --key redhat-release=RPM-GPG-KEY-redhat-release dir:bundle --as registry.redhat.io/team/app:1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return judging.run(cmd, args[0], func(ctx context.Context, j *verify.Judge, image verify.Image) (
				verdict.Verdict, func() error, error,
			) {
				v, err := j.Verdict(ctx, image)
				v = judging.demanded(v)
				return v, func() error { return cli.Write(judging.out, cmd.OutOrStdout(), v, writeVerdict) }, err
			})
		},
	}
	judging.add(cmd)
	return cmd
}

// judgingCommand is what verify and explain share: flags, and the way from an IMAGE to a verdict and an exit status.
type judgingCommand struct {
	out    cli.Format
	policy policyFlags
	image  imageFlags
	// offline asks neither registry nor lookaside.
	offline bool
	// requireSigned refuses what no signature stands behind.
	requireSigned bool
}

func (c *judgingCommand) add(cmd *cobra.Command) {
	c.out.Add(cmd)
	c.policy.add(cmd)
	c.image.add(cmd)
	addRequireSigned(cmd, &c.requireSigned)
}

// demanded is the verdict with --require-signed, if that was given.
func (c *judgingCommand) demanded(v verdict.Verdict) verdict.Verdict {
	if c.requireSigned {
		return v.RequireSigned()
	}
	return v
}

// run judges an image and writes what came of it: judge returns the verdict, and what writes it.
func (c *judgingCommand) run(cmd *cobra.Command, ref string, judge func(context.Context, *verify.Judge, verify.Image) (
	verdict.Verdict, func() error, error,
),
) error {
	image, err := c.image.image(ref)
	if err != nil {
		return err
	}
	p, err := c.policy.source()
	if err != nil {
		return writeInvalid(cmd, &c.out, ref, err)
	}
	defer p.Close()
	o := c.image.options()
	o.Offline = c.offline
	by, err := p.Judge(o)
	if err != nil {
		return cli.Usage(err)
	}
	defer by.Close()
	v, write, err := judge(cmd.Context(), by, image)
	if err != nil {
		return cli.Usage(err)
	}
	// What registries.d says of this image may be invalid where the rest is not.
	bad := v.Reason == verdict.RegistriesDInvalid || v.Reason == verdict.PolicyInvalid
	if !bad || c.out != "text" {
		if err := write(); err != nil {
			return err
		}
	}
	if bad {
		return cli.WithHint(cli.Usage(errors.New(v.Message)), v.Hint)
	}
	return cli.Exit(verdictExit(v.Answer))
}

// writeInvalid writes the verdict on a policy that doesn't load and ends with exit status 2; so does any other error.
func writeInvalid(cmd *cobra.Command, out *cli.Format, image string, err error) error {
	invalid, ok := errors.AsType[*verify.InvalidError](err)
	if !ok {
		return cli.Usage(err)
	}
	v := verify.Invalid(image, invalid)
	if *out != "text" {
		if err := cli.Write(*out, cmd.OutOrStdout(), v, writeVerdict); err != nil {
			return err
		}
	}
	return cli.WithHint(cli.Usage(err), v.Hint)
}

func verdictExit(a verdict.Answer) int {
	switch a {
	case verdict.Accept:
		return cli.ExitOK
	case verdict.Refuse:
		return cli.ExitRefused
	}
	return cli.ExitUnknown
}

func writeVerdict(w *cli.Screen, v verdict.Verdict) { writeOutcome(w, v.Image, v.Outcome) }

// writeOutcome writes the answer on what, why it was given and the next step.
func writeOutcome(w *cli.Screen, what string, o verdict.Outcome) {
	fmt.Fprintf(w, "%s %s\n  %s\n", o.Answer, what, o.Why())
	if o.Hint != "" {
		fmt.Fprintf(w, "  hint: %s\n", o.Hint)
	}
}
