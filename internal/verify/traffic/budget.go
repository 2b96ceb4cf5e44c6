package traffic

import (
	"context"
	"io"
	"net/url"
	"sync"
	"time"
)

// Budget is the number of bytes that may be received for one evaluation, by whatever reader. The nil Budget has no end.
// A Budget may be used by several goroutines.
type Budget struct {
	// Others is the number of bytes of memory that other evaluations may take meanwhile.
	Others int64
	// Small is true of a budget that is replaced by a larger one when it is exceeded.
	Small bool

	mu          sync.Mutex
	limit, left int64
}

// NewBudget makes a budget of so many bytes.
func NewBudget(bytes int64) *Budget { return &Budget{limit: bytes, left: bytes} }

// Spend takes n bytes of the budget. A *TooMuchError says that fewer were left; every later answer is the same.
func (b *Budget) Spend(n int64) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left -= n; b.left < 0 {
		return TooMuch("more than %d bytes were received in all", b.limit)
	}
	return nil
}

// exhaust leaves nothing of the budget.
func (b *Budget) exhaust() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(b.left, -1)
}

// Exceeded reports whether more was spent than there was.
func (b *Budget) Exceeded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left < 0
}

type budgetKey struct{}

// WithBudget returns a context whose readers, Watch and Body, spend of the budget.
func WithBudget(ctx context.Context, b *Budget) context.Context {
	return context.WithValue(ctx, budgetKey{}, b)
}

// TooLarge exhausts the context's budget if that is a small one: an image that is known to be large is not to be read
// beside many others, not by the library either.
func TooLarge(ctx context.Context) {
	if b := budgetOf(ctx); b != nil && b.Small {
		b.exhaust()
	}
}

// HasBudget reports whether WithBudget made the context, or one above it.
func HasBudget(ctx context.Context) bool { return budgetOf(ctx) != nil }

func budgetOf(ctx context.Context) *Budget {
	b, _ := ctx.Value(budgetKey{}).(*Budget)
	return b
}

// Body returns r with its bytes spent of the context's budget: beyond the budget reading ends with a *TooMuchError.
func Body(ctx context.Context, r io.Reader) io.Reader {
	if b := budgetOf(ctx); b != nil {
		return &spending{r, b}
	}
	return r
}

type spending struct {
	r io.Reader
	b *Budget
}

func (s *spending) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if spent := s.b.Spend(int64(n)); spent != nil {
		return n, spent
	}
	return n, err
}

// lookEvery is the time between two looks at how much has come in. The library reads some bodies to their end, those of
// errors among them, and has no door to the reader. Between two looks a server on this machine sends a MiB or two.
const lookEvery = time.Millisecond

// look ends the library's requests when one of the limits is passed. It returns after Close.
func (r *Requests) look() {
	r.mu.Lock()
	quit := r.quit
	r.mu.Unlock()
	if quit == nil {
		return
	}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-quit:
			return
		case <-t.C:
			r.mu.Lock()
			r.check()
			r.mu.Unlock()
		}
	}
}

// check compares what was received with all limits. The caller holds the lock.
func (r *Requests) check() {
	got := r.received()
	err := r.budget.Spend(got - r.spent)
	r.spent = got
	switch {
	case r.tooMuch != nil:
		return
	case err != nil:
	case r.limit > 0 && got-r.base > r.limit:
		err = TooMuch("%d bytes of %s so far, and no end", got-r.base, r.what)
	case r.each > 0 && got-r.last > r.each:
		err = TooMuch("more than %d bytes in one answer", r.each)
	default:
		if err = r.memory.check(got); err == nil {
			return
		}
		r.budget.exhaust()
	}
	if n := len(r.urls); n > 0 {
		err = TooMuch("%s: %w", place(r.urls[n-1]), err)
	}
	r.tooMuch = err
	for _, cancel := range r.cancel {
		cancel(err)
	}
}

// place returns a URL without user, password and query.
func place(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return c.String()
}

// TooMuch returns a *TooMuchError once a limit was passed, nil before: later errors of the library say nothing more.
func (r *Requests) TooMuch() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tooMuch
}

// BoundEach ends an answer of more than this many bytes, headers included, while it is read. 0 takes the bound away.
func (r *Requests) BoundEach(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.each = bytes
}

// OnlyEach is BoundEach, and takes all other bounds away, the budget among them.
func (r *Requests) OnlyEach(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.budget, r.limit, r.most, r.each = nil, 0, 0, bytes
}
