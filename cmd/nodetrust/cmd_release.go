package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/release"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// maxConfigMaps bounds a file of ConfigMaps, in bytes.
const maxConfigMaps = 16 << 20

// releaseTimeout is the default deadline of a release: its image has some hundred MiB, of which some are read.
const releaseTimeout = "5m"

// releaseFlags say whose signatures of releases count, and where they are.
type releaseFlags struct {
	keys           []string
	stores         []string
	signaturesFrom []string
	cluster        cluster.Config
}

// open makes the sources: ConfigMaps first, because they are at hand. Without any given they are defaults.
func (f *releaseFlags) open(ctx context.Context, defaults []string) ([]release.Source, error) {
	var out []release.Source
	for _, from := range f.signaturesFrom {
		maps, err := f.configMaps(ctx, from)
		if err != nil {
			return nil, err
		}
		out = append(out, maps)
	}
	stores := f.stores
	if len(stores) == 0 && len(out) == 0 {
		stores = defaults
	}
	for _, location := range stores {
		s, err := release.OpenStore(location)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--store: %w", err))
		}
		out = append(out, s)
	}
	return out, nil
}

func (f *releaseFlags) configMaps(ctx context.Context, from string) (*release.ConfigMaps, error) {
	if from != "live" {
		b, err := bounded.ReadFile(from, maxConfigMaps)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("reading --signatures-from: %w", err))
		}
		maps, err := release.ParseConfigMaps(from, b)
		if err != nil {
			return nil, cli.Usage(err)
		}
		return maps, nil
	}
	client, err := openCluster(f.cluster)
	if err != nil {
		return nil, err
	}
	list, err := client.ConfigMaps(ctx, release.ConfigMapNamespace, release.ConfigMapLabel)
	if err != nil {
		return nil, cli.WithHint(err, "the API server is "+client.Server())
	}
	var maps []release.ConfigMap
	for _, m := range list {
		var c release.ConfigMap
		c.Metadata.Name, c.Metadata.Namespace, c.Metadata.Labels = m.Metadata.Name, m.Metadata.Namespace, m.Metadata.Labels
		c.BinaryData = m.BinaryData
		maps = append(maps, c)
	}
	return release.NewConfigMaps(client.Server(), maps), nil
}

// judge returns what releases are judged with: the keys, the places of signatures, and a judge that reads the release
// image as the source says. The caller calls closeAll.
func (f *releaseFlags) judge(ctx context.Context, s verify.Source, env verify.Env, o verify.Options) (
	by release.Options, closeAll func(), err error,
) {
	for _, path := range f.keys {
		b, err := bounded.ReadFile(path, trust.MaxKeyFile)
		if err != nil {
			return by, nil, cli.Usage(fmt.Errorf("reading --key: %w", err))
		}
		by.Keys = append(by.Keys, release.Key{Name: path, Data: b})
	}
	if by.Sources, err = f.open(ctx, release.DefaultStores); err != nil {
		return by, nil, err
	}
	s.AcceptAll = true
	p, err := verify.Open(s, env)
	if err != nil {
		return by, nil, cli.Usage(err)
	}
	if by.Judge, err = p.Judge(o); err != nil {
		p.Close()
		return by, nil, cli.Usage(err)
	}
	return by, func() { by.Judge.Close(); p.Close() }, nil
}

type releaseVerify struct {
	out            cli.Format
	image          imageFlags
	release        releaseFlags
	registriesConf string
	noPayload      bool
	toPolicy       string
	env            verify.Env
}

