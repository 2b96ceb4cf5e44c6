package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/verdict"
	"github.com/nodetrust/nodetrust/verify/mechanism"
	"github.com/nodetrust/nodetrust/verify/openpgp"
)

// keyrings are imported sets of keys, each used for many signatures. The library imports the keys anew for every signature
// and requirement, which takes gpg two of three processes. What a keyring answers here is either the library's own word
// (the mechanism is the library's, and so is the reading of what was signed), or nothing, and then the library is
// asked from the start. It lives as long as its policy.
type keyrings struct {
	// import runs around each import of keys.
	around func() (stop func())
	// off has the library judge everything: tests compare the two.
	off bool

	mu     sync.Mutex
	rings  map[[sha256.Size]byte]*keyring
	closed bool
	gone   chan struct{}  // closed when closed becomes true
	busy   sync.WaitGroup // imports and verifications under way
}

// keyring is one set of keys. A mechanism is used by one goroutine at a time, so there may be several with the same keys.
type keyring struct {
	data []byte
	free chan *loaded
	// useless is closed when the mechanism imports none of the keys: the library is to say so.
	useless chan struct{}

	mu        sync.Mutex
	made      int // mechanisms that there are, or will be
	importing int // of these
	waiting   int // for one
	failed    bool
	subkeys   map[string]bool // fingerprints under which the library has accepted a signature
}

// loaded is a mechanism with keys.
type loaded struct {
	signature.SigningMechanism
	ids []string // the keys that were imported
}

// closeTimeout is how long gpg is given to come to an end that it is no longer needed for.
const closeTimeout = 2 * time.Second

func newKeyrings(around func() (stop func())) *keyrings {
	return &keyrings{around: around, rings: map[[sha256.Size]byte]*keyring{}, gone: make(chan struct{})}
}

// get returns the keyring for key data, nil if there is none to be had.
func (k *keyrings) get(data []byte) *keyring {
	if k.off || len(data) == 0 {
		return nil
	}
	sum := sha256.Sum256(data)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	r, ok := k.rings[sum]
	if !ok {
		r = &keyring{data: data, free: make(chan *loaded, mechanisms()), useless: make(chan struct{}), subkeys: map[string]bool{}}
		k.rings[sum] = r
	}
	return r
}

// start counts a use of a mechanism, unless close was called.
func (k *keyrings) start() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.busy.Add(1)
	}
	return !k.closed
}

// mechanisms is how many of one keyring there may be: gpg computes, so more than cores are of no use.
func mechanisms() int { return max(2, runtime.GOMAXPROCS(0)) }

// warm imports the keys now, for a signature that may come: while a registry is asked that costs no time.
func (k *keyrings) warm(data []byte) {
	r := k.get(data)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made == 0 {
		k.fill(r)
	}
}

// fill starts to import the keys once more. The caller holds the keyring's lock.
func (k *keyrings) fill(r *keyring) {
	if r.failed || r.made == mechanisms() || !k.start() {
		return
	}
	r.made++
	r.importing++
	go func() {
		defer k.busy.Done()
		m := k.imported(r)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.importing--
		switch {
		case m != nil:
			r.free <- m
		case !r.failed:
			r.failed = true
			close(r.useless)
		}
	}()
}

// imported makes a mechanism; nil if the keys are of no use.
func (k *keyrings) imported(r *keyring) *loaded {
	defer k.around()()
	m, ids, err := signature.NewEphemeralGPGSigningMechanism(r.data)
	if err == nil && len(ids) == 0 {
		err = errors.Join(mechanism.ErrNoKey, m.Close())
	}
	if err != nil {
		return nil
	}
	return &loaded{SigningMechanism: m, ids: ids}
}

// take waits for a mechanism; nil means that the library is to be asked.
func (k *keyrings) take(ctx context.Context, r *keyring) *loaded {
	select {
	case m := <-r.free:
		return m
	default:
	}
	r.mu.Lock()
	r.waiting++
	if r.waiting > r.importing {
		k.fill(r)
	}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.waiting--
	}()
	select {
	case m := <-r.free:
		return m
	case <-r.useless:
		return nil
	case <-k.gone:
		return nil
	case <-ctx.Done():
		return nil
	}
}

// verify has one of the keyring's mechanisms judge a signature. The content and the signer's fingerprint are those of a
// signature that is good; ids are the keyring's keys. An error of type InvalidSignatureError is the library's refusal;
// any other says that nothing is known.
func (k *keyrings) verify(ctx context.Context, r *keyring, blob []byte) (content []byte, signer string, ids []string, err error) {
	if !k.start() {
		return nil, "", nil, errors.New("the policy was closed")
	}
	type answer struct {
		content []byte
		signer  string
		ids     []string
		err     error
	}
	done := make(chan answer, 1)
	go func() { // gpg knows of no contexts
		defer k.busy.Done()
		m := k.take(ctx, r)
		if m == nil {
			done <- answer{err: errors.New("no keyring")}
			return
		}
		var a answer
		a.content, a.signer, a.err = m.Verify(blob)
		a.ids = m.ids
		r.free <- m
		done <- a
	}()
	select {
	case a := <-done:
		return a.content, a.signer, a.ids, a.err
	case <-ctx.Done():
		return nil, "", nil, ctx.Err()
	}
}

