package hostfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRoot reads through links as a process of the host would, and nothing of the machine around it.
func TestRoot(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "root")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(root, "etc/dir"), 0o755))
	must(os.WriteFile(filepath.Join(top, "secret"), []byte("of the machine"), 0o644))
	must(os.WriteFile(filepath.Join(root, "etc/file"), []byte("of the host"), 0o644))
	must(syscall.Mkfifo(filepath.Join(root, "etc/pipe"), 0o644))
	for name, target := range map[string]string{
		"absolute": "/etc/file", "relative": "etc/file", "up": "../../../etc/file", "twice": "absolute",
		"out": filepath.Join(top, "secret"), "up-and-out": "../secret", "loop": "loop", "usr": "etc",
	} {
		must(os.Symlink(target, filepath.Join(root, name)))
	}
	for path, want := range map[string]string{
		"/etc/file": "of the host", "etc/file": "of the host", "/etc/../etc/./file": "of the host",
		"/usr/file": "of the host",
		"/absolute": "of the host", "/relative": "of the host", "/up": "of the host", "/twice": "of the host",
		"/../etc/file": "of the host",
	} {
		if b, err := Root(root).ReadFile(path, 11); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	for path, want := range map[string]error{
		"/out": fs.ErrNotExist, "/up-and-out": fs.ErrNotExist, "/none": fs.ErrNotExist, "/loop": syscall.ELOOP,
		"/etc/pipe": nil, "/etc/dir": nil,
	} {
		b, err := Root(root).ReadFile(path, 100)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		if err != nil && (!strings.Contains(err.Error(), " "+path+":") || strings.Contains(err.Error(), top)) {
			t.Errorf("%s: the error %v doesn't name the path as the host knows it", path, err)
		}
	}
	if _, err := Root(root).ReadFile("/etc/file", 10); err == nil ||
		!strings.Contains(err.Error(), "larger than 10 bytes") {
		t.Errorf("too large: %v", err)
	}
	entries, err := Root(root).ReadDir("/usr")
	if err != nil || len(entries) != 3 || entries[0].Name() != "dir" {
		t.Errorf("directory: %v, %v", entries, err)
	}
}

// TestReadFile_null: people mask a vendor's file with a link to /dev/null, which is an empty file for who reads it.
func TestReadFile_null(t *testing.T) {
	link := filepath.Join(t.TempDir(), "masked.yaml")
	if err := os.Symlink(os.DevNull, link); err != nil {
		t.Fatal(err)
	}
	if b, err := ThisMachine.ReadFile(link, 10); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ThisMachine.ReadFile("/dev/zero", 10); err == nil {
		t.Error("another device is read")
	}
}
