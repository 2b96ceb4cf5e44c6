package watch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

var errNone = errors.New("too many open files")

type tree struct {
	t    *testing.T
	root string
	w    *Watcher
}

func (tr tree) path(p string) string { return filepath.Join(tr.root, p) }

func (tr tree) must(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func (tr tree) mkdir(p string) { tr.t.Helper(); tr.must(os.MkdirAll(tr.path(p), 0o755)) }

func (tr tree) write(p string) {
	tr.t.Helper()
	tr.must(os.WriteFile(tr.path(p), []byte(time.Now().String()), 0o644))
}

// set is what the owner does before each look.
func (tr tree) set() {
	tr.w.Set(map[string][]string{tr.root: {tr.path("etc/containers/registries.d"), tr.path("etc/crio/policies")}})
}

// quiet takes the hints that are on their way, as their owner does.
func (tr tree) quiet() {
	for {
		select {
		case <-tr.w.C():
			tr.set()
		case <-time.After(50 * time.Millisecond):
			return
		}
	}
}

func (tr tree) hinted() {
	tr.t.Helper()
	select {
	case <-tr.w.C():
	case <-time.After(time.Minute):
		tr.t.Fatal("no hint")
	}
}

func TestHints(t *testing.T) {
	for _, tt := range []struct {
		name string
		// before happens unwatched, or is looked at; the last write must be hinted at.
		do func(tr tree)
	}{
		{"file written", func(tr tree) { tr.write("etc/containers/registries.d/a.yaml") }},
		{"file replaced twice", func(tr tree) {
			for range 2 {
				tr.quiet()
				tr.write("etc/containers/registries.d/.tmp")
				tr.must(os.Rename(tr.path("etc/containers/registries.d/.tmp"), tr.path("etc/containers/registries.d/a.yaml")))
			}
		}},
		{"mode changed", func(tr tree) { tr.must(os.Chmod(tr.path("etc/containers/registries.d/a.yaml"), 0o666)) }},
		{"owner changed", func(tr tree) {
			tr.must(os.Chown(tr.path("etc/containers/registries.d/a.yaml"), os.Geteuid(), os.Getegid()))
		}},
		{"file in the parent", func(tr tree) { tr.write("etc/containers/policy.json") }},
		{"directory comes to be", func(tr tree) { tr.mkdir("etc/crio") }},
		{"file in a directory that came to be", func(tr tree) {
			tr.mkdir("etc/crio/policies")
			tr.set()
			tr.quiet()
			tr.write("etc/crio/policies/ns.json")
		}},
		{"whole directory renamed away", func(tr tree) {
			tr.must(os.Rename(tr.path("etc/containers"), tr.path("etc/containers.old")))
		}},
		{"file in the directory that took its place", func(tr tree) {
			tr.must(os.Rename(tr.path("etc/containers/registries.d"), tr.path("etc/old")))
			tr.mkdir("etc/containers/registries.d")
			tr.set()
			tr.quiet()
			tr.write("etc/containers/registries.d/a.yaml")
		}},
		{"file after the parent was replaced", func(tr tree) {
			tr.must(os.RemoveAll(tr.path("etc/containers")))
			tr.mkdir("etc/containers/registries.d")
			tr.set()
			tr.quiet()
			tr.write("etc/containers/registries.d/a.yaml")
		}},
		{"file after a look while the directory was gone", func(tr tree) {
			tr.must(os.RemoveAll(tr.path("etc/containers")))
			tr.set()
			tr.mkdir("etc/containers/registries.d")
			tr.set()
			tr.quiet()
			tr.write("etc/containers/registries.d/a.yaml")
		}},
		{"symlinked directory leads elsewhere", func(tr tree) {
			tr.mkdir("etc/one")
			tr.mkdir("etc/two")
			tr.must(os.RemoveAll(tr.path("etc/containers/registries.d")))
			tr.must(os.Symlink("../one", tr.path("etc/containers/registries.d")))
			tr.set()
			tr.must(os.Remove(tr.path("etc/containers/registries.d")))
			tr.must(os.Symlink("../two", tr.path("etc/containers/registries.d")))
			tr.set()
			tr.quiet()
			tr.write("etc/two/a.yaml")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := tree{t, t.TempDir(), New(slog.New(slog.DiscardHandler))}
			defer tr.w.Close()
			tr.mkdir("etc/containers/registries.d")
			tr.write("etc/containers/registries.d/a.yaml")
			tr.set()
			tr.quiet()
			tt.do(tr)
			tr.hinted()
		})
	}
}

func TestReplacedDirectoryIsNotWatchedAnyMore(t *testing.T) {
	tr := tree{t, t.TempDir(), New(slog.New(slog.DiscardHandler))}
	defer tr.w.Close()
	tr.mkdir("etc/containers/registries.d")
	tr.set()
	tr.must(os.Rename(tr.path("etc/containers/registries.d"), tr.path("old")))
	tr.mkdir("etc/containers/registries.d")
	tr.set()
	// A hint may be a late one of what happened before; if each write brings one, it is watched.
	for range 20 {
		tr.quiet()
		tr.write("old/x")
		select {
		case <-tr.w.C():
		case <-time.After(200 * time.Millisecond):
			return
		}
	}
	t.Error("hints of a directory that is none of ours")
}

func TestManyEventsAreOneHint(t *testing.T) {
	tr := tree{t, t.TempDir(), New(slog.New(slog.DiscardHandler))}
	defer tr.w.Close()
	tr.mkdir("etc/containers/registries.d")
	tr.set()
	for range 100 {
		tr.write("etc/containers/registries.d/a.yaml")
	}
	for end := time.Now().Add(time.Minute); len(tr.w.C()) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // for the other events
	if n := len(tr.w.C()); n != 1 {
		t.Errorf("%d hints are waiting", n)
	}
}

func TestOneInstanceAndNoneAfterClose(t *testing.T) {
	before := instances(t)
	tr := tree{t, t.TempDir(), New(slog.New(slog.DiscardHandler))}
	tr.mkdir("etc/containers/registries.d")
	for range 20 {
		tr.must(os.RemoveAll(tr.path("etc")))
		tr.mkdir("etc/containers/registries.d")
		tr.set()
	}
	if n := instances(t); n != before+1 {
		t.Errorf("%d instances while watching, %d before", n, before)
	}
	tr.w.Close()
	if n := instances(t); n != before {
		t.Errorf("%d instances after Close, %d before", n, before)
	}
}

func instances(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, _ := os.Readlink("/proc/self/fd/" + fd.Name()); target == "anon_inode:inotify" {
			n++
		}
	}
	return n
}

func TestPollingWithoutInotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var count counter
		w := start(slog.New(&count), func() (*fsnotify.Watcher, error) { return nil, errNone })
		defer w.Close()
		w.Set(map[string][]string{"/": {t.TempDir()}})
		begin := time.Now()
		for range 5 {
			<-w.C()
		}
		if d := time.Since(begin); d != 5*pollInterval {
			t.Errorf("five hints took %v", d)
		}
		time.Sleep(10 * retryInterval)
		if !w.Polling() {
			t.Error("not polling")
		}
		if count.warnings != 1 {
			t.Errorf("%d warnings", count.warnings)
		}
	})
}

func TestPollingEndsWhenAnInstanceIsThere(t *testing.T) {
	// Made outside the bubble: its goroutine waits for the kernel.
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		w := start(slog.New(slog.DiscardHandler), func() (*fsnotify.Watcher, error) {
			if tries++; tries < 3 {
				return nil, errNone
			}
			return fs, nil
		})
		defer w.Close()
		w.Set(map[string][]string{filepath.Dir(dir): {dir}})
		begin := time.Now()
		for w.Polling() {
			<-w.C()
		}
		if d := time.Since(begin); d < 2*retryInterval || d > 2*retryInterval+2*pollInterval {
			t.Errorf("took %v", d)
		}
		if got := fs.WatchList(); len(got) != 1 || got[0] != dir {
			t.Errorf("watches %q", got)
		}
	})
}

func TestOverflowIsAHint(t *testing.T) {
	events, errs := make(chan fsnotify.Event), make(chan error)
	w := start(slog.New(slog.DiscardHandler), func() (*fsnotify.Watcher, error) {
		fs, err := fsnotify.NewWatcher()
		if err == nil {
			fs.Events, fs.Errors = events, errs
		}
		return fs, err
	})
	defer w.Close()
	errs <- fsnotify.ErrEventOverflow
	<-w.C()
	if w.Polling() {
		t.Error("an overflow ended the watch")
	}
	errs <- unix.EIO
	<-w.C()
	for end := time.Now().Add(time.Minute); !w.Polling(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a failed watch is still relied on")
		}
	}
}

// counter counts warnings.
type counter struct{ warnings int }

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }
func (c *counter) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counter) WithGroup(string) slog.Handler            { return c }

func (c *counter) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		c.warnings++
	}
	return nil
}
