package hostlimit

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answers is a host that gives these answers, one after the other, the last for ever.
type answers struct {
	mu     sync.Mutex
	next   []http.Response
	at     []time.Time
	bodies int // open ones
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = append(a.at, time.Now())
	r := a.next[0]
	if len(a.next) > 1 {
		a.next = a.next[1:]
	}
	a.bodies++
	r.Body = &countedBody{strings.NewReader("x"), a}
	return &r, nil
}

type countedBody struct {
	io.Reader
	a *answers
}

func (b *countedBody) Close() error {
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	b.a.bodies--
	return nil
}

func answer(status int, retryAfter string) http.Response {
	h := http.Header{}
	if retryAfter != "" {
		h.Set("Retry-After", retryAfter)
	}
	return http.Response{StatusCode: status, Header: h}
}

func TestTransport(t *testing.T) {
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // where synctest's time starts
	tests := []struct {
		name     string
		answers  []http.Response
		deadline time.Duration
		status   int // 0: a ThrottledError
		asked    []time.Duration
	}{
		{"fine", []http.Response{answer(200, "")}, time.Minute, 200, []time.Duration{0}},
		{
			"429 in seconds",
			[]http.Response{answer(429, "7"), answer(200, "")},
			time.Minute, 200,
			[]time.Duration{0, 7 * time.Second},
		},
		{
			"429 with a date",
			[]http.Response{answer(429, epoch.Add(9*time.Second).Format(http.TimeFormat)), answer(200, "")},
			time.Minute, 200,
			[]time.Duration{0, 9 * time.Second},
		},
		{"429 with a date that is over", []http.Response{
			answer(429, epoch.Add(-time.Hour).Format(http.TimeFormat)),
			answer(200, ""),
		}, time.Minute, 200, []time.Duration{0, time.Second}},
		{
			"503 in seconds",
			[]http.Response{answer(503, "3"), answer(404, "")},
			time.Minute, 404,
			[]time.Duration{0, 3 * time.Second},
		},
		{"503 that says no more", []http.Response{answer(503, "")}, time.Minute, 503, []time.Duration{0}},
		{
			"429 that says no more",
			[]http.Response{answer(429, ""), answer(429, "soon"), answer(200, "")},
			time.Minute, 200,
			[]time.Duration{0, time.Second, 3 * time.Second},
		},
		{
			"longer than there is time",
			[]http.Response{answer(429, "61"), answer(200, "")},
			time.Minute, 0,
			[]time.Duration{0},
		},
		{"again and again", []http.Response{answer(429, "1")}, time.Minute, 0, []time.Duration{0, 1e9, 2e9, 3e9, 4e9, 5e9}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), tt.deadline)
				defer cancel()
				host := &answers{next: tt.answers}
				limited := &Transport{Hosts: New(2), Base: host}
				start := time.Now()
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://registry.example/v2/", nil)
				check(t, err)
				res, err := limited.RoundTrip(req)
				var throttled *ThrottledError
				switch {
				case tt.status == 0 && !errors.As(err, &throttled), tt.status != 0 && (err != nil || res.StatusCode != tt.status):
					t.Fatalf("%v, %v", res, err)
				}
				if res != nil {
					res.Body.Close()
				}
				var asked []time.Duration
				for _, at := range host.at {
					asked = append(asked, at.Sub(start))
				}
				if len(asked) != len(tt.asked) {
					t.Fatalf("asked at %v, want %v", asked, tt.asked)
				}
				for i := range asked {
					if asked[i] != tt.asked[i] {
						t.Fatalf("asked at %v, want %v", asked, tt.asked)
					}
				}
				if n := len(limited.Hosts.Host("registry.example").slots); n != 0 || host.bodies != 0 {
					t.Errorf("%d places taken, %d bodies open", n, host.bodies)
				}
			})
		})
	}
}

// A host that asked one to wait is left alone by all, and another isn't.
func TestTransport_forAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &answers{next: []http.Response{answer(429, "10"), answer(200, "")}}
		limited := &Transport{Hosts: New(2), Base: host}
		start := time.Now()
		ask := func(name string) time.Duration {
			req, err := http.NewRequest(http.MethodGet, "https://"+name+"/", nil)
			check(t, err)
			res, err := limited.RoundTrip(req)
			check(t, err)
			res.Body.Close()
			return time.Since(start)
		}
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if d := ask("busy.example"); d != 10*time.Second {
					t.Errorf("asked after %s", d)
				}
			})
			synctest.Wait()
		}
		if d := ask("idle.example"); d != 0 {
			t.Errorf("another host was asked after %s", d)
		}
		wg.Wait()
	})
}

func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Shared[int]
		asked := 0
		late, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		ask := func(ctx context.Context) func() (int, error) {
			return func() (int, error) {
				asked++
				select {
				case <-time.After(2 * time.Second):
					return asked, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Do(late, "a", ask(late)); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() { // they wait for the first, which is out of time, and then for one of themselves
				if n, err := s.Do(context.Background(), "a", ask(context.Background())); n != 2 || err != nil {
					t.Error(n, err)
				}
			})
		}
		wg.Wait()
		s.Valid = func(n int) bool { return n > 2 }
		if n, err := s.Do(context.Background(), "a", ask(context.Background())); n != 3 || err != nil {
			t.Error(n, err)
		}
		broken := errors.New("broken")
		if _, err := s.Do(context.Background(), "b", func() (int, error) { return 0, broken }); !errors.Is(err, broken) {
			t.Error(err)
		}
		if n, err := s.Do(context.Background(), "b", func() (int, error) { return 5, nil }); n != 5 || err != nil {
			t.Error(n, err)
		}
		s.Size, s.Room = func(int) int { return 6 }, 10
		for want := range 3 { // there is room for the first only
			n, err := s.Do(context.Background(), "c"+strconv.Itoa(want/2), func() (int, error) { return 100 + want, nil })
			if err != nil || n != []int{100, 100, 102}[want] {
				t.Error(want, n, err)
			}
		}
	})
}
