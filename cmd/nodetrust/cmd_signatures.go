package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/lookaside"
	"github.com/nodetrust/nodetrust/internal/release"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
)

type signaturesBundle struct {
	out          cli.Format
	policy       policyFlags
	image        imageFlags
	sources      sourceFlags
	release      releaseFlags
	to, target   string
	mirrors      string
	toConfigMaps string
	refresh      bool
	platforms    []string

	config *trust.Config // of --config; nil without it
}

// bundled is the JSON of signatures bundle.
type bundled struct {
	lookaside.Result
	// Lookaside is the URL that nodes use the tree by.
	Lookaside  string               `json:"lookaside"`
	Registries []lookaside.Registry `json:"registries"`
}

func newSignaturesBundleCommand(env verify.Env) *cobra.Command {
	b := signaturesBundle{policy: policyFlags{env: env}, sources: sourceFlags{environ: env.Environ}}
	cmd := &cobra.Command{
		Use:   "bundle --to DIR [IMAGE…]",
		Short: "Collect signatures of images for nodes to use as a lookaside",
		Long: `Reads the signatures of images from the lookasides of a policy, and writes them to DIR as a lookaside of files: for every
platform of an image, and under the path of every place from which nodes may pull it: its own repository, and mirrors, which
are those of trust.yaml and of --mirrors, a registries.conf of the nodes. Copied to the nodes, DIR serves as file:// lookaside
where no web server of signatures can be reached; it can also be put on a web server inside. Accept-canaries of --config are
among the images, for nodes are to prove with them what they enforce.

Then each image is judged by the same policy with nothing but the signatures in DIR: of a multi-arch image every instance that a
runtime may choose, or those of --platform. What has the platform unknown/unknown, as attestations of a build have, is chosen
by none. Only if all are accepted the bundle is complete; else the instances that aren't are named. sigstore signatures lie in
registries and are mirrored together with images: they are judged as they are there.

Signatures of OpenShift release images come from --store and --signatures-from as for release verify; --to-configmaps writes
them as ConfigMaps too, for the Cluster Version Operator of a cluster without a network.

DIR may hold an earlier bundle, also one that was interrupted: signatures are added, none is removed, and images named by
digest that were read before are not read again, unless --refresh is given. Last comes what trust.yaml needs for using DIR.

Status 3 if an image would be refused with what is in DIR, 4 if that can't be told.`,
		Example: `  nodetrust signatures bundle --config trust.yaml --images-from cluster --to bundle --target /var/lib/nodetrust/sigstore
  nodetrust signatures bundle --config trust.yaml --mirrors registries.conf --to bundle registry.redhat.io/ubi9/ubi:9.4`,
		RunE: func(cmd *cobra.Command, args []string) error { return b.run(cmd, args) },
	}
	fl := cmd.Flags()
	b.out.Add(cmd)
	b.policy.add(cmd)
	b.image.addServers(cmd)
	b.image.addJudging(cmd)
	fl.StringArrayVar(&b.platforms, "platform", nil,
		"`OS/ARCH[/VARIANT]` for which a multi-arch image must be accepted (repeatable; default all of them)")
	_ = fl.MarkHidden("as")
	b.sources.add(cmd)
	addSignatureStores(cmd, &b.release)
	fl.StringVar(&b.to, "to", "", "`DIR` to write to")
	fl.StringVar(&b.target, "target", "", "absolute `PATH` at which DIR will be on the nodes (default DIR)")
	fl.StringVar(&b.mirrors, "mirrors", "", "registries.conf `FILE` of the nodes: signatures are laid out for its mirrors too")
	fl.StringVar(&b.toConfigMaps, "to-configmaps", "", "write the release signatures as ConfigMaps to `FILE`")
	fl.BoolVar(&b.refresh, "refresh", false, "read all images again")
	return cmd
}

func (b *signaturesBundle) run(cmd *cobra.Command, args []string) error {
	if err := b.check(args); err != nil {
		return err
	}
	if b.policy.config != "" {
		var err error
		if b.config, err = loadTrust(b.policy.config, nil); err != nil {
			return err
		}
	}
	images, err := b.images(cmd, args)
	if err != nil {
		return err
	}
	b.release.cluster = b.sources.cluster
	releases, err := b.release.open(cmd.Context(), release.DefaultStores)
	if err != nil {
		return err
	}
	p, err := b.policy.source()
	if err != nil {
		return cli.Usage(err)
	}
	defer p.Close()
	for _, p := range append([]string{""}, b.platforms...) {
		o := b.image.options()
		o.Platform = p
		if err := o.Check(); err != nil {
			return cli.Usage(err)
		}
	}
	mirrors, closeMirrors, err := b.openMirrors()
	if err != nil {
		return err
	}
	defer closeMirrors()
	tree, err := lookaside.OpenTree(b.to)
	if err != nil {
		return err
	}
	defer tree.Close()
	bar := cli.NewBar(cmd.ErrOrStderr())
	result, found, err := lookaside.Collect(cmd.Context(), tree, lookaside.Options{
		Images: images, Policy: p, Image: b.image.options(), Platforms: b.platforms, Places: mirrors.Places,
		Releases:  releases,
		IsRelease: b.isRelease, Refresh: b.refresh,
		Progress: func(done, total int) { showProgress(bar, audit.Progress{Done: done, Total: total}) },
	})
	bar.Clear()
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil {
		return cli.WithHint(err, "the same command goes on with what is in "+b.to)
	}
	if err := b.writeConfigMaps(found); err != nil {
		return err
	}
	url := lookaside.URL(b.target)
	out := bundled{Result: result, Lookaside: url, Registries: result.Registries(url)}
	return cli.Finish(b.out, cmd.OutOrStdout(), out,
		func(w *cli.Screen, out bundled) { writeBundle(w, b.to, out) }, verdictExit(result.Answer))
}