// close removes all keyrings. A gpg that hangs is not waited for longer than closeTimeout.
func (k *keyrings) close() {
	k.mu.Lock()
	if !k.closed {
		k.closed = true
		close(k.gone)
	}
	k.mu.Unlock()
	done := make(chan struct{})
	go func() { k.busy.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(closeTimeout):
	}
	for _, r := range k.rings {
		for {
			select {
			case m := <-r.free:
				_ = m.Close()
				continue
			default:
			}
			break
		}
	}
}

func (r *keyring) knows(subkey string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.subkeys[subkey]
}

func (r *keyring) learn(subkey string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subkeys[subkey] = true
}

// onceVerified is a mechanism that has judged one signature already.
type onceVerified struct {
	signature.SigningMechanism
	content []byte
	signer  string
}

func (v onceVerified) Verify([]byte) ([]byte, string, error) { return v.content, v.signer, nil }

// signed evaluates a requirement for an image whose only signature that counts is own; un is the image with it. It is
// allowed with fewer processes where the requirement is one of simple signing: the mechanism's refusal is taken from a
// keyring that is there already, and so is an accept. Everything else is for the library to say.
func (e *evaluation) signed(ctx context.Context, un types.UnparsedImage, r *requirement, own sig, blob []byte) error {
	if own.simple == nil || r.Type != "signedBy" {
		return e.allowed(ctx, un, r)
	}
	ring := e.policy.keys.get(r.ringData)
	if ring == nil {
		return e.allowed(ctx, un, r)
	}
	content, signer, ids, err := e.policy.keys.verify(ctx, ring, own.simple)
	var invalid signature.InvalidSignatureError
	switch {
	case errors.As(err, &invalid):
		return err
	case err != nil:
		return e.allowed(ctx, un, r)
	}
	subkey := !slices.Contains(ids, signer)
	if subkey && ring.knows(signer) {
		ids, subkey = append(slices.Clone(ids), signer), false
	}
	if !subkey && e.accepts(ctx, un, r, own.simple, blob, onceVerified{content: content, signer: signer}, ids) {
		return nil
	}
	// The library finds the primary key of a subkey, and words the refusal of digest and identity.
	err = e.allowed(ctx, un, r)
	if err == nil && subkey {
		ring.learn(signer)
	}
	return err
}

// accepts is true if the library accepts what was signed for this image: its own reading of the content, its comparison
// of the digest, and its choice of the scope; only of identities it gives nothing to call (see matchesIdentity).
func (e *evaluation) accepts(ctx context.Context, un types.UnparsedImage, r *requirement, sig, blob []byte, mech onceVerified, ids []string) bool {
	claimed := openpgp.PayloadClaims(mech.content)
	s, _, err := signature.VerifyImageManifestSignatureUsingKeyIdentityList(sig, blob, claimed.Reference, mech, ids)
	if err != nil {
		return false
	}
	return r.matchesIdentity(un.Reference().DockerReference(), s.DockerReference) && e.scopeConfirmed(ctx, un)
}

// scopeConfirmed is true if the library, too, uses the section of the policy that was looked up for the image.
func (e *evaluation) scopeConfirmed(ctx context.Context, un types.UnparsedImage) bool {
	one := e.policy.only(e.sec.scope, signature.NewPRInsecureAcceptAnything())
	pc, err := signature.NewPolicyContext(one)
	if err != nil {
		return false
	}
	ok, err := pc.IsRunningImageAllowed(ctx, un)
	return errors.Join(err, pc.Destroy()) == nil && ok
}

// only returns a policy in which all sections reject but the one of this scope, which holds just these requirements.
func (p *Policy) only(scope verdict.Scope, reqs ...signature.PolicyRequirement) *signature.Policy {
	reject := signature.PolicyRequirements{signature.NewPRReject()}
	out := &signature.Policy{Default: reject, Transports: make(map[string]signature.PolicyTransportScopes, len(p.library.Transports))}
	for t, sections := range p.library.Transports {
		c := make(signature.PolicyTransportScopes, len(sections))
		for name := range sections {
			c[name] = reject
		}
		out.Transports[t] = c
	}
	if scope.Matched == "default" {
		out.Default = reqs
	} else {
		out.Transports[scope.Transport][scope.Name] = reqs
	}
	return out
}
