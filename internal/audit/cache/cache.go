// Package cache keeps verdicts between audits in a directory of the user. Damaged content counts as absent.
package cache

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Lifetimes of verdicts. The cache's key covers what can be read beforehand; the lifetime bounds unseen changes:
// signatures that are added, replaced or removed.
const (
	// DefaultAge is the lifetime of an accept, unless a key of the policy expires before; MaxAge is its maximum.
	DefaultAge = time.Hour
	MaxAge     = 24 * time.Hour
	// resumeAge is the lifetime of a refusal. It only serves an audit that resumes an interrupted one: before another
	// audit the user has probably fixed something.
	resumeAge = 15 * time.Minute
	// skew is the tolerated error of the clock.
	skew = time.Minute
)

// Limits of the stored data.
const (
	maxFile    = 64 << 20 // bytes of a file
	maxEntries = 50_000   // of a file
	maxFiles   = 16       // one for each policy and way to reach images
	maxEntry   = 1 << 20  // bytes of one verdict
)

const suffix = ".verdicts"

type Options struct {
	// Age is the lifetime of an accept; 0 means DefaultAge.
	Age time.Duration
	// Until ends every accept whatever its age: the first expiry of a key. Zero means never.
	Until time.Time
	Now   func() time.Time
}

// Cache holds the verdicts of one key. It is safe for concurrent use.
type Cache struct {
	o    Options
	root *os.Root
	name string
	file *os.File // locked; nil if another audit has the lock: then nothing is kept

	mu      sync.Mutex
	entries map[string]entry
	size    int64 // of the file
	dirty   bool  // the file holds outdated lines
}

// entry is a line of a file, behind its checksum.
type entry struct {
	Name    string          `json:"name"`
	At      time.Time       `json:"at"`
	Until   time.Time       `json:"until,omitzero"` // when the first key or signature of an accept expires
	Verdict verdict.Verdict `json:"verdict"`
}

// Open reads the verdicts of dir for key, which names everything that they depend on. It makes a missing directory.
// One that another user owns or can write to is an error.
func Open(dir, key string, o Options) (*Cache, error) {
	o.Age = min(cmp.Or(o.Age, DefaultAge), MaxAge)
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(key))
	c := &Cache{o: o, root: root, name: hex.EncodeToString(sum[:16]) + suffix, entries: map[string]entry{}}
	if err := c.open(dir); err != nil {
		root.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cache) open(dir string) error {
	st, err := c.root.Stat(".")
	if err != nil {
		return err
	}
	if err := trusted(st, 0o022); err != nil {
		return fmt.Errorf("%s %w", dir, err)
	}
	f, err := c.lock(dir)
	if err != nil {
		return err
	}
	if st, err = f.Stat(); err == nil {
		c.size = st.Size()
		err = c.read(f)
	}
	if err != nil {
		f.Close()
		return err
	}
	c.file = f
	if !flock(f) {
		c.file = nil
		f.Close()
	}
	return nil
}

// lock opens and locks the file, which another audit may replace meanwhile.
func (c *Cache) lock(dir string) (*os.File, error) {
	for range 3 {
		if st, err := c.root.Lstat(c.name); err == nil && !st.Mode().IsRegular() {
			return nil, fmt.Errorf("%s/%s is no regular file", dir, c.name)
		}
		f, err := c.root.OpenFile(c.name, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, err
		}
		opened, err := f.Stat()
		if err == nil {
			err = trusted(opened, 0o077)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("%s/%s %w", dir, c.name, err)
		}
		if now, err := c.root.Lstat(c.name); err == nil && os.SameFile(opened, now) {
			return f, nil
		}
		f.Close()
	}
	return nil, errors.New("another audit keeps replacing it")
}

