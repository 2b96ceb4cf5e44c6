package cache

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

var (
	accept = verdict.Verdict{
		Image: "a", Digest: "sha256:1",
		Outcome: verdict.Outcome{Answer: verdict.Accept, Message: "signed"},
	}
	refuse  = verdict.Verdict{Image: "r", Outcome: verdict.Outcome{Answer: verdict.Refuse, Reason: verdict.NoSignature}}
	unknown = verdict.Verdict{Image: "u", Outcome: verdict.Outcome{Answer: verdict.Unknown, Reason: verdict.Timeout}}
)

// world is a directory and a clock.
type world struct {
	*testing.T
	dir string
	now time.Time
	o   Options
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, dir: filepath.Join(t.TempDir(), "a", "b"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.o.Now = func() time.Time { return w.now }
	return w
}

func (w *world) open(key string) *Cache {
	w.Helper()
	c, err := Open(w.dir, key, w.o)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w *world) close(c *Cache, complete bool) {
	w.Helper()
	if err := c.Close(complete); err != nil {
		w.Fatal(err)
	}
}

// has reports what a new audit would get for the three names.
func (w *world) has(key string) (got string) {
	w.Helper()
	c := w.open(key)
	defer c.file.Close() // no Close: it would change what is kept
	defer c.root.Close()
	for _, name := range []string{"a", "r", "u"} {
		if v, ok := c.Get(name); ok {
			got += name
			if v.Image != name {
				w.Errorf("got the verdict of %s for %s", v.Image, name)
			}
		}
	}
	return got
}

func (w *world) put(key string, complete bool) {
	w.Helper()
	c := w.open(key)
	c.Put("a", accept)
	c.Put("r", refuse)
	c.Put("u", unknown)
	w.close(c, complete)
}

func (w *world) want(got, want, when string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: kept %q, want %q", when, got, want)
	}
}

func TestCache_age(t *testing.T) {
	w := newWorld(t)
	w.put("key", false)
	w.want(w.has("key"), "ar", "after an interrupted audit")
	w.want(w.has("other"), "", "under another key")
	w.now = w.now.Add(resumeAge)
	w.want(w.has("key"), "a", "when refusals are too old")
	w.now = w.now.Add(DefaultAge)
	w.want(w.has("key"), "", "when accepts are too old")

	w.put("key", true)
	w.want(w.has("key"), "a", "after a complete audit")
	w.o.Until = w.now
	w.want(w.has("key"), "", "when a key has expired")
	w.o.Until = w.now.Add(time.Second)
	w.want(w.has("key"), "a", "before a key expires")
	w.now = w.now.Add(-time.Hour)
	w.want(w.has("key"), "", "when the clock was set back")
}

// TestCache_expiry: an accept never outlives what it rests on, whatever is known of that when it is looked at again.
func TestCache_expiry(t *testing.T) {
	w := newWorld(t)
	expires := w.now.Add(10 * time.Minute)
	for _, tt := range []struct {
		name    string
		key     time.Time
		accept  verdict.Answer
		expires time.Time
		want    string // afterwards
	}{
		{"nothing expires", time.Time{}, verdict.Accept, time.Time{}, "a"},
		{"key", expires, verdict.Accept, time.Time{}, ""},
		{"signature", time.Time{}, verdict.Accept, expires, ""},
		{"signature, later than the key", expires, verdict.Accept, expires.Add(time.Hour), ""},
		{"key, later than the signature", expires.Add(time.Hour), verdict.Accept, expires, ""},
		{"signature that wasn't needed", time.Time{}, verdict.Refuse, expires, "a"},
	} {
		w.o.Until = tt.key
		v := accept
		v.Requirements = []verdict.Requirement{{Signatures: []verdict.Signature{{Answer: tt.accept, Expires: tt.expires}}}}
		c := w.open(tt.name)
		c.Put("a", v)
		w.close(c, true)
		w.o.Until = time.Time{} // the next audit knows of no key that will expire
		w.now = expires.Add(-time.Second)
		w.want(w.has(tt.name), "a", tt.name+", before")
		w.now = expires
		w.want(w.has(tt.name), tt.want, tt.name+", after")
		w.now = expires.Add(-10 * time.Minute)
	}
}

// TestCache_killed: what was put is kept without Close.
func TestCache_killed(t *testing.T) {
	w := newWorld(t)
	c := w.open("key")
	c.Put("a", accept)
	c.Put("r", refuse)
	c.file.Close()
	w.want(w.has("key"), "ar", "after a kill")
}

func TestCache_damaged(t *testing.T) {
	w := newWorld(t)
	w.put("key", false)
	files, err := filepath.Glob(filepath.Join(w.dir, "*"+suffix))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"cut off", good[:len(good)-5], "a"},
		{"garbage in front", append([]byte("\x00\xff garbage\n"), good...), "ar"},
		{"another answer", bytes.Replace(good, []byte(`"verdict":"refuse"`), []byte(`"verdict":"accept"`), 1), "a"},
		{"empty", nil, ""},
		{"no newline at all", bytes.Repeat([]byte("x"), 1<<20), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(files[0], tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			w.want(w.has("key"), tt.want, tt.name)
			w.put("key", false) // and it can be used on
			w.want(w.has("key"), "ar", "after "+tt.name)
		})
	}
}

func TestCache_modes(t *testing.T) {
	w := newWorld(t)
	w.put("key", false)
	entries, err := os.ReadDir(w.dir)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	file := filepath.Join(w.dir, entries[0].Name())
	for path, want := range map[string]os.FileMode{w.dir: 0o700, file: 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", path, st.Mode().Perm(), want, err)
		}
	}
	try := func(what string) {
		t.Helper()
		if c, err := Open(w.dir, "key", w.o); err == nil {
			c.Close(false)
			t.Errorf("%s: trusted", what)
		}
	}
	for path, mode := range map[string]os.FileMode{w.dir: 0o770, file: 0o644} {
		before, _ := os.Stat(path)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		try(fmt.Sprintf("mode %v of %s", mode, filepath.Base(path)))
		if err := os.Chmod(path, before.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(file, file+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Base(file)+".moved", file); err != nil {
		t.Fatal(err)
	}
	try("a link")
	if os.Geteuid() != 0 {
		t.Skip("owners are tried as root only")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".moved", file); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, w.dir} {
		if err := os.Chown(path, 65532, 65532); err != nil {
			t.Fatal(err)
		}
		try("another owner of " + filepath.Base(path))
	}
}

// TestCache_bounded: files of old policies go, the one in use stays.
func TestCache_bounded(t *testing.T) {
	w := newWorld(t)
	for i := range maxFiles + 5 {
		w.put(fmt.Sprint("key", i), true)
		path := filepath.Join(w.dir, w.open(fmt.Sprint("key", i)).name)
		at := w.now.Add(time.Duration(i) * time.Second)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	w.put("last", true)
	files, err := filepath.Glob(filepath.Join(w.dir, "*"))
	if err != nil || len(files) != maxFiles {
		t.Errorf("%d files: %v", len(files), err)
	}
	w.want(w.has("last"), "a", "the newest")
	w.want(w.has("key0"), "", "the oldest")
}

// TestCache_two: a second audit at the same time reads, and spoils nothing.
func TestCache_two(t *testing.T) {
	w := newWorld(t)
	one := w.open("key")
	one.Put("a", accept)
	two := w.open("key")
	if _, ok := two.Get("a"); !ok {
		t.Error("the second doesn't see what the first has kept")
	}
	two.Put("r", refuse)
	w.close(two, true)
	one.Put("r", refuse)
	w.close(one, false)
	w.want(w.has("key"), "ar", "after both")
}
