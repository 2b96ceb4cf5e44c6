package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/audit/cache"
	"github.com/nodetrust/nodetrust/internal/audit/page"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/release"
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
	opts := o.image.options()
	opts.PerHost = o.perHost
	by, err := o.policy.judge(opts)
	if err != nil {
		return nil, err
	}
	defer by.Close()
	limitMemory(max(1, inventory.Len()))
	if kept := o.cache.open(by.judge, cmd.ErrOrStderr()); kept != nil {
		run.Cache, run.StillCurrent = kept, by.stillCurrent
		defer func() {
			if err := kept.Close(cmd.Context().Err() == nil); err != nil {
				cli.Say(cmd.ErrOrStderr(), cli.Warning, "%v", fmt.Errorf("keeping verdicts: %w", err))
			}
		}()
	}
	return audit.Run(cmd.Context(), inventory, by, run), nil
}

// canaryKey is the fingerprint of the key that refuse-canaries are carved out with.
func canaryKey() (string, error) {
	f, err := key.Parse(templates.CanaryKey)
	if err != nil {
		return "", fmt.Errorf("parsing the canary key: %w", err)
	}
	return f.Keys[0].Fingerprint, nil
}

// policyName is what was judged by, as the user named it.
func (o *auditOptions) policyName() string {
	if o.policy.root != "" {
		return cmp.Or(o.policy.config, o.policy.policy, "of the host below "+o.policy.root)
	}
	return cmp.Or(o.policy.config, o.policy.policy, "of this host")
}

// cacheFlags say where verdicts are kept between audits.
type cacheFlags struct {
	off bool
	dir string
	age time.Duration
}

func (f *cacheFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.off, "no-cache", false, "judge all images anew, and keep no verdict")
	fl.StringVar(&f.dir, "cache-dir", "", "`DIR` for verdicts (default nodetrust/audit in the user's cache directory)")
	fl.DurationVar(&f.age, "cache-age", cache.DefaultAge,
		"how long an accept holds, at most 24h; a refusal is only used to go on after an interruption")
}

// check completes the directory: below caches, unless it was named.
func (f *cacheFlags) check(caches string) error {
	switch {
	case f.off && f.dir != "":
		return cli.Usagef("--no-cache and --cache-dir contradict each other")
	case f.age <= 0 || f.age > cache.MaxAge:
		return cli.Usagef("--cache-age %s: must be above 0 and at most 24h", f.age)
	}
	if !f.off && f.dir == "" {
		f.off = caches == "" // no home, no cache
		f.dir = filepath.Join(caches, "nodetrust", "audit")
	}
	return nil
}

// open opens the cache for what judges. Without one it says why, and the audit goes on without. A policy that doesn't
// load has no judge, and its verdicts are not kept.
func (f *cacheFlags) open(j *verify.Judge, notes io.Writer) *cache.Cache {
	if f.off || j == nil {
		return nil
	}
	key, until, err := j.Fingerprint(time.Now())
	if err == nil {
		var c *cache.Cache
		if c, err = cache.Open(f.dir, key, cache.Options{Age: f.age, Until: until}); err == nil {
			return c
		}
	}
	cli.Say(notes, cli.Warning, "%v", fmt.Errorf("judging without the cache of verdicts: %w", err))
	return nil
}

// auditReleases are the OpenShift releases whose payload counts as vouched for.
type auditReleases struct {
	names   []string
	release releaseFlags
}

func (f *auditReleases) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.names, "release", nil, "OpenShift `RELEASE` that vouches for its payload if release verify accepts it (repeatable)")
	fl.StringArrayVar(&f.release.keys, "release-key", nil,
		"public key `FILE` that must have signed the releases; of several every one must (repeatable)")
	addSignatureStores(cmd, &f.release)
}

func (f *auditReleases) check() error {
	switch {
	case len(f.names) > 0 && len(f.release.keys) == 0:
		return cli.Usagef("--release needs --release-key")
	case len(f.names) == 0 && (len(f.release.keys) > 0 || len(f.release.stores) > 0 || len(f.release.signaturesFrom) > 0):
		return cli.Usagef("--release-key, --store and --signatures-from go with --release")
	}
	return nil
}

// verify judges the releases. One that is not accepted vouches for nothing, which is said on stderr and in the report.
func (f *auditReleases) verify(cmd *cobra.Command, o *auditOptions) (vouched func(string) string,
	out []audit.ReleaseVerdict, err error,
) {
	if len(f.names) == 0 {
		return nil, nil, nil
	}
	f.release.cluster = o.source.cluster
	image := o.image.options()
	image.Timeout = 0 // one image's; a release has hundreds of MiB
	from := verify.Source{RegistriesConf: o.policy.registriesConf}
	by, closeAll, err := f.release.judge(cmd.Context(), from, o.policy.env, image)
	if err != nil {
		return nil, nil, err
	}
	defer closeAll()
	var results []release.Result
	for _, name := range f.names {
		r, err := release.Verify(cmd.Context(), name, by)
		if err != nil {
			return nil, nil, cli.Usage(fmt.Errorf("--release %s: %w", name, err))
		}
		if r.Answer != verdict.Accept {
			cli.Say(cmd.ErrOrStderr(), cli.Warning, "release %s vouches for nothing: %s (%s): %s",
				outside.Name(r.Release), r.Answer, r.Reason, outside.Text(r.Message))
		}
		results = append(results, r)
		r.Hint = ""
		out = append(out, audit.ReleaseVerdict{Release: r.Release, Outcome: r.Outcome})
	}
	return func(digest string) string { return release.Vouching(results, digest) }, out, nil
}
