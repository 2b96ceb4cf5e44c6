// Package verify judges an image under a policy.json as the runtimes of a node would: with the image library that
// podman and CRI-O use. Its answers are a health check, never an admission: only the runtime that pulls decides.
//
// Open reads a policy, ParseImage an IMAGE argument. A Judge of the policy gives the Verdict on an image, or Explains
// it. An evaluation goes the way of a pull:
//
//	locate        where manifest and signatures lie: the argument, mirrors, lookasides
//	fetch         manifest and signatures, read; signatures are those within the limits
//	requirement   the section of the policy, each requirement evaluated by the image library
//	secondlook    an accepted image looked at once more
//	verdict       conclude and finish, in this package; explain has the words
package verify

import (
	"bytes"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/configuration"
	"github.com/nodetrust/nodetrust/internal/verify/explain"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/internal/verify/requirement"
)

// Limits on what is read for one image; beyond them the answer is unknown. The library itself reads at most 4 MiB of
// a manifest.
const (
	MaxSignatures    = 128
	MaxSignatureSize = 64 << 10
	maxManifest      = 4 << 20
	// LibrarySignatureSize is the library's own limit on the size; MaxSignatures is its limit on the number.
	LibrarySignatureSize = 4 << 20
)

type (
	// Source says where a policy is.
	Source = configuration.Source
	// InvalidError says that a policy.json, a registries.d directory or a registries.conf doesn't load.
	InvalidError = configuration.InvalidError
	// Image is what an IMAGE argument names, and the name it is judged under.
	Image = locate.Image
)

// ErrNoTemp says that a policy can't be opened for want of a temporary directory; the policy is not at fault.
var ErrNoTemp = configuration.ErrNoTemp

// ParseImage reads an IMAGE argument: docker://REF or REF; dir:PATH, oci:PATH[:NAME|:@N] or
// containers-storage:NAME-OR-ID.
func ParseImage(image string) (Image, error) { return locate.Parse(image) }

// Policy is a policy.json that the image library accepts, with the registries.d files, registries.conf and keys that
// belong to it. It is read once: later changes of the files are not seen. It may be used by several goroutines. Close
// it after use.
type Policy struct {
	*requirement.Policy

	warm           chan struct{} // closed when gpgme has found its engines
	restoreTempDir func()
}

// Open reads a policy with all that belongs to it. An *InvalidError says that it doesn't load; ErrNoTemp that there is
// no room for it here. With an Env of TakeEnv it clears variables of the process that would change what the image
// library reads, and gives the process a temporary directory of its own until Close: of such policies only one may be
// open at a time.
func Open(s Source, env Env) (*Policy, error) {
	isolate()
	if s.RegistriesConf == "" {
		s.RegistriesConf = env.RegistriesConf
	}
	c, err := configuration.Open(s)
	if err != nil {
		return nil, err
	}
	p := &Policy{Policy: requirement.New(c), warm: make(chan struct{}), restoreTempDir: func() {}}
	go func() {
		defer close(p.warm)
		if bytes.Contains(c.Text, []byte(policy.SignedBy)) {
			mechanism.WarmUp()
		}
	}()
	if env.taken {
		if err := p.usePrivateTempDir(); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// Close removes the temporary copies. What is under way with them may take a moment to end, and is left alone then.
func (p *Policy) Close() error {
	select {
	case <-p.warm:
	case <-time.After(mechanism.CloseTimeout):
		p.Late.Store(true)
	}
	if ended := p.Keyrings.Close(); !ended || p.Late.Load() {
		mechanism.EndStragglers(p.KeyringDir)
	}
	p.restoreTempDir()
	return p.Configuration.Close()
}

// Invalid is the verdict on an image under a policy that doesn't load.
func Invalid(image string, err *InvalidError) verdict.Verdict {
	return verdict.Verdict{
		Image: strings.TrimPrefix(image, "docker://"),
		Outcome: verdict.Outcome{
			Answer: verdict.Unknown, Reason: err.Reason, Message: err.Error(), Hint: explain.Hint(err.Reason),
		},
		Mechanism: mechanism.Name,
	}
}
