package cluster

import "testing"

// TestListing: all pods of a large cluster are read in pages, and hardly more than one page is held at any time.
func TestListing(t *testing.T) {
	const (
		pods = 5000
		page = 500
		// mostLive is a quarter of what is read and not needed.
		mostLive = pods * PodMargin / 4
	)
	c := need(t)
	remove, err := c.FillPods(pods, c.Signed, c.Unsigned)
	must(t, err)
	t.Cleanup(func() { must(t, remove()) })
	l, err := c.ListPods(t.Context())
	must(t, err)
	t.Logf("%+v", l)
	if l.Pods < pods || l.Pages < pods/page || l.Pages > l.Pods/page+2 {
		t.Errorf("%d pods in %d pages, want at least %d in pages of %d", l.Pods, l.Pages, pods, page)
	}
	if l.Live > mostLive {
		t.Errorf("%d bytes were held at a time, want at most %d", l.Live, mostLive)
	}
}
