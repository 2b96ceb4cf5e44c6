package verify

import (
	"context"
	"slices"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// read judges an image of a registry with what a fetcher reads, which sees what was asked and answered. Where that
// isn't as regular as can be, the library reads the image again, and its word counts.
func (e *evaluation) read(ctx context.Context) {
	if e.target.local() {
		e.judge(ctx)
		return
	}
	ctx, cancel := e.bound(withBudget(ctx))
	defer cancel()
	f := fetch.One()
	defer f.Close()
	unread := e.clone()
	err := e.fetch(ctx, f)
	if ctx.Err() == nil && (err != nil || e.askLibrary()) {
		unread.byLibrary(ctx, e)
		*e = *unread
	}
}

// bound keeps reading short where what is read only completes a verdict that stands.
func (e *evaluation) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if e.settled {
		return context.WithTimeout(ctx, settledTimeout)
	}
	return context.WithCancel(ctx)
}

// clone is e before anything was read.
func (e *evaluation) clone() *evaluation {
	c := *e
	c.v.Requirements = slices.Clone(e.v.Requirements)
	return &c
}

// fetch judges with what f reads. After an error that was worth nothing.
func (e *evaluation) fetch(ctx context.Context, f *fetch.Fetcher) error {
	e.log = &fetch.Log{}
	ctx = traffic.Logins(e.log.Watch(ctx), e.secrets.AddAuthorization)
	src, err := f.Open(ctx, e.image())
	if err != nil {
		e.tellFetched(0)
		if ctx.Err() != nil {
			e.stop(verdict.Timeout, "interrupted")
		}
		return err
	}
	e.fetched = src
	e.judge(ctx)
	e.tellFetched(0)
	return e.fetched.Err()
}

// byLibrary judges with what the library reads, after a fetcher has read for first. The library tells no status; where
// it failed at the request that the fetcher got an error status for too, that is it.
func (e *evaluation) byLibrary(ctx context.Context, first *evaluation) {
	e.log, e.asked, e.beside = first.log, first.asked, first.fetched
	made := e.log.Requests()
	if n := len(made); n > 0 && made[n-1].Status >= 400 {
		e.refusal = &made[n-1]
	}
	e.judge(e.log.Watch(ctx))
	e.tellFetched(len(made))
}

// besides is how to ask the registry for more than the image; nil if a fetcher doesn't know the way.
func (e *evaluation) besides() *fetch.Source {
	if e.fetched != nil {
		return e.fetched
	}
	return e.beside
}
