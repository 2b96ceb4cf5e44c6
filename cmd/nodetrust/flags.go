package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nodetrust/nodetrust/internal/audit"
	listing "github.com/nodetrust/nodetrust/internal/audit/sources"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/cri"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
)

// Flags that several commands have, each with one name, default, text and completion. TestFlags compares them.

// addCluster adds --kubeconfig and --context, which name the cluster that a command reads.
func addCluster(cmd *cobra.Command, to *cluster.Config) {
	fl := cmd.Flags()
	fl.StringVar(&to.Kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of a live cluster (default: as kubectl)")
	fl.StringVar(&to.Context, "context", "", "`CONTEXT` of the kubeconfig for a live cluster")
	_ = cmd.RegisterFlagCompletionFunc("context",
		func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return cluster.Contexts(to.Kubeconfig), cobra.ShellCompDirectiveNoFileComp
		})
}

// addNodes adds the flags of commands that read the nodes of a cluster.
func addNodes(cmd *cobra.Command, to *cluster.Config, pool, agents *string) {
	addCluster(cmd, to)
	addPool(cmd, pool)
	*agents = cluster.AgentsPods
	cli.Choice(cmd, agents, "agents", "", "string", "where the agents run: pods or elsewhere",
		cluster.AgentsPods, cluster.AgentsElsewhere)
	completePool(cmd, to, agents)
}

// addPool adds --pool.
func addPool(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "pool", "", "`POOL` that is meant, where there are several")
}

// addConfig adds --config, which takes the place of another policy or MachineConfig.
func addConfig(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "config", "", "trust.yaml `FILE`: what it renders to is meant")
}

// addDesired adds --desired.
func addDesired(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "desired", "", "`PATH` of what was rendered: a MachineConfig, or a directory with desired.ign")
}

// addRegistriesConf adds --registries-conf.
func addRegistriesConf(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "registries-conf", "",
		"registries.conf `FILE` (default $CONTAINERS_REGISTRIES_CONF, else the host's)")
}

// addReaders adds --reader.
func addReaders(cmd *cobra.Command, to *[]string) {
	cmd.Flags().StringArrayVar(to, "reader", nil,
		"`NAME` of who reads the files, for example openshift-4.18 or rhel7; see nodetrust readers (repeatable)")
	completeReaders(cmd)
}

// addKeys adds --key of commands that judge signatures without a policy.
func addKeys(cmd *cobra.Command, to *[]string, which string) {
	cmd.Flags().StringArrayVar(to, "key", nil, "public key `FILE`, "+which+" must have signed (repeatable)")
}

// addDeadline adds --timeout.
func addDeadline(cmd *cobra.Command, to *time.Duration, most time.Duration, of string) {
	*to = most
	cmd.Flags().Var(cli.Deadline(to), "timeout", "deadline of "+of)
}

// addAuthfile adds --authfile.
func addAuthfile(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "authfile", "", "containers-auth.json `FILE` with logins for registries (none are used without it)")
}

// addCRISocket adds --cri-socket.
func addCRISocket(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "cri-socket", cri.DefaultSocket, "socket of the CRI runtime")
}

// addSignatureStores adds the flags that say where signatures of releases are.
func addSignatureStores(cmd *cobra.Command, to *releaseFlags) {
	fl := cmd.Flags()
	fl.StringArrayVar(&to.stores, "store", nil,
		"signature store of releases at this http, https or file `URL`, or path (repeatable; default Red Hat's, unless --signatures-from is given)")
	fl.StringArrayVar(&to.signaturesFrom, "signatures-from", nil,
		"`FILE` with ConfigMaps that have signatures of releases, or live: those of the cluster (repeatable)")
}

// addRequireSigned adds --require-signed.
func addRequireSigned(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "require-signed", false, "refuse what the policy accepts without a signature (NotSignedFor)")
}

// policyFlags say which policy judges: --policy, else --config, else the host below --root, by default this machine.
type policyFlags struct {
	policy         string
	registriesD    []string
	root           string
	config         string
	keys           []string
	registriesConf string
	hiddenHome     bool // see verify.Source
	env            verify.Env

	files trust.FileSet // with --config: what it renders to, once the policy is open
}

