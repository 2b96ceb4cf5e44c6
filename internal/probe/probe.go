// Package probe asks a node's own container runtimes to pull canaries: one that must be accepted and one that must be
// refused. The runtimes' answers prove what no file can: that the policy is enforced.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/cri"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Names of runtimes, as in --runtime and in the JSON.
const (
	Auto   = "auto"
	CRI    = "cri"
	Podman = "podman"
	Verify = "verify"
)

const (
	statusTimeout = 5 * time.Second
	pullTimeout   = 60 * time.Second
	// maxNamespaces bounds the namespaced policies that are probed one by one; the rest is reported as unknown.
	maxNamespaces = 64
	// MaxCanaries bounds the list of canaries.
	MaxCanaries = 64
)

// Options say which runtimes are asked, and how.
type Options struct {
	// Runtime is auto, cri, podman or verify.
	Runtime string
	// CRISocket is a path or unix:///path. Empty is CRI-O's.
	CRISocket string
	// Authfile is a containers-auth.json, or empty.
	Authfile string
	// CertDir, TLSVerify and Platform are those of verify.Options, for podman. A CRI runtime takes only a reference.
	CertDir   string
	TLSVerify *bool
	Platform  string
	// Root is the host's root, below which namespaced policies are listed. Empty is "/".
	Root string
	// Owned names images that an earlier round left: they count as absent before this one.
	Owned []string
	// KeepAccepted keeps the images of accept-canaries.
	KeepAccepted bool
	// Announce, if set, is called once before the first pull with the canaries' references that the CRI store lacks.
	Announce func(absent []string) error
	// Environ is podman's environment, of which it gets what it needs. Nil is this process's.
	Environ []string
	// Verify judges an image with nodetrust's own library: a second opinion, which never decides where a runtime answers.
	Verify func(ctx context.Context, image string) (verdict.Verdict, error)
}

// Run runs each canary through each runtime once, and once more for every namespaced policy of CRI-O. The result holds
// the runtimes' answers first, those of verify last; it has none of a runtime only if no runtime is there. Run removes
// images that were absent before, also when ctx ends early. An error means that the round could not begin.
func Run(ctx context.Context, canaries []trust.Canary, o Options) ([]judge.Canary, error) {
	var out []judge.Canary
	useCRI, usePodman := o.runtimes()
	var err error
	if useCRI {
		out, err = runCRI(ctx, canaries, o)
	} else {
		err = o.announce([]string{})
	}
	if err != nil {
		return nil, err
	}
	if usePodman {
		results, err := runPodman(ctx, canaries, o)
		if err != nil {
			return nil, err
		}
		out = append(out, results...)
	}
	if o.Verify != nil {
		for _, c := range canaries {
			v, err := o.Verify(ctx, c.Image)
			if err != nil {
				v = answer(verdict.Unknown, verdict.RuntimeFailed, err.Error())
			}
			out = append(out, result(c, Verify, "", v))
		}
	}
	return out, nil
}

func (o Options) announce(absent []string) error {
	if o.Announce == nil {
		return nil
	}
	if err := o.Announce(absent); err != nil {
		return fmt.Errorf("announcing: %w", err)
	}
	return nil
}

func (o Options) runtimes() (useCRI, usePodman bool) {
	if o.Runtime == Auto {
		return socketExists(o.CRISocket), podmanUsable("/")
	}
	return o.Runtime == CRI, o.Runtime == Podman
}

// Remove removes the images from the CRI store by reference. Missing images are no error.
func Remove(ctx context.Context, refs []string, o Options) error {
	c, err := dialCRI(o.CRISocket, o.Authfile)
	if err != nil {
		return err
	}
	defer c.Close()
	var errs []error
	for _, ref := range refs {
		if err := c.remove(ctx, ref); err != nil {
			errs = append(errs, fmt.Errorf("removing %s: %w", ref, err))
		}
	}
	return errors.Join(errs...)
}

var imageRE = lazily(`^[A-Za-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$`)

// CheckCanaries returns all problems of a list of canaries, or nil.
func CheckCanaries(canaries []trust.Canary) error {
	if len(canaries) == 0 {
		return errors.New("no canaries given")
	}
	if len(canaries) > MaxCanaries {
		return fmt.Errorf("%d canaries given, at most %d are run", len(canaries), MaxCanaries)
	}
	var errs []error
	seen := map[string]bool{}
	for i, c := range canaries {
		if seen[c.Image] {
			errs = append(errs, fmt.Errorf("canaries[%d].image: listed twice", i))
		}
		seen[c.Image] = true
		if len(c.Image) > 512 || !imageRE().MatchString(c.Image) || !strings.Contains(c.Image, "/") {
			errs = append(errs, fmt.Errorf("canaries[%d].image: must be a fully qualified repository@sha256:…", i))
		}
		if c.Expect != verdict.Accept && c.Expect != verdict.Refuse {
			errs = append(errs, fmt.Errorf("canaries[%d].expect: must be accept or refuse", i))
		}
	}
	return errors.Join(errs...)
}

func result(c trust.Canary, runtime, namespace string, v verdict.Verdict) judge.Canary {
	v.Image = c.Image
	r := judge.Canary{Verdict: v, Expect: c.Expect, Runtime: runtime, Namespace: namespace}
	r.OK = judge.Right(r)
	return r
}

// namespaces returns the namespaces with a policy of their own on the host below root.
func namespaces(root string) (out []string, err error) {
	entries, err := hostfs.Root(root).ReadDir(policy.NamespacedDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && name != "" {
			out = append(out, name)
		}
	}
	return out, err
}

func socketExists(address string) bool {
	fi, err := os.Stat(cri.SocketPath(address))
	return err == nil && fi.Mode()&fs.ModeSocket != 0
}
