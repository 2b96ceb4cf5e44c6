package bounded

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, []byte("12345"), 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if b, err := ReadRegular(root.OpenFile, "file", 5); err != nil || string(b) != "12345" {
		t.Errorf("as much as is allowed: %q, %v", b, err)
	}
	for _, read := range []func() ([]byte, error){
		func() ([]byte, error) { return ReadRegular(os.OpenFile, file, 4) },
		func() ([]byte, error) { return ReadFile(file, 4) },
	} {
		var large *TooLargeError
		if b, err := read(); !errors.As(err, &large) || b != nil || err.Error() != file+": is larger than 4 bytes" {
			t.Errorf("more than is allowed: %q, %v", b, err)
		}
	}
	if _, err := ReadRegular(os.OpenFile, pipe, 5); !errors.Is(err, ErrNotRegular) {
		t.Errorf("a pipe without a writer: %v", err)
	}
	if _, err := ReadRegular(os.OpenFile, dir, 5); !errors.Is(err, ErrDirectory) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := ReadRegular(root.OpenFile, "none", 5); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}

func TestGunzip(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(make([]byte, 1000)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	if b, err := Gunzip(z.Bytes(), 1000); err != nil || len(b) != 1000 {
		t.Errorf("as much as is allowed: %d bytes, %v", len(b), err)
	}
	var large *TooLargeError
	if _, err := Gunzip(z.Bytes(), 999); !errors.As(err, &large) {
		t.Errorf("more than is allowed: %v", err)
	}
	if _, err := Gunzip(z.Bytes()[:20], 1000); err == nil || errors.As(err, &large) {
		t.Errorf("cut off: %v", err)
	}
}