func (f *policyFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.policy, "policy", "", "policy.json `FILE` to judge by")
	fl.StringArrayVar(&f.registriesD, "registries-d", nil,
		"registries.d `DIR` that goes with --policy (repeatable, the first wins)")
	fl.StringVar(&f.root, "root", "", "judge by the host below `DIR`; with --policy or --config: where keys and other files of the host are read (default \"/\")")
	addConfig(cmd, &f.config)
	fl.StringArrayVar(&f.keys, "key", nil, "with --config: read the key `NAME=FILE` there instead of its path on the host (repeatable)")
	addRegistriesConf(cmd, &f.registriesConf)
}

// check reports flags that contradict each other.
func (f *policyFlags) check() error {
	switch {
	case f.policy != "" && f.config != "":
		return cli.Usagef("--policy and --config both name a policy")
	case len(f.registriesD) > 0 && f.policy == "":
		return cli.Usagef("--registries-d goes with --policy")
	case len(f.keys) > 0 && f.config == "":
		return cli.Usagef("--key goes with --config")
	}
	if f.root != "" {
		if st, err := os.Stat(f.root); err != nil {
			return cli.Usage(fmt.Errorf("reading --root: %w", err))
		} else if !st.IsDir() {
			return cli.Usagef("--root: %s is no directory", f.root)
		}
	}
	if f.registriesConf != "" {
		if _, err := os.Stat(f.registriesConf); err != nil {
			return cli.Usage(fmt.Errorf("reading --registries-conf: %w", err))
		}
	}
	return nil
}

// source opens the policy. The error is a *verify.InvalidError when a policy.json or registries.d doesn't load, which
// is a verdict for some commands; any other error is bad usage. The caller closes the policy, of which a process has
// one: it comes with a temporary directory for gpg.
func (f *policyFlags) source() (*verify.Policy, error) {
	limitMemory(0)
	p, err := f.open()
	if errors.Is(err, verify.ErrNoTemp) {
		err = &cli.ExitError{Code: cli.ExitFailed, Err: err}
	}
	return p, err
}

func (f *policyFlags) open() (*verify.Policy, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	s := verify.Source{
		Root: f.root, Policy: f.policy, RegistriesD: f.registriesD, RegistriesConf: f.registriesConf,
		HiddenHome: f.hiddenHome,
	}
	if s.Root != "" {
		var err error
		if s.Root, err = filepath.Abs(s.Root); err != nil {
			return nil, err
		}
	}
	if f.config != "" {
		if err := f.render(&s); err != nil {
			return nil, err
		}
	}
	return verify.Open(s, f.env)
}

// render adds what a trust.yaml renders to, for the current image library.
func (f *policyFlags) render(s *verify.Source) error {
	cfg, err := loadTrust(f.config, nil)
	if err != nil {
		return err
	}
	s.Keys = map[string]string{}
	for _, kv := range f.keys {
		name, file, ok := strings.Cut(kv, "=")
		if !ok || name == "" || file == "" {
			return cli.Usagef("--key %q: must be NAME=FILE", kv)
		}
		i := slices.IndexFunc(cfg.Keys, func(k trust.Key) bool { return k.Name == name })
		if i < 0 || cfg.Keys[i].Path == "" {
			return cli.Usagef("--key %s: %s has no key of this name with a path", name, f.config)
		}
		if _, err := os.Stat(file); err != nil {
			return cli.Usage(fmt.Errorf("reading --key %s: %w", name, err))
		}
		s.Keys[cfg.Keys[i].Path] = file
	}
	files, err := cfg.Files(nil)
	if err != nil {
		return cli.Usage(err)
	}
	f.files, s.Files = files, files
	return nil
}

// reachFlags say how registries and lookasides are reached, and which instance of an image is meant.
type reachFlags struct {
	certDir   string
	tlsVerify bool
	platform  string

	flags *pflag.FlagSet
}

func (f *reachFlags) add(cmd *cobra.Command) {
	f.addServers(cmd)
	cmd.Flags().StringVar(&f.platform, "platform", "",
		"`OS/ARCH[/VARIANT]` whose instance of a multi-arch image is judged (default this host's)")
}

