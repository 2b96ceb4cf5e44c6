package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

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
