// Package bounded reads whole files and streams into memory, up to a limit in bytes.
//
// What a user names is read by ReadFile: it may be a pipe, as in "nodetrust lint <(oc get …)". What a host or a
// directory holds is read by ReadRegular: a pipe there would be waited for without an end.
package bounded

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// TooLargeError says that there are more than Limit bytes.
type TooLargeError struct{ Limit int64 }

func (e *TooLargeError) Error() string { return fmt.Sprintf("is larger than %d bytes", e.Limit) }

// Errors of OpenRegular and ReadRegular, in an *fs.PathError, that callers tell apart with errors.Is.
var (
	ErrDirectory  = errors.New("is a directory")
	ErrNotRegular = errors.New("is no regular file")
)

// Read reads all of r. It returns a *TooLargeError if there is more than limit bytes.
func Read(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, &TooLargeError{limit}
	}
	return b, nil
}

// ReadFile reads a file of any kind. Its errors name the path.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return readAndClose(f, path, limit)
}

// Opener opens a file: it is os.OpenFile, or that method of an *os.Root.
type Opener func(name string, flag int, perm fs.FileMode) (*os.File, error)

// OpenRegular opens a regular file for reading. Its errors name the path.
func OpenRegular(open Opener, path string) (*os.File, error) {
	f, err := open(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		err = &fs.PathError{Op: "read", Path: path, Err: ErrDirectory}
	case !st.Mode().IsRegular():
		err = &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadRegular reads a regular file. Its errors name the path.
func ReadRegular(open Opener, path string, limit int64) ([]byte, error) {
	f, err := OpenRegular(open, path)
	if err != nil {
		return nil, err
	}
	return readAndClose(f, path, limit)
}

func readAndClose(f *os.File, path string, limit int64) ([]byte, error) {
	defer f.Close()
	b, err := Read(f, limit)
	if large := (*TooLargeError)(nil); errors.As(err, &large) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, err // others name the path
}

// Gunzip decompresses b.
func Gunzip(b []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		b, err = Read(z, limit)
	}
	if large := (*TooLargeError)(nil); err != nil && !errors.As(err, &large) {
		err = fmt.Errorf("decompressing: %w", err)
	}
	return b, err
}
