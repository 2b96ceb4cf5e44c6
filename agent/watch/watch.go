// Package watch gives hints that something below some directories may have changed. A hint says neither what nor
// whether; no hint says nothing: mounts, hard links, mmap and overlays change files in silence. Look at everything
// now and then.
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
	// pollInterval is how often a hint is given where no inotify instance is to be had.
	pollInterval = 2 * time.Second
	// retryInterval is how often one is asked for again.
	retryInterval = time.Minute
)

// Watcher watches directories. Its methods are safe for concurrent use.
type Watcher struct {
	log   *slog.Logger
	hints chan struct{}
	stop  chan struct{}
	done  sync.WaitGroup
	// open makes the fsnotify watcher; tests make it fail.
	open func() (*fsnotify.Watcher, error)

	mu    sync.Mutex
	fs    *fsnotify.Watcher // nil while polling
	dirs  []string
	known map[string]inode // what the watch at a path is on
}

type inode struct{ dev, ino uint64 }

// New starts a watcher of nothing. It ends with Close.
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

// C has a hint in it when something may have changed since the last one was taken.
func (w *Watcher) C() <-chan struct{} { return w.hints }

// Polling reports whether hints come by the clock instead of by events.
func (w *Watcher) Polling() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fs == nil
}

// Close stops the watcher and waits until it has.
func (w *Watcher) Close() {
	close(w.stop)
	w.done.Wait()
}

// Set watches directories from now on, and the parents of each up to the key that it is listed under; none of them
// need exist. Where a path leads to another directory than before, the watch moves along: so it is to be called at
// each look.
func (w *Watcher) Set(dirs map[string][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirs = withParents(dirs)
	w.refresh()
}

// withParents adds the directories between each of dirs and its top, without the top itself.
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

// refresh makes the watches fit the directories as they are now. A directory is recognised by its inode: fsnotify knows
// only paths, and goes on watching one that was renamed away.
func (w *Watcher) refresh() {
	if w.fs == nil {
		return
	}
	for path := range w.known {
		if _, found := slices.BinarySearch(w.dirs, path); !found {
			w.forget(path)
		}
	}
	// What fsnotify has dropped by itself: a new directory may well have the inode of the one that was removed.
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
			// Out of watches, or gone meanwhile: the resync finds what is missed.
			w.log.Debug("watching", "path", d, "err", err)
			continue
		}
		w.known[d] = now
		added = true
	}
	if added {
		w.hint() // for what happened before the watch was there
	}
}

func (w *Watcher) forget(path string) {
	if _, ok := w.known[path]; !ok {
		return
	}
	delete(w.known, path)
	_ = w.fs.Remove(path) // fails if the kernel has dropped the watch with its directory
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
