package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/detached"
)

func newVerifySignatureCommand() *cobra.Command {
	var out cli.Format
	var keys []string
	var want detached.Wanted
	var expected string
	cmd := &cobra.Command{
		Use:   "verify-signature --key FILE [--digest DIGEST] [--reference REFERENCE] SIGNATURE",
		Short: "Judge one detached signature file",
		Long: `Judges one simple signature, as it lies in a lookaside: whether one of the keys made it, and, where they are given, whether
it is for that manifest digest and that reference. Runtimes give the same answer: what they don't read as a signature, an
armored one for example, is none here, and the JSON inside must be as exact as they want it. What the signature says it is for
is printed in any case; it is proven only if the answer is accept.

A reference is compared by the rule of policy.json that --identity names, matchRepoDigestOrExact if none: one with a tag must
be the signed one, one with a digest must have the same repository, and what was signed must have a tag or a digest too.
matchRepository compares repositories alone. --expected-identity REFERENCE is what "oc adm verify-image-signature" calls it:
the signed reference must be exactly that one, unless --identity names another rule.

Nothing is written anywhere: a status saved beside an image ("oc adm verify-image-signature --save") is what somebody once
said, not enforced by any runtime, and wrong as soon as a key is revoked.`,
		Example: "  nodetrust verify-signature --key RPM-GPG-KEY-redhat-release signature-1\n" +
			"  nodetrust verify-signature --key corp.asc --digest sha256:… --reference quay.io/corp/app:v1 signature-1",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(keys) == 0 {
				return cli.Usagef("--key is missing")
			}
			if expected != "" {
				if want.Reference != "" {
					return cli.Usagef("--expected-identity and --reference both name a reference")
				}
				if want.Reference = expected; want.Identity == "" {
					want.Identity = policy.MatchExact
				}
			}
			blob, err := bounded.ReadFile(args[0], verify.MaxSignatureSize)
			if err != nil {
				return cli.Usage(fmt.Errorf("reading signature: %w", err))
			}
			files, err := readKeys(keys)
			if err != nil {
				return err
			}
			d, err := detached.Verify(cmd.Context(), blob, files, want)
			if err != nil {
				return cli.Usage(err)
			}
			return cli.Finish(out, cmd.OutOrStdout(), d,
				func(w *cli.Screen, d detached.Result) { writeDetached(w, args[0], d) }, verdictExit(d.Answer))
		},
	}
	out.Add(cmd)
	addKeys(cmd, &keys, "one of which")
	cmd.Flags().StringVar(&want.Digest, "digest", "", "manifest `DIGEST` that must have been signed")
	cmd.Flags().StringVar(&want.Reference, "reference", "", "image `REFERENCE` that must have been signed")
	cmd.Flags().StringVar(&expected, "expected-identity", "", "image `REFERENCE` that must have been signed, exactly")
	cmd.Flags().StringVar(&want.Identity, "identity", "",
		"`RULE` that --reference is compared by: matchExact, matchRepoDigestOrExact (default) or matchRepository")
	cli.Complete(cmd, "identity", policy.MatchExact, policy.MatchRepoDigestOrExact, policy.MatchRepository)
	return cmd
}

func writeDetached(w *cli.Screen, file string, d detached.Result) {
	writeOutcome(w, file, d.Outcome)
	for _, f := range [][2]string{{"signer:", d.Signer}, {"digest:", d.Digest}, {"reference:", d.Reference}} {
		if f[1] != "" {
			fmt.Fprintf(w, "  %-10s %s\n", f[0], f[1])
		}
	}
	if d.Creator != "" {
		fmt.Fprintf(w, "  creator:   %q\n", d.Creator)
	}
	if d.Timestamp != nil {
		fmt.Fprintf(w, "  timestamp: %s\n", time.Unix(*d.Timestamp, 0).UTC().Format(time.RFC3339))
	}
}
