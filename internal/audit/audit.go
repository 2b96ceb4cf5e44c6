package audit

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Judge gives the verdict on one image, by its canonical name. An error means that the name can't be used.
type Judge interface {
	Image(ctx context.Context, name string) (verdict.Verdict, error)
}

// Cache keeps verdicts from one audit to another. It may be used by several goroutines.
type Cache interface {
	// Get returns the verdict on name, if it still holds.
	Get(ctx context.Context, name string) (verdict.Verdict, bool)
	// Put keeps it for later; it decides itself whether and for how long.
	Put(name string, v verdict.Verdict)
}

// Options of an audit.
type Options struct {
	// PerHost is how many images of one registry are judged at a time, 16 if it is 0; Total of all registries, 64 if it
	// is 0.
	PerHost, Total int
	// Cache may be nil.
	Cache Cache
	// CanaryKey is the fingerprint of the key that refuse-canaries are carved out with.
	CanaryKey string
	// Vouched names the verified release that vouches for a digest; "" if there is none. It may be nil.
	Vouched func(digest string) string
	// RequireSigned refuses what is accepted and has no signature behind it.
	RequireSigned bool
	// Progress is called after each image, by one goroutine at a time.
	Progress func(Progress)
	// Now is the clock.
	Now func() time.Time
}

// Progress of an audit.
type Progress struct {
	Done, Total int
	// Cached of those done were not judged anew.
	Cached int
	// Refuse and Unknown of those done.
	Refuse, Unknown int
}