// addServers adds the flags that say how registries and lookasides are reached.
func (f *reachFlags) addServers(cmd *cobra.Command) {
	fl := cmd.Flags()
	f.flags = fl
	fl.StringVar(&f.certDir, "cert-dir", "", "`DIR` with certificates for registry and lookaside (default the host's certs.d)")
	fl.BoolVar(&f.tlsVerify, "tls-verify", true, "demand HTTPS with valid certificates (default as registries.conf says)")
	fl.Lookup("tls-verify").DefValue = "" // not true: as registries.conf says
}

func (f *reachFlags) options() verify.Options {
	o := verify.Options{CertDir: f.certDir, Platform: f.platform}
	if f.flags.Changed("tls-verify") {
		o.TLSVerify = &f.tlsVerify
	}
	return o
}

// imageFlags say how images are reached and judged.
type imageFlags struct {
	reachFlags
	as       string
	authfile string
	timeout  time.Duration

	maxSignatures    int
	maxSignatureSize int
}

func (f *imageFlags) add(cmd *cobra.Command) {
	f.reachFlags.add(cmd)
	f.addJudging(cmd)
}

// addJudging adds the flags that don't say which instance is meant.
func (f *imageFlags) addJudging(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.as, "as", "", "judge dir:, oci: or containers-storage: content as this `REFERENCE`")
	addAuthfile(cmd, &f.authfile)
	f.maxSignatures, f.maxSignatureSize = verify.MaxSignatures, verify.MaxSignatureSize
	addDeadline(cmd, &f.timeout, 30*time.Second, "one image")
	fl.Var(cli.Limit(&f.maxSignatures, verify.MaxSignatures), "max-signatures",
		"with more signatures than `N` (at most 128) the answer is unknown")
	fl.Var(cli.Limit(&f.maxSignatureSize, verify.LibrarySignatureSize), "max-signature-size",
		"with a signature of more than `N` bytes (at most 4194304) the answer is unknown")
}

func (f *imageFlags) options() verify.Options {
	o := f.reachFlags.options()
	o.AuthFile, o.Timeout, o.MaxSignatures, o.MaxSignatureSize = f.authfile, f.timeout, f.maxSignatures, f.maxSignatureSize
	return o
}

// image reads an IMAGE argument.
func (f *imageFlags) image(arg string) (verify.Image, error) {
	image, err := verify.ParseImage(arg)
	if err != nil {
		return image, cli.Usage(err)
	}
	if image, err = image.As(f.as); err != nil {
		return image, cli.Usage(fmt.Errorf("--as %s: %w", f.as, err))
	}
	return image, nil
}

// judging judges images by name: by a policy that doesn't load, if invalid is set, else by judge.
type judging struct {
	policy  *verify.Policy
	judge   *verify.Judge
	invalid *verify.InvalidError
}

// judge opens the policy and makes the judge of it. The caller closes both.
func (f *policyFlags) judge(o verify.Options) (*judging, error) {
	p, err := f.source()
	if invalid, ok := errors.AsType[*verify.InvalidError](err); ok {
		return &judging{invalid: invalid}, nil
	}
	if err != nil {
		return nil, cli.Usage(err)
	}
	j, err := p.Judge(o)
	if err != nil {
		p.Close()
		return nil, cli.Usage(err)
	}
	return &judging{policy: p, judge: j}, nil
}

// Close closes policy and judge.
func (j *judging) Close() {
	if j.policy != nil {
		j.judge.Close()
		j.policy.Close()
	}
}

// Image returns the verdict on the image of a name. An error means that the name can't be used.
func (j *judging) Image(ctx context.Context, name string) (verdict.Verdict, error) {
	if j.invalid != nil {
		return verify.Invalid(name, j.invalid), nil
	}
	image, err := verify.ParseImage(name)
	if err != nil {
		return verdict.Verdict{}, err
	}
	return j.judge.Verdict(ctx, image)
}

// stillCurrent reports whether a verdict is about what the name of an image stands for now.
func (j *judging) stillCurrent(ctx context.Context, name string, v verdict.Verdict) bool {
	image, err := verify.ParseImage(name)
	return err == nil && j.judge.StillCurrent(ctx, image, v)
}

// kubeconfigHint goes with a cluster that isn't named.
const kubeconfigHint = "name a cluster with --kubeconfig, $KUBECONFIG or --context"

