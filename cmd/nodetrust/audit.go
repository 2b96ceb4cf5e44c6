package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/audit"
	"github.com/nodetrust/nodetrust/audit/page"
	"github.com/nodetrust/nodetrust/templates"
	"github.com/nodetrust/nodetrust/trust"
	"github.com/nodetrust/nodetrust/trust/key"
	"github.com/nodetrust/nodetrust/verdict"
	"github.com/nodetrust/nodetrust/verify"
)

type auditOptions struct {
	from    []string
	out     auditFormat
	policy  policyFlags
	image   imageFlags
	perHost int
}

func newAuditCommand() *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Say which images in use a policy would refuse",
		Long: `Judges every image in use by a candidate policy, as verify does one: which would be accepted, which refused and why, and
which could not be judged. Nothing is changed or pulled. Images that need the same are one group, with what to do; those
without which a cluster can't go on (release payload, pause image, CNI, control plane, nodetrust-agent) are named first.

--images-from says where the images are read, and may be given several times:

  FILE    one reference a line; behind it, where known: digest=sha256:… by=WHO role=ROLE; - is stdin

Each image is judged as it would be pulled if its pod were created anew: a tag as what it points to now, even where a
node still runs what it pointed to before; the report says so.

JSON is {"summary": …, "images": [verdicts with "usedBy"]}. Exit status 3 if anything would be refused; 4 if anything is
unknown, or the audit was interrupted, and nothing refused.`,
		Example: `  nodetrust audit --config trust.yaml --images-from images.txt
  kubectl get pods -A -o jsonpath='{..image}' | tr ' ' '\n' | nodetrust audit --config trust.yaml --images-from - -o html > audit.html`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&o.from, "images-from", nil, "where to read images: `SOURCE` is a FILE or - (repeatable)")
	o.out.add(cmd)
	o.policy.add(cmd)
	o.image.add(cmd)
	_ = fl.MarkHidden("as")
	fl.IntVar(&o.perHost, "per-host", verify.DefaultPerHost, "at most `N` requests in flight to one host")
	return cmd
}

func (o *auditOptions) run(cmd *cobra.Command) error {
	switch {
	case o.image.as != "":
		return usagef("--as goes with one image; an audit judges images as what they are")
	case o.perHost < 1 || o.perHost > 256:
		return usagef("--per-host %d: must be 1 to 256", o.perHost)
	}
	sources, closeSources, err := o.sources(cmd)
	if err != nil {
		return err
	}
	defer closeSources()
	judge, closeJudge, err := o.judge()
	if err != nil {
		return err
	}
	defer closeJudge()

	ctx := cmd.Context()
	inventory, err := audit.Collect(ctx, verify.Canonical, sources...)
	if err != nil && (inventory.Len() == 0 || ctx.Err() != nil || o.onlyFiles()) {
		return o.collectError(err)
	}
	if inventory.Len() == 0 && o.onlyFiles() {
		return usagef("--images-from %s: holds no image", strings.Join(o.from, ", "))
	}
	canary, err := canaryKey()
	if err != nil {
		return err
	}
	bar := newAuditBar(cmd.ErrOrStderr())
	// More images than requests: while some are with gpg, others ask.
	r := audit.Run(ctx, inventory, judge, audit.Options{PerHost: 4 * o.perHost, CanaryKey: canary, Progress: bar.show})
	bar.clear()
	r.Summary.Policy, r.Summary.Desired, r.Summary.Mechanism = o.policyName(), desiredDigest(o.policy.files), verify.Mechanism
	if err := o.out.write(cmd.OutOrStdout(), r); err != nil {
		return err
	}
	return silent(verdictExit(r.Answer()))
}

// collectError is bad input where a file is to blame.
func (o *auditOptions) collectError(err error) error {
	if o.onlyFiles() {
		return usageErr(err)
	}
	return err
}

// canaryKey is the fingerprint of the key that refuse-canaries are carved out with.
func canaryKey() (string, error) {
	f, err := key.Parse(templates.CanaryKey)
	if err != nil || len(f.Keys) == 0 {
		return "", fmt.Errorf("parsing the canary key: %w", err)
	}
	return f.Keys[0].Fingerprint, nil
}

// judge opens the policy. One that doesn't load is the verdict on each image.
func (o *auditOptions) judge() (audit.Judge, func(), error) {
	p, err := o.policy.source()
	var bad *verify.InvalidError
	if errors.As(err, &bad) {
		return invalidPolicy{bad}, func() {}, nil
	}
	if err != nil {
		return nil, nil, usageErr(err)
	}
	opts := o.image.options()
	if err := verify.CheckOptions(opts); err != nil {
		p.Close()
		return nil, nil, usageErr(err)
	}
	s := verify.NewSession(p, opts, verify.SessionOptions{PerHost: o.perHost})
	return s, func() { s.Close(); p.Close() }, nil
}

// invalidPolicy judges by a policy that doesn't load.
type invalidPolicy struct{ err *verify.InvalidError }

func (p invalidPolicy) Image(_ context.Context, image string) (verdict.Verdict, error) {
	return verify.Invalid(image, p.err), nil
}

// auditFormat is -o of audit: that of other commands, and html.
type auditFormat struct {
	outputFlag
	html bool
}

func (f *auditFormat) add(cmd *cobra.Command) {
	f.outputFlag = "text"
	cmd.Flags().VarP(f, "output", "o", "output format: text, json, yaml or html")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"text", "json", "yaml", "html"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *auditFormat) Set(s string) error {
	f.html = s == "html"
	if f.html {
		f.outputFlag = "html"
		return nil
	}
	if f.outputFlag.Set(s) != nil {
		return errors.New("must be text, json, yaml or html")
	}
	return nil
}

func (f *auditFormat) write(w io.Writer, r *audit.Report) error {
	if f.html {
		return page.Write(w, r)
	}
	return f.outputFlag.write(w, r, func(w io.Writer) error { return writeAudit(w, r) })
}

// onlyFiles is true if no source but files and stdin was asked for.
func (o *auditOptions) onlyFiles() bool {
	return len(o.from) > 0 && !slices.ContainsFunc(o.from, isNoFile)
}

// policyName is what was judged by, as the user named it.
func (o *auditOptions) policyName() string {
	switch {
	case o.policy.config != "":
		return o.policy.config
	case o.policy.policy != "":
		return o.policy.policy
	case o.policy.root != "":
		return "of the host below " + o.policy.root
	}
	return "of this host"
}

// desiredDigest is the digest of what a trust config renders to; "" if there is none.
func desiredDigest(files trust.FileSet) string {
	if files == nil {
		return ""
	}
	return files.Digest()
}
