package audit

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Judge returns the verdict on one image, by its canonical name. An error means that the name is unusable.
type Judge interface {
	Image(ctx context.Context, name string) (verdict.Verdict, error)
}

// Cache keeps verdicts between audits. It is safe for concurrent use.
type Cache interface {
	// Get returns the verdict on name if it is still valid.
	Get(name string) (verdict.Verdict, bool)
	// Put keeps a verdict, if and as long as the Cache decides.
	Put(name string, v verdict.Verdict)
}

// Options of an audit.
type Options struct {
	// PerHost is the number of images of one registry that are judged at a time (0: 16), Total that of all (0: 64).
	PerHost, Total int
	Cache          Cache
	// StillCurrent reports whether a verdict of the Cache on an image named by tag is about what the tag names now.
	StillCurrent func(ctx context.Context, name string, v verdict.Verdict) bool
	// CanaryKey is the fingerprint of the key that policies demand for refuse-canaries.
	CanaryKey string
	// Vouched returns the verified release that names a digest, or "", as it does for no digest. Vouched may be nil.
	Vouched func(digest string) string
	// RequireSigned refuses accepted images without a signature.
	RequireSigned bool
	// Progress is called after each image, by one goroutine at a time.
	Progress func(Progress)
	Now      func() time.Time
}

// Progress of an audit.
type Progress struct {
	Done, Total int
	// Cached of those done come from the Cache.
	Cached          int
	Refuse, Unknown int
}

// Run judges every image of the inventory once. When ctx ends, the other images are unknown, the report incomplete.
func Run(ctx context.Context, inv *Inventory, j Judge, o Options) *Report {
	o.PerHost, o.Total = cmp.Or(o.PerHost, 16), cmp.Or(o.Total, 64)
	if o.Now == nil {
		o.Now = time.Now
	}
	list := inv.sorted()
	a := &audit{judge: j, o: o, out: make([]Image, len(list)), progress: Progress{Total: len(list)}}
	queues := map[string][]int{}
	for i, l := range list {
		a.out[i] = Image{
			Verdict: unknown(verdict.Timeout, "not judged: the audit was interrupted"),
			UsedBy:  append([]string{}, l.usedBy...), Role: l.role, Interrupted: true, name: l.name,
		}
		a.out[i].Image = l.image
		queues[ref.Host(l.name)] = append(queues[ref.Host(l.name)], i)
	}
	a.run(ctx, list, queues)

	r := &Report{Images: a.out, Summary: Summary{
		CheckedAt: o.Now().UTC().Truncate(time.Second), Problems: inv.problems, RequireSigned: o.RequireSigned,
	}}
	if ctx.Err() != nil && a.progress.Done < len(list) {
		r.Summary.Problems = append(r.Summary.Problems, "interrupted: some images were not judged")
	}
	r.Summary.Complete = len(r.Summary.Problems) == 0
	r.finish()
	return r
}

func unknown(reason verdict.Reason, message string) verdict.Verdict {
	return verdict.Verdict{Outcome: verdict.Outcome{Answer: verdict.Unknown, Reason: reason, Message: message}}
}

type audit struct {
	judge Judge
	o     Options
	out   []Image

	mu       sync.Mutex
	progress Progress
}

// run gives each registry workers of its own, so that a slow one doesn't delay the others.
func (a *audit) run(ctx context.Context, list []*listed, queues map[string][]int) {
	total := make(chan struct{}, a.o.Total)
	var wg sync.WaitGroup
	for _, queue := range queues {
		next := make(chan int, len(queue))
		for _, i := range queue {
			next <- i
		}
		close(next)
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
	}
	wg.Wait()
}

// one judges one image, or leaves it unchanged if ctx ends first.
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

// verdict returns the cached or the judge's verdict; ok is false if the audit was interrupted.
func (a *audit) verdict(ctx context.Context, l *listed, b *breaker) (v verdict.Verdict, cached, ok bool) {
	if l.invalid != nil {
		return unknown(verdict.ImageNotFound, "no runtime can pull this: "+l.invalid.Error()), false, true
	}
	if a.o.Cache != nil {
		v, ok := a.o.Cache.Get(l.name)
		if ok && (ref.Digest(l.name) != "" || a.o.StillCurrent(ctx, l.name, v)) {
			return v, true, true
		}
	}
	if v, open := b.open(ref.Host(l.name)); open {
		return v, false, true
	}
	start := a.o.Now()
	v, err := a.judge.Image(ctx, l.name)
	if err != nil {
		return unknown(verdict.ImageNotFound, err.Error()), false, true
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

// carved reports whether the image is a refuse-canary: its scope demands the key that never signs.
func (a *audit) carved(v verdict.Verdict) bool {
	if v.Scope == nil || v.Scope.Matched != "exact" || a.o.CanaryKey == "" {
		return false
	}
	return slices.ContainsFunc(v.Requirements,
		func(r verdict.Requirement) bool { return slices.Contains(r.Keys, a.o.CanaryKey) })
}

// vouch sets the release that names an unsigned image. An image of a release gets the release role.
func (a *audit) vouch(m *Image) {
	if a.o.Vouched == nil || m.Digest == "" {
		return
	}
	release := cmp.Or(a.o.Vouched(m.Digest), a.o.Vouched(m.Index))
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

// requireSigned refuses an accepted image without a signature of its own or of a release, which names its digest.
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
