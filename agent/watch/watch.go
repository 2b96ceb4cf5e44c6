// Package watch hints that something below some directories may have changed. A hint says neither what nor whether,
// and some changes give none: mounts, hard links, mmap, overlays. So look at everything now and then.
package watch

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	// pollInterval is the time between hints without an inotify instance.
	pollInterval = 2 * time.Second
	// retryInterval is the time between tries to get an inotify instance.
	retryInterval = time.Minute
)

// Watcher watches directories. Its methods are safe for concurrent use.
type Watcher struct {
	log   *slog.Logger
	hints chan struct{}
	stop  chan struct{}
	done  sync.WaitGroup
	// open makes the fsnotify watcher; tests replace it.
	open func() (*fsnotify.Watcher, error)

	mu    sync.Mutex
	fs    *fsnotify.Watcher // nil while polling
	dirs  []string
	known map[string]inode // by path: the inode under watch
}

type inode struct{ dev, ino uint64 }

// New starts a Watcher without directories. Close ends it.
func New(log *slog.Logger) *Watcher { return start(log, fsnotify.NewWatcher) }

func start(log *slog.Logger, open func() (*fsnotify.Watcher, error)) *Watcher {
	w := &Watcher{
		log: log, open: open,
		hints: make(chan struct{}, 1), stop: make(chan struct{}), known: map[string]inode{},
	}
	fs, err := open()
	if err != nil {
		log.Warn("no inotify instance, polling instead", "err", err)
	}
	w.fs = fs
	w.done.Go(w.run)
	return w
}

// C receives a hint when something may have changed since the last hint was taken.
func (w *Watcher) C() <-chan struct{} { return w.hints }

// Polling reports whether hints come by the clock instead of by events.
func (w *Watcher) Polling() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fs == nil
}

// Close stops the watcher and waits for its end.
func (w *Watcher) Close() {
	close(w.stop)
	w.done.Wait()
}

// Set watches dirs from now on, and the parents of each up to its key. None of them need exist. Call Set at each look:
// it moves watches whose path leads to another directory now.
func (w *Watcher) Set(dirs map[string][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirs = withParents(dirs)
	w.refresh()
}

// withParents returns dirs and the directories between each and its top, without the top.
func withParents(dirs map[string][]string) []string {
	var out []string
	for top, ds := range dirs {
		for _, d := range ds {
			for d = filepath.Clean(d); d != top && d != "/" && d != "."; d = filepath.Dir(d) {
				out = append(out, d)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// refresh adapts the watches to the present directories. It compares inodes: fsnotify knows only paths, and keeps
// watching a renamed directory.
func (w *Watcher) refresh() {
	if w.fs == nil {
		return
	}
	for path := range w.known {
		if _, found := slices.BinarySearch(w.dirs, path); !found {
			w.forget(path)
		}
	}
	// Watches that fsnotify dropped by itself: a new directory may have the inode of the removed one.
	listed := map[string]bool{}
	for _, p := range w.fs.WatchList() {
		listed[p] = true
	}
	added := false
	for _, d := range w.dirs {
		var st unix.Stat_t
		if unix.Stat(d, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			w.forget(d)
			continue
		}
		now := inode{st.Dev, st.Ino}
		if was, ok := w.known[d]; ok && was == now && listed[d] {
			continue
		}
		w.forget(d)
		if err := w.fs.Add(d); err != nil {
			// No watches left, or the directory is gone: the resync finds missed changes.
			w.log.Debug("watching", "path", d, "err", err)
			continue
		}
		w.known[d] = now
		added = true
	}
	if added {
		w.hint() // for changes before the watch was there
	}
}

func (w *Watcher) forget(path string) {
	if _, ok := w.known[path]; !ok {
		return
	}
	delete(w.known, path)
	_ = w.fs.Remove(path) // fails if the kernel dropped the watch with its directory
}

func (w *Watcher) hint() {
	select {
	case w.hints <- struct{}{}:
	default:
	}
}

func (w *Watcher) run() {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.fs != nil {
			_ = w.fs.Close()
		}
	}()
	for {
		w.mu.Lock()
		fs := w.fs
		w.mu.Unlock()
		if fs != nil {
			if !w.events(fs) {
				return
			}
			w.lost(fs)
		}
		if !w.poll() {
			return
		}
	}
}

// events turns events into hints until fs fails (true) or the watcher is closed (false).
func (w *Watcher) events(fs *fsnotify.Watcher) bool {
	for {
		select {
		case <-w.stop:
			return false
		case _, ok := <-fs.Events:
			if !ok {
				return true
			}
			w.hint()
		case err, ok := <-fs.Errors:
			if !ok {
				return true
			}
			w.hint()
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				w.log.Warn("inotify failed, polling instead", "err", err)
				return true
			}
		}
	}
}

func (w *Watcher) lost(fs *fsnotify.Watcher) {
	_ = fs.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fs = nil
	clear(w.known)
}

// poll gives hints by the clock until an inotify instance is there (true) or the watcher is closed (false).
func (w *Watcher) poll() bool {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-w.stop:
			return false
		case <-tick.C:
		}
		w.hint()
		if time.Since(last) < retryInterval {
			continue
		}
		last = time.Now()
		fs, err := w.open()
		if err != nil {
			continue
		}
		w.log.Info("inotify instance is there, polling ends")
		w.mu.Lock()
		w.fs = fs
		w.refresh()
		w.mu.Unlock()
		w.hint()
		return true
	}
}