// Run judges every image of the inventory once. When ctx ends, what is not judged by then is unknown and the report
// says that it is not complete.
func Run(ctx context.Context, inv *Inventory, j Judge, o Options) *Report {
	if o.PerHost == 0 {
		o.PerHost = 16
	}
	if o.Total == 0 {
		o.Total = 64
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	list := inv.sorted()
	a := &audit{judge: j, o: o, out: make([]Image, len(list)), progress: Progress{Total: len(list)}}
	queues := map[string][]int{}
	for i, l := range list {
		a.out[i] = Image{
			Verdict: verdict.Verdict{
				Image: l.image, Outcome: verdict.Outcome{
					Answer: verdict.Unknown, Reason: verdict.Timeout,
					Message: "not judged: the audit was interrupted",
				},
			},
			UsedBy: append([]string{}, l.usedBy...), Role: l.role, Interrupted: true, name: l.name,
		}
		queues[ref.Host(l.name)] = append(queues[ref.Host(l.name)], i)
	}
	a.run(ctx, list, queues)

	r := &Report{Images: a.out}
	r.Summary.CheckedAt = o.Now().UTC().Truncate(time.Second)
	r.Summary.Problems = inv.problems
	if ctx.Err() != nil && a.progress.Done < len(list) {
		r.Summary.Problems = append(r.Summary.Problems, "interrupted: some images were not judged")
	}
	r.Summary.Complete = len(r.Summary.Problems) == 0
	r.Summary.RequireSigned = o.RequireSigned
	r.finish()
	return r
}

// audit is one run. Each image of out is written by the goroutine that judges it.
type audit struct {
	judge Judge
	o     Options
	out   []Image

	mu       sync.Mutex
	progress Progress
}

// run judges the images of each registry by workers of its own, so that one that is slow doesn't keep the others
// waiting.
func (a *audit) run(ctx context.Context, list []*listed, queues map[string][]int) {
	total := make(chan struct{}, a.o.Total)
	var wg sync.WaitGroup
	for _, queue := range queues {
		next := make(chan int)
		b := &breaker{now: a.o.Now}
		for range min(a.o.PerHost, len(queue)) {
			wg.Go(func() {
				for i := range next {
					select {
					case total <- struct{}{}:
						a.one(ctx, list[i], &a.out[i], b)
						<-total
					case <-ctx.Done():
					}
				}
			})
		}
		wg.Go(func() {
			defer close(next)
			for _, i := range queue {
				select {
				case next <- i:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
}

// one judges one image, unless ctx ends first: then it stays as it was.
func (a *audit) one(ctx context.Context, l *listed, m *Image, b *breaker) {
	if ctx.Err() != nil {
		return
	}
	v, cached, ok := a.verdict(ctx, l, b)
	if !ok {
		return
	}
	m.Verdict, m.Cached, m.Interrupted = outside.Clean(v), cached, false
	m.Image, m.Message, m.Hint = l.image, outside.Text(m.Message), outside.Text(m.Hint)
	if ref.Digest(l.name) == "" && v.Digest != "" {
		for _, d := range l.digests {
			if d != v.Digest && d != v.Index {
				m.InUse = append(m.InUse, d)
			}
		}
	}
	m.Canary = a.carved(v)
	a.vouch(m)
	a.requireSigned(m)
	if l.short() {
		m.Message += "; it was judged as " + l.name + ": nodes may take a short name elsewhere"
	}
	a.done(m)
}

// verdict is from the cache or the judge; not ok if the audit was interrupted.
func (a *audit) verdict(ctx context.Context, l *listed, b *breaker) (v verdict.Verdict, cached, ok bool) {
	if l.invalid != nil {
		return verdict.Verdict{
			Outcome: verdict.Outcome{
				Answer: verdict.Unknown, Reason: verdict.ImageNotFound,
				Message: "no runtime can pull this: " + l.invalid.Error(),
			},
		}, false, true
	}
	if a.o.Cache != nil {
		if v, ok := a.o.Cache.Get(ctx, l.name); ok {
			return v, true, true
		}
	}
	if v, open := b.open(ref.Host(l.name)); open {
		return v, false, true
	}
	start := a.o.Now()
	v, err := a.judge.Image(ctx, l.name)
	if err != nil {
		return verdict.Verdict{Outcome: verdict.Outcome{
			Answer: verdict.Unknown, Reason: verdict.ImageNotFound,
			Message: err.Error(),
		}}, false, true
	}
	if ctx.Err() != nil && v.Answer == verdict.Unknown {
		return v, false, false
	}
	b.saw(v, a.o.Now().Sub(start))
	if a.o.Cache != nil {
		a.o.Cache.Put(l.name, v)
	}
	return v, false, true
}

// carved is true if the policy carves the image out as a refuse-canary: its scope demands the key that never signs.
func (a *audit) carved(v verdict.Verdict) bool {
	if v.Scope == nil || v.Scope.Matched != "exact" || a.o.CanaryKey == "" {
		return false
	}
	return slices.ContainsFunc(v.Requirements, func(r verdict.Requirement) bool {
		return slices.Contains(r.Keys,
			a.o.CanaryKey)
	})
}

// vouch says of an image that no signature speaks for whether a verified release does. What a release consists of has
// its role, whatever it is used for.
func (a *audit) vouch(m *Image) {
	if a.o.Vouched == nil || m.Digest == "" {
		return
	}
	release := a.o.Vouched(m.Digest)
	if release == "" && m.Index != "" {
		release = a.o.Vouched(m.Index)
	}
	if release == "" {
		return
	}
	m.Role, m.VouchedBy = Release, release
	switch {
	case m.SignedFor():
	case m.Answer == verdict.Accept:
		m.Reason, m.Message = verdict.TrustedByRelease, "no signature of its own was asked for; the verified release "+
			release+" vouches for it"
	case m.Answer == verdict.Refuse:
		m.Hint = "the verified release " + release +
			" vouches for it: nodetrust release verify --to-policy writes a scope for its digest"
	}
}

// requireSigned refuses an accept that neither a signature of the image nor that of a release stands behind: a
// release names the image by its digest, and was signed itself.
func (a *audit) requireSigned(m *Image) {
	if a.o.RequireSigned && !m.signedFor() {
		m.Verdict = m.RequireSigned()
	}
}

func (a *audit) done(m *Image) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &a.progress
	p.Done++
	if m.Cached {
		p.Cached++
	}
	switch m.Answer {
	case verdict.Refuse:
		p.Refuse++
	case verdict.Unknown:
		p.Unknown++
	}
	if a.o.Progress != nil {
		a.o.Progress(*p)
	}
}
