package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// TestCompareChanged_skips shows what CompareChanged does not see, that Compare does, and that every other change is
// seen.
func TestCompareChanged_skips(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f := trust.File{
		Path: "/etc/containers/registries.d/a.yaml", Mode: 0o644, UID: uint32(os.Getuid()),
		GID: uint32(os.Getgid()), Data: []byte("docker: {}\n"),
	}
	want := trust.FileSet{f}
	if _, err := Replace(root, f); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, f.Path)
	var c Comparer
	// Files that have just changed are read each time; wait until this one is old enough.
	for deadline := time.Now().Add(time.Minute); len(c.right) == 0; time.Sleep(10 * time.Millisecond) {
		if ds := c.CompareChanged(root, want, nil); len(ds) > 0 || time.Now().After(deadline) {
			t.Fatalf("differences %v, remembered %d", ds, len(c.right))
		}
	}

	// A write through a memory map changes the times when the kernel likes: pretend that it has not yet.
	r := c.right[f.Path]
	if err := os.WriteFile(name, []byte("docker: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	before := r
	r.stat = statOf(&st)
	c.right[f.Path] = r
	if ds := c.CompareChanged(root, want, nil); len(ds) != 0 {
		t.Fatalf("CompareChanged read a file that seemed unchanged: %v", ds)
	}
	if ds := c.Compare(root, want, nil); len(ds) != 1 || ds[0].Kind != judge.Content {
		t.Fatalf("Compare: %v", ds)
	}

	// Any real write is seen, though size and mode are the same.
	c.right = map[string]right{f.Path: before}
	if ds := c.CompareChanged(root, want, nil); len(ds) != 1 || ds[0].Kind != judge.Content {
		t.Fatalf("CompareChanged after a write: %v", ds)
	}
}