func (b *signaturesBundle) check(args []string) error {
	switch {
	case b.to == "":
		return cli.Usagef("--to is missing")
	case len(args) == 0 && len(b.sources.from) == 0:
		return cli.Usagef("no image is named: give IMAGE or --images-from")
	case b.image.as != "":
		return cli.Usagef("--as goes with one image; a bundle is of images as what they are")
	case b.target == "":
		var err error
		b.target, err = filepath.Abs(b.to)
		return err
	case !filepath.IsAbs(b.target):
		return cli.Usagef("--target %s: must be an absolute path", b.target)
	}
	return nil
}

// images are those of the arguments and of --images-from, each once. A source that could not be read to its end is an
// error: a bundle of a part would be taken for complete.
func (b *signaturesBundle) images(cmd *cobra.Command, args []string) ([]string, error) {
	seen := map[string]bool{}
	for _, a := range args {
		name, err := locate.Canonical(strings.TrimPrefix(a, "docker://"))
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("image %q: %w", a, err))
		}
		seen[name] = true
	}
	list, err := b.sources.open(cmd, b.policy.root)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		err := s.Source.Uses(cmd.Context(), func(u audit.Use) error {
			name, err := locate.Canonical(strings.TrimPrefix(u.Image, "docker://"))
			if err != nil {
				warn(cmd, fmt.Errorf("image %q of %s: no runtime can pull this: %w", u.Image, u.By, err))
				return nil
			}
			seen[name] = true
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("listing images of %s: %w", s.Name, err)
		}
	}
	if len(seen) == 0 {
		return nil, cli.Usagef("there is no image")
	}
	if b.config != nil {
		for _, c := range b.config.Canaries {
			if c.Expect == verdict.Accept {
				seen[c.Image] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// openMirrors returns the mirrors that nodes may pull from. The returned function closes them.
func (b *signaturesBundle) openMirrors() (m lookaside.Mirrors, closeAll func(), err error) {
	m.Config = b.config
	if b.mirrors == "" {
		return m, func() {}, nil
	}
	if _, err := os.Stat(b.mirrors); err != nil {
		return m, nil, cli.Usage(fmt.Errorf("reading --mirrors: %w", err))
	}
	m.Nodes, err = verify.Open(verify.Source{AcceptAll: true, RegistriesConf: b.mirrors}, verify.Env{})
	if err != nil {
		return m, nil, cli.Usage(fmt.Errorf("--mirrors: %w", err))
	}
	return m, func() { m.Nodes.Close() }, nil
}

// isRelease tells repositories of OpenShift releases. Red Hat's stores are not asked for what others name "release",
// but where somebody says where signatures are, they are.
func (b *signaturesBundle) isRelease(repository string) bool {
	return repository == release.Repository ||
		len(b.release.stores)+len(b.release.signaturesFrom) > 0 && release.IsMirror(repository)
}

func (b *signaturesBundle) writeConfigMaps(found lookaside.Releases) error {
	if b.toConfigMaps == "" {
		return nil
	}
	if len(found) == 0 {
		return errors.New("--to-configmaps: no signature of a release was found")
	}
	manifests, err := release.Manifests(found)
	if err != nil {
		return err
	}
	if err := replaceFile(b.toConfigMaps, manifests); err != nil {
		return fmt.Errorf("writing --to-configmaps: %w", err)
	}
	return nil
}

func writeBundle(w *cli.Screen, dir string, b bundled) {
	signatures, added := 0, 0
	var bad []verdict.Verdict
	for _, i := range b.Images {
		signatures, added = signatures+i.Signatures, added+i.Added
		if i.Answer != verdict.Accept {
			bad = append(bad, i.Verdict)
		}
	}
	how := fmt.Sprintf("complete: %d images are accepted", len(b.Images))
	if len(bad) > 0 {
		how = fmt.Sprintf("incomplete: %d of %d images are not accepted", len(bad), len(b.Images))
	}
	fmt.Fprintf(w, "%s with the %d signatures in %s (%d files new)\n", how, signatures, dir, added)
	for _, v := range bad {
		fmt.Fprintln(w)
		writeVerdict(w, v)
	}
	if len(b.Registries) == 0 {
		return
	}
	fmt.Fprint(w, "\n# for spec.registries of trust.yaml: these lookasides make nodes use the directory\n")
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	_ = enc.Encode(map[string]any{"registries": b.Registries})
	_ = enc.Close()
}