// openCluster returns a client of the cluster that is named.
func openCluster(config cluster.Config) (*cluster.Client, error) {
	client, err := cluster.New(config)
	if err != nil {
		return nil, cli.WithHint(cli.Usage(err), kubeconfigHint)
	}
	return client, nil
}

// completionTime is how long who presses Tab waits for an API server.
const completionTime = 3 * time.Second

// completePool completes --pool with the pools that the cluster's nodes are in.
func completePool(cmd *cobra.Command, config *cluster.Config, agents *string) {
	_ = cmd.RegisterFlagCompletionFunc("pool", func(cmd *cobra.Command, _ []string, _ string) (pools []cobra.Completion,
		_ cobra.ShellCompDirective,
	) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var snapshot *cluster.Snapshot
		client, err := cluster.New(*config)
		if err == nil {
			snapshot, err = client.Read(ctx, *agents)
		}
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, p := range snapshot.Status("", time.Now()).Pools {
			if p.Pool != "" {
				pools = append(pools, p.Pool)
			}
		}
		return pools, cobra.ShellCompDirectiveNoFileComp
	})
}

// live is the name of the cluster that the kubeconfig names, where a dump may be named as well.
const live = "live"

// readCluster reads a dump, or the live cluster. What the caller may not read there is written to notes.
func readCluster(ctx context.Context, name string, config cluster.Config, notes io.Writer) (*mco.Dump, error) {
	if name != live {
		return readDump(name)
	}
	client, err := openCluster(config)
	if err != nil {
		return nil, err
	}
	d, unread, err := client.Dump(ctx)
	switch {
	case errors.Is(err, cluster.ErrNoPools):
		return nil, cli.WithHint(err, "without the Machine Config Operator there is nothing to merge with: render without --cluster, or --to configmap")
	case cluster.IsForbidden(err):
		return nil, cli.WithHint(err, "this needs the right to list MachineConfigs and MachineConfigPools: ask for it, or use a file made by "+dumpCommand)
	case err != nil:
		return nil, cli.WithHint(fmt.Errorf("reading the cluster: %w", err), "the API server is "+client.Server())
	}
	for _, kind := range unread {
		cli.Say(notes, cli.Note, "%s objects may not be read by this user: what they ask for is known as far as the Machine Config Operator has written it", kind)
	}
	return d, nil
}

const dumpCommand = "oc get mc,mcp,clusterversion,images.config,clusterimagepolicies -o yaml"

func readDump(file string) (*mco.Dump, error) {
	data, err := bounded.ReadFile(file, mco.MaxDump)
	large, tooLarge := errors.AsType[*bounded.TooLargeError](err)
	if err != nil && !tooLarge {
		return nil, cli.Usage(fmt.Errorf("reading the cluster dump: %w", err))
	}
	var d *mco.Dump
	if err == nil {
		d, err = mco.ParseDump(data)
		large, tooLarge = errors.AsType[*bounded.TooLargeError](err)
	}
	switch {
	case tooLarge:
		return nil, cli.WithHint(cli.Usage(fmt.Errorf("reading the cluster dump: %s: %w", file, large)),
			"--cluster live reads a page at a time")
	case err != nil:
		return nil, cli.WithHint(cli.Usage(fmt.Errorf("reading the cluster dump: %s: %w", file, err)),
			"make it by "+dumpCommand)
	}
	return d, nil
}

// sourceFlags say where the images are.
type sourceFlags struct {
	from      []string
	cluster   cluster.Config
	criSocket string
	node      string
	environ   []string // for podman
}

func (f *sourceFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&f.from, "images-from", nil,
		"`SOURCE` of images: cluster, cri, static-pods, podman, catalog:DIR, FILE or - (repeatable)")
	addCluster(cmd, &f.cluster)
	addCRISocket(cmd, &f.criSocket)
	fl.StringVar(&f.node, "node-name", "", "with cri, static-pods and podman: what this host is called (default its host name)")
	_ = cmd.RegisterFlagCompletionFunc("images-from",
		func(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if dir, ok := strings.CutPrefix(prefix, listing.Catalog); ok {
				return completeDirs(listing.Catalog, dir), cobra.ShellCompDirectiveNoSpace
			}
			var out []cobra.Completion
			for _, s := range listing.Names() {
				if strings.HasPrefix(s, prefix) {
					out = append(out, s)
				}
			}
			if len(out) == 1 && out[0] == listing.Catalog {
				return out, cobra.ShellCompDirectiveNoSpace
			}
			if prefix != "" && len(out) == 0 {
				return nil, cobra.ShellCompDirectiveDefault // files
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		})
}

