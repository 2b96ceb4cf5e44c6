package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/audit/page"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/templates"
)

type auditOptions struct {
	source  sourceFlags
	out     cli.Format
	policy  policyFlags
	image   imageFlags
	cache   cacheFlags
	release auditReleases
	perHost int
	// requireSigned refuses what no signature stands behind.
	requireSigned bool
}

func newAuditCommand(env verify.Env) *cobra.Command {
	o := auditOptions{policy: policyFlags{env: env}, source: sourceFlags{environ: env.Environ}}
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Say which images in use a policy would refuse",
		Long: `Judges every image in use by a candidate policy, as verify does one: which would be accepted, which refused and why, and
which could not be judged. Nothing is changed or pulled. Images that need the same are one group, with what to do; those
without which a cluster can't go on (release payload, pause image, CNI, control plane, nodetrust-agent) are named first.

--images-from says where the images are read, and may be given several times:

  cluster      what the pods of a cluster run, and what nodes report to have in store
  cri          what the containers of this host's CRI runtime run, its pause image, and its store
  static-pods  the manifests of this host, or of the one below --root
  podman       what podman's containers run, and its store
  catalog:DIR  the bundles of a file-based operator catalog, with their related images
  FILE, -      one reference a line, of a file or of stdin; behind it, where known: digest=sha256:… by=WHO role=ROLE

Without it: the cluster, if a kubeconfig (or the pod's ServiceAccount) reaches one; else cri or podman of this host.

Each image is judged as it would be pulled if its pod were created anew: a tag as what it points to now, even where a
node still runs what it pointed to before; the report says so.

The first line is the coverage: how many images are accepted because of a signature, how many because the policy asks for none,
how many would be refused, and how many could not be judged. With --require-signed those that nobody asks of are refused too
(reason NotSignedFor), unless a verified --release vouches for them.

JSON is {"summary": …, "images": [verdicts with "usedBy"]}. Exit status 3 if anything would be refused; 4 if anything is
unknown, or the audit was interrupted, and nothing refused.`,
		Example: `  nodetrust audit --config trust.yaml
  nodetrust audit --config trust.yaml --images-from cluster --images-from static-pods -o html > audit.html
  nodetrust audit --root / --images-from cri
  nodetrust audit --policy policy.json --registries-d registries.d --images-from images.txt -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	fl := cmd.Flags()
	o.source.add(cmd)
	o.out.Add(cmd, "html")
	o.policy.add(cmd)
	o.image.add(cmd)
	o.cache.add(cmd)
	o.release.add(cmd)
	_ = fl.MarkHidden("as")
	addRequireSigned(cmd, &o.requireSigned)
	fl.IntVar(&o.perHost, "per-host", verify.DefaultPerHost, "at most `N` requests in flight to one host")
	return cmd
}

func (o *auditOptions) run(cmd *cobra.Command) error {
	switch {
	case o.image.as != "":
		return cli.Usagef("--as goes with one image; an audit judges images as what they are")
	case o.perHost < 1 || o.perHost > 256:
		return cli.Usagef("--per-host %d: must be 1 to 256", o.perHost)
	}
	if err := errors.Join(o.release.check(), o.cache.check(o.policy.env.CacheDir)); err != nil {
		return cli.Usage(err)
	}
	inventory, err := o.source.collect(cmd, o.policy.root)
	if err != nil {
		return err
	}
	r, err := o.judge(cmd, inventory)
	if err != nil {
		return err
	}
	code := verdictExit(r.Answer())
	if o.out == "html" {
		return cmp.Or(page.Write(cmd.OutOrStdout(), outside.Clean(r)), cli.Exit(code))
	}
	return cli.Finish(o.out, cli.NewScreen(cmd.OutOrStdout()), r, writeAudit, code)
}

// judge opens the policy and judges all images. A policy that doesn't load is the verdict on each of them.
func (o *auditOptions) judge(cmd *cobra.Command, inventory *audit.Inventory) (r *audit.Report, err error) {
	canary, err := canaryKey()
	if err != nil {
		return nil, err
	}
	vouched, releases, err := o.release.verify(cmd, o)
	if err != nil {
		return nil, err
	}
	bar := cli.NewBar(cmd.ErrOrStderr())
	// The judge lets twice as many images in as requests: while some are with gpg, others ask.
	run := audit.Options{
		PerHost: 2 * o.perHost, Total: 16 * o.perHost, CanaryKey: canary, Vouched: vouched,
		RequireSigned: o.requireSigned,
		Progress:      func(p audit.Progress) { showProgress(bar, p) },
	}
	defer func() {
		bar.Clear()
		if err == nil {
			r.Summary.Policy, r.Summary.Mechanism, r.Summary.Releases = o.policyName(), mechanism.Name, releases
			if o.policy.files != nil {
				r.Summary.Desired = o.policy.files.Digest()
			}
		}
	}()
	p, err := o.policy.source()
	var bad *verify.InvalidError
	if errors.As(err, &bad) {
		return audit.Run(cmd.Context(), inventory, byName{invalid: bad}, run), nil
	}
	if err != nil {
		return nil, cli.Usage(err)
	}
	defer p.Close()
	limitMemory(max(1, inventory.Len()))
	opts := o.image.options()
	opts.PerHost = o.perHost
	j, err := p.Judge(opts)
	if err != nil {
		return nil, cli.Usage(err)
	}
	defer j.Close()
	if kept := o.cache.open(j, cmd.ErrOrStderr()); kept != nil {
		run.Cache = kept
		defer func() {
			if err := kept.Close(cmd.Context().Err() == nil); err != nil {
				cli.Say(cmd.ErrOrStderr(), cli.Warning, "%v", fmt.Errorf("keeping verdicts: %w", err))
			}
		}()
	}
	return audit.Run(cmd.Context(), inventory, byName{judge: j}, run), nil
}

// canaryKey is the fingerprint of the key that refuse-canaries are carved out with.
func canaryKey() (string, error) {
	f, err := key.Parse(templates.CanaryKey)
	if err != nil {
		return "", fmt.Errorf("parsing the canary key: %w", err)
	}
	return f.Keys[0].Fingerprint, nil
}

// byName judges images by their names: by a policy that doesn't load if invalid is set, else by judge.
type byName struct {
	judge   *verify.Judge
	invalid *verify.InvalidError
}

// Image returns the verdict on the image of a name. An error means that the name can't be used.
func (j byName) Image(ctx context.Context, name string) (verdict.Verdict, error) {
	if j.invalid != nil {
		return verify.Invalid(name, j.invalid), nil
	}
	image, err := verify.ParseImage(name)
	if err != nil {
		return verdict.Verdict{}, err
	}
	return j.judge.Verdict(ctx, image)
}

// policyName is what was judged by, as the user named it.
func (o *auditOptions) policyName() string {
	if o.policy.root != "" {
		return cmp.Or(o.policy.config, o.policy.policy, "of the host below "+o.policy.root)
	}
	return cmp.Or(o.policy.config, o.policy.policy, "of this host")
}
