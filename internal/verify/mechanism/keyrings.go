package mechanism

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"sync"
	"time"

	"go.podman.io/image/v5/signature"

	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// Keyrings are imported sets of keys, each used for many signatures. The library imports the keys anew for every
// signature and requirement, which takes gpg two of three processes. The answer of a keyring is either the library's
// own word (the mechanism is the library's, and so is the reading of what was signed), or no answer, and then the
// library is asked from the start. Keyrings live as long as their policy.
type Keyrings struct {
	// around runs around each import of keys.
	around func() (stop func())
	// Off has the library judge everything: tests compare the two.
	Off bool

	mu     sync.Mutex
	rings  map[[sha256.Size]byte]*Keyring
	closed bool
	swept  bool           // Close has removed what there was
	gone   chan struct{}  // closed when closed becomes true
	busy   sync.WaitGroup // imports and verifications under way
}

// Keyring is one set of keys. A mechanism is used by one goroutine at a time, so there may be several with the same
// keys.
type Keyring struct {
	data []byte
	free chan *loaded
	// useless is closed when the mechanism imports none of the keys: the library is to word the refusal.
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

// CloseTimeout is how long a gpg that is no longer needed may take to end.
const CloseTimeout = 400 * time.Millisecond

// NewKeyrings makes a set of keyrings in which there is none yet; around runs around each import of keys. Close it
// after use.
func NewKeyrings(around func() (stop func())) *Keyrings {
	return &Keyrings{around: around, rings: map[[sha256.Size]byte]*Keyring{}, gone: make(chan struct{})}
}

// Get returns the keyring for key data, nil after Close and for no data.
func (k *Keyrings) Get(data []byte) *Keyring {
	if k.Off || len(data) == 0 {
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
		r = &Keyring{
			data: data, free: make(chan *loaded, mechanisms()), useless: make(chan struct{}),
			subkeys: map[string]bool{},
		}
		k.rings[sum] = r
	}
	return r
}

// start counts a use of a mechanism, unless close was called.
func (k *Keyrings) start() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.busy.Add(1)
	}
	return !k.closed
}

// mechanisms is the limit for one keyring: gpg computes, so more of them than cores are of no use.
func mechanisms() int { return max(2, runtime.GOMAXPROCS(0)) }

// Warm imports the keys now, for a signature that may come: while a registry is asked that costs no time.
func (k *Keyrings) Warm(data []byte) {
	r := k.Get(data)
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
func (k *Keyrings) fill(r *Keyring) {
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
			k.put(r, m)
		case !r.failed:
			r.failed = true
			close(r.useless)
		}
	}()
}

// imported makes a mechanism; nil if the keys are of no use.
func (k *Keyrings) imported(r *Keyring) *loaded {
	defer k.around()()
	m, ids, err := signature.NewEphemeralGPGSigningMechanism(r.data)
	switch {
	case err != nil:
		return nil
	case len(ids) == 0:
		_ = m.Close()
		return nil
	}
	return &loaded{SigningMechanism: m, ids: ids}
}

// put gives a mechanism back, and removes one that Close didn't wait for.
func (k *Keyrings) put(r *Keyring, m *loaded) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.swept {
		_ = m.Close()
		return
	}
	r.free <- m
}

// take waits for a mechanism; nil means that the library is to be asked.
func (k *Keyrings) take(ctx context.Context, r *Keyring) *loaded {
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
	case <-k.gone:
	case <-ctx.Done():
	}
	return nil
}

// Verify has one of the keyring's mechanisms judge a signature. The content and the signer's fingerprint are those of a
// signature that is good; ids are the keyring's keys. An error of type InvalidSignatureError is the library's refusal;
// any other says that nothing is known.
func (k *Keyrings) Verify(ctx context.Context, r *Keyring, blob []byte) (content []byte, signer string, ids []string,
	err error,
) {
	if !k.start() {
		return nil, "", nil, errors.New("the policy was closed")
	}
	type answer struct {
		content []byte
		signer  string
		ids     []string
		err     error
	}
	a, ended := library.Within(ctx, 0, func() (a answer) {
		defer k.busy.Done()
		m := k.take(ctx, r)
		if m == nil {
			return answer{err: errors.New("no keyring")}
		}
		a.content, a.signer, a.err = m.Verify(blob)
		a.ids = m.ids
		k.put(r, m)
		return a
	})
	if !ended {
		a.err = ctx.Err()
	}
	return a.content, a.signer, a.ids, a.err
}

// Close removes all keyrings. A gpg that hangs is not waited for longer than CloseTimeout: its keyring is removed
// when it ends, if this process lives then, and ended is false.
func (k *Keyrings) Close() (ended bool) {
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
		ended = true
	case <-time.After(CloseTimeout):
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.swept = true
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
	return ended
}

// Knows reports whether Learn was called with the subkey, which is one of these keys then.
func (r *Keyring) Knows(subkey string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.subkeys[subkey]
}

// Learn remembers that the library has accepted a signature by a subkey.
func (r *Keyring) Learn(subkey string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subkeys[subkey] = true
}