// read takes all valid entries. It skips damaged lines.
func (c *Cache) read(f *os.File) error {
	lines := bufio.NewReaderSize(io.LimitReader(f, maxFile), 64<<10)
	now := c.o.Now()
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			e, ok := parse(line)
			switch {
			case ok && c.holds(e, now) && len(c.entries) < maxEntries:
				c.entries[e.Name] = e
			default:
				c.dirty = true
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func parse(line []byte) (e entry, ok bool) {
	sum, data, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	if !ok || string(sum) != checksum(data) || json.Unmarshal(data, &e) != nil {
		return entry{}, false
	}
	return e, e.Name != ""
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

func (c *Cache) holds(e entry, now time.Time) bool {
	age := now.Sub(e.At)
	if age < -skew {
		return false
	}
	switch e.Verdict.Answer {
	case verdict.Accept:
		return age < c.o.Age && before(now, c.o.Until) && before(now, e.Until)
	case verdict.Refuse:
		return age < resumeAge
	}
	return false
}

// before reports whether now is before until; a zero until means never.
func before(now, until time.Time) bool { return until.IsZero() || now.Before(until) }

// until returns the end of an accept whatever its age: the first expiry of the policy's keys or of its signatures.
func (c *Cache) until(v verdict.Verdict) time.Time {
	out := c.o.Until
	for _, r := range v.Requirements {
		for _, s := range r.Signatures {
			if s.Answer == verdict.Accept && !s.Expires.IsZero() && before(s.Expires, out) {
				out = s.Expires
			}
		}
	}
	return out
}

// Get returns the verdict on name if it is still valid.
func (c *Cache) Get(name string) (verdict.Verdict, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[name]
	if !ok || !c.holds(e, c.o.Now()) {
		return verdict.Verdict{}, false
	}
	return e.Verdict, true
}

// Put writes a verdict at once: the audit may be killed. Put drops unknown verdicts, and those that it can't write.
func (c *Cache) Put(name string, v verdict.Verdict) {
	if v.Answer != verdict.Accept && v.Answer != verdict.Refuse {
		return
	}
	e := entry{Name: name, At: c.o.Now().UTC(), Until: c.until(v), Verdict: v}
	line, ok := e.line()
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil || len(c.entries) >= maxEntries || c.size+int64(len(line)) > maxFile {
		return
	}
	n, err := c.file.Write(line)
	c.size += int64(n)
	if err != nil {
		c.dirty = true
		return
	}
	if _, ok := c.entries[name]; ok {
		c.dirty = true
	}
	c.entries[name] = e
}

func (e entry) line() ([]byte, bool) {
	data, err := json.Marshal(e)
	if err != nil || len(data) > maxEntry {
		return nil, false
	}
	return fmt.Appendf(nil, "%s %s\n", checksum(data), data), true
}

// Close releases the cache. A complete audit forgets its refusals.
func (c *Cache) Close(complete bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.root.Close()
	if c.file == nil {
		return nil
	}
	defer c.file.Close()
	if complete {
		before := len(c.entries)
		maps.DeleteFunc(c.entries, func(_ string, e entry) bool { return e.Verdict.Answer != verdict.Accept })
		c.dirty = c.dirty || len(c.entries) < before
	}
	var err error
	if c.dirty {
		err = c.rewrite()
	}
	return errors.Join(err, c.sweep())
}

func (c *Cache) rewrite() error {
	var b bytes.Buffer
	now := c.o.Now()
	for _, name := range slices.Sorted(maps.Keys(c.entries)) {
		if e := c.entries[name]; c.holds(e, now) {
			if line, ok := e.line(); ok {
				b.Write(line)
			}
		}
	}
	f, err := renameio.NewPendingFile(c.name, renameio.WithRoot(c.root), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	if _, err := f.Write(b.Bytes()); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// sweep removes the files unused for longest, and partial files of killed audits.
func (c *Cache) sweep() error {
	dir, err := c.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		hidden := strings.HasPrefix(e.Name(), ".") // renameio's name of a partial file
		switch {
		case hidden && strings.Contains(e.Name(), suffix) && c.o.Now().Sub(st.ModTime()) > time.Hour:
			_ = c.root.Remove(e.Name())
		case !hidden && strings.HasSuffix(e.Name(), suffix):
			files = append(files, st)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, st := range files[min(maxFiles, len(files)):] {
		if st.Name() != c.name {
			_ = c.root.Remove(st.Name())
		}
	}
	return nil
}

// trusted returns an error if another user may have written the file: its owner, or a mode in modes.
func trusted(st fs.FileInfo, modes fs.FileMode) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("has an owner that can't be told")
	case int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("belongs to user %d", sys.Uid)
	case st.Mode().Perm()&modes != 0:
		return fmt.Errorf("has mode %04o: other users may read or write it", st.Mode().Perm())
	}
	return nil
}

func flock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