// completeDirs are the directories that continue prefix+dir.
func completeDirs(prefix, dir string) (out []cobra.Completion) {
	at := dir[:strings.LastIndexByte(dir, '/')+1]
	entries, _ := os.ReadDir(at + ".")
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(at+e.Name(), dir) {
			out = append(out, prefix+at+e.Name()+"/")
		}
	}
	return out
}

// onlyFiles is true if no source but files and stdin was asked for.
func (f *sourceFlags) onlyFiles() bool {
	return len(f.from) > 0 && !slices.ContainsFunc(f.from, func(from string) bool { return !listing.IsFile(from) })
}

// options of sources.
func (f *sourceFlags) options(cmd *cobra.Command, root string) listing.Options {
	return listing.Options{
		Cluster: f.cluster, Root: root, CRISocket: f.criSocket, Environ: f.environ, Node: f.node, Stdin: cmd.InOrStdin(),
		Check: func(image string) error {
			_, err := locate.Canonical(strings.TrimPrefix(image, "docker://"))
			return err
		},
	}
}

// collect lists the images of all sources. The inventory is never nil; an error means that the audit can't go on.
func (f *sourceFlags) collect(cmd *cobra.Command, root string) (*audit.Inventory, error) {
	if len(f.from) == 0 {
		return f.collectDefault(cmd, root)
	}
	list, err := f.open(cmd, root)
	if err != nil {
		return nil, err
	}
	inventory, err := audit.Collect(cmd.Context(), locate.Canonical, list...)
	switch {
	case err != nil && f.onlyFiles() && cmd.Context().Err() == nil:
		return nil, cli.Usage(err)
	case err != nil && inventory.Len() == 0:
		return nil, sourceErr(err)
	case inventory.Len() == 0 && f.onlyFiles():
		return nil, cli.Usagef("--images-from %s: holds no image", strings.Join(f.from, ", "))
	}
	warn(cmd, err)
	return inventory, nil
}

// open makes the sources of --images-from.
func (f *sourceFlags) open(cmd *cobra.Command, root string) (list []audit.Named, err error) {
	for _, from := range f.from {
		s, err := listing.OpenNamed(from, f.options(cmd, root))
		if err != nil {
			err = cli.Usage(fmt.Errorf("--images-from %s: %w", from, err))
			switch {
			case from == listing.Cluster:
				err = cli.WithHint(err, kubeconfigHint)
			case listing.IsFile(from):
				err = cli.WithHint(err, "what is none of cluster, cri, static-pods, podman and catalog:DIR is a file of references; - is stdin")
			}
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// collectDefault takes the cluster if there is one, else what this host runs. It says on stderr which.
func (f *sourceFlags) collectDefault(cmd *cobra.Command, root string) (*audit.Inventory, error) {
	inventory, err := listing.CollectDefault(cmd.Context(), f.options(cmd, root), locate.Canonical,
		func(line string) { cli.Say(cmd.ErrOrStderr(), cli.Note, "%s", line) })
	_, none := errors.AsType[*listing.NoneError](err)
	switch {
	case none:
		return nil, cli.WithHint(cli.Usage(err), "name them with --images-from")
	case inventory == nil:
		return nil, sourceErr(err)
	}
	warn(cmd, err)
	return inventory, nil
}

// warn tells of sources that failed beside others.
func warn(cmd *cobra.Command, err error) {
	if err != nil {
		cli.Say(cmd.ErrOrStderr(), cli.Warning, "%v", err)
	}
}

func sourceErr(err error) error {
	if cluster.IsForbidden(err) {
		return cli.WithHint(err, "listing pods of all namespaces and nodes takes the right to: name another user with --kubeconfig or --context")
	}
	if errors.Is(err, context.Canceled) {
		return &cli.ExitError{Code: cli.ExitUnknown, Err: errors.New("interrupted before any image was listed")}
	}
	return err
}
