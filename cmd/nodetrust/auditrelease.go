package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/release"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

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
	keys, err := readVerifiers(f.release.keys)
	if err != nil {
		return nil, nil, err
	}
	f.release.cluster = o.source.cluster
	stores, err := f.release.open(cmd.Context(), release.DefaultStores)
	if err != nil {
		return nil, nil, err
	}
	p, err := verify.Open(verify.Source{AcceptAll: true, RegistriesConf: o.policy.registriesConf}, o.policy.env)
	if err != nil {
		return nil, nil, cli.Usage(err)
	}
	defer p.Close()
	image := o.image.options()
	image.Timeout = 0 // one image's; a release has hundreds of MiB
	j, err := p.Judge(image)
	if err != nil {
		return nil, nil, cli.Usage(err)
	}
	defer j.Close()
	var results []release.Result
	for _, name := range f.names {
		r, err := release.Verify(cmd.Context(), name, release.Options{Keys: keys, Sources: stores, Judge: j})
		if err != nil {
			return nil, nil, cli.Usage(fmt.Errorf("--release %s: %w", name, err))
		}
		if r.Answer != verdict.Accept {
			cli.Say(cmd.ErrOrStderr(), cli.Warning, "release %s vouches for nothing: %s (%s): %s",
				outside.Name(r.Release), r.Answer, r.Reason, outside.Text(r.Message))
		}
		results = append(results, r)
		out = append(out, audit.ReleaseVerdict{
			Release: r.Release,
			Outcome: verdict.Outcome{Answer: r.Answer, Reason: r.Reason, Message: r.Message},
		})
	}
	return func(digest string) string {
		for i := range results {
			if name := results[i].Vouches(digest); name != "" {
				return name
			}
		}
		return ""
	}, out, nil
}