func newReleaseVerifyCommand(env verify.Env) *cobra.Command {
	r := releaseVerify{env: env}
	cmd := &cobra.Command{
		Use:   "verify --key FILE RELEASE",
		Short: "Judge a release by its signatures, and list what it vouches for",
		Long: `Judges a release image as the Cluster Version Operator does it before an update: signatures of its digest are looked for in
signature stores (STORE/sha256=HEX/signature-N) and in ConfigMaps, and every --key must have signed; a file with several keys
is satisfied by any of them. What the operator doesn't look at is compared too: the signed reference must be that of the
release, or --as. Of a release that is named by tag it must be that very tag.

Then the list of the payload is read out of the release image, each layer of it compared with its digest: every image in the
list is trusted as the release is. These images have no GPG signature of their own; with --to-policy a scope for each digest
is written, so that a cluster that refuses everything else can be installed and updated. FILE.json is a policy.json, any other
a trust.yaml whose registries are to be taken over into yours.

RELEASE is REFERENCE, dir:PATH or oci:PATH. A release in a mirror of another name needs --as; mirrors of registries.conf don't.`,
		Example: `  nodetrust release verify --key RPM-GPG-KEY-redhat-release quay.io/openshift-release-dev/ocp-release:4.15.0-x86_64
  nodetrust release verify --key RPM-GPG-KEY-redhat-release --to-policy release.yaml quay.io/openshift-release-dev/ocp-release@sha256:…
  nodetrust release verify --key RPM-GPG-KEY-redhat-release --signatures-from live --as quay.io/openshift-release-dev/ocp-release mirror.corp:5000/ocp/release@sha256:…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd, args[0]) },
	}
	fl := cmd.Flags()
	r.out.Add(cmd)
	r.image.add(cmd)
	fl.Lookup("as").Usage = "`REFERENCE` that must have been signed (default that of RELEASE; of dir: and oci: quay.io/openshift-release-dev/ocp-release)"
	fl.Lookup("timeout").Usage = "deadline of the whole"
	fl.Lookup("timeout").DefValue = releaseTimeout
	_ = fl.Lookup("timeout").Value.Set(releaseTimeout)
	for _, name := range []string{"max-signatures", "max-signature-size"} {
		_ = fl.MarkHidden(name)
	}
	addKeys(cmd, &r.release.keys, "every one of which")
	addSignatureStores(cmd, &r.release)
	addCluster(cmd, &r.release.cluster)
	addRegistriesConf(cmd, &r.registriesConf)
	fl.BoolVar(&r.noPayload, "no-payload", false,
		"judge the signatures only: a release that is named by digest is not read")
	fl.StringVar(&r.toPolicy, "to-policy", "", "write scopes for the digests of the release to `FILE`: *.json is a policy.json, any other a trust.yaml")
	return cmd
}

func (r *releaseVerify) run(cmd *cobra.Command, name string) error {
	limitMemory(0)
	switch {
	case len(r.release.keys) == 0:
		return cli.Usagef("--key is missing")
	case r.noPayload && r.toPolicy != "":
		return cli.Usagef("--to-policy needs the payload, which --no-payload leaves out")
	}
	o := r.image.options()
	by, closeAll, err := r.release.judge(cmd.Context(), verify.Source{RegistriesConf: r.registriesConf}, r.env, o)
	if err != nil {
		return err
	}
	defer closeAll()
	by.As, by.Timeout, by.SignatureOnly = r.image.as, o.Timeout, r.noPayload
	result, err := release.Verify(cmd.Context(), name, by)
	if err != nil {
		return cli.Usage(err)
	}
	if r.toPolicy != "" && result.Answer == verdict.Accept {
		if err := r.writePolicy(result); err != nil {
			return err
		}
	}
	return cli.Finish(r.out, cli.NewScreen(cmd.OutOrStdout()), result, writeRelease, verdictExit(result.Answer))
}

// writePolicy writes the file of --to-policy, whole or not at all.
func (r *releaseVerify) writePolicy(result release.Result) error {
	write := result.TrustConfig
	if filepath.Ext(r.toPolicy) == ".json" {
		write = result.Policy
	}
	b, err := write()
	if err != nil {
		return err
	}
	if err := replaceFile(r.toPolicy, b); err != nil {
		return fmt.Errorf("writing --to-policy: %w", err)
	}
	return nil
}

func writeRelease(s *cli.Screen, r release.Result) {
	writeOutcome(s, r.Release, r.Outcome)
	rows := [][2]string{{"  digest:", r.Digest}}
	if r.Version != "" {
		rows = append(rows, [2]string{"  version:", strconv.Quote(r.Version)})
	}
	for _, v := range r.Verifiers {
		rows = append(rows, [2]string{"  key:", fmt.Sprintf("%s: %s, %s", v.Key, v.Answer, v.Why())})
		if v.Source != "" {
			rows = append(rows, [2]string{"  signature:", v.Source})
		}
	}
	for _, p := range r.Problems {
		rows = append(rows, [2]string{"  problem:", p})
	}
	type pair = cli.Column[[2]string]
	cli.Table(s, rows, pair{Cell: func(r [2]string) string { return r[0] }},
		pair{Cell: func(r [2]string) string { return r[1] }})
	if len(r.Images) > 0 {
		fmt.Fprintln(s)
		cli.Table(s, r.Images,
			cli.Column[release.Image]{Head: "NAME", Cell: func(i release.Image) string { return strconv.Quote(i.Name) }},
			cli.Column[release.Image]{Head: "IMAGE", Cell: func(i release.Image) string { return i.Image }})
	}
}
