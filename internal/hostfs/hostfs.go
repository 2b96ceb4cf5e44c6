// Package hostfs reads files of a host whose root directory may lie anywhere, as a process of that host would.
package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nodetrust/nodetrust/internal/bounded"
)

// Root is the root directory of a host; "" and "/" are this machine as it is. Paths are those that a process of the
// host would use, and errors name them so. Symbolic links are followed as that process would follow them: an absolute
// target is taken below the root, and ".." stops there. The os.Root of the standard library refuses absolute links
// instead, which real hosts have.
type Root string

// ThisMachine is the machine that this program runs on.
const ThisMachine Root = ""

// IsThisMachine is true if paths of the host are those of this machine.
func (r Root) IsThisMachine() bool { return r == ThisMachine || r == "/" }

// Real returns where path lies on this machine. It exists only for paths whose directories exist; the result may not.
func (r Root) Real(path string) (string, error) {
	if r.IsThisMachine() {
		return path, nil
	}
	const maxLinks = 40 // as Linux
	rest := strings.Split(filepath.Clean("/"+path), "/")
	done := "/"
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, name)
		target, err := os.Readlink(filepath.Join(string(r), next))
		if err != nil { // no link, or nothing there: opening it will say
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return filepath.Join(string(r), done), nil
}

// ReadFile reads a regular file of at most limit bytes; what leads to /dev/null is an empty one, as it is for
// runtimes. Anything else, a pipe for example, is an error and never waited for.
func (r Root) ReadFile(path string, limit int64) ([]byte, error) {
	f, err := r.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := bounded.Read(f, limit)
	if _, ok := errors.AsType[*bounded.TooLargeError](err); ok {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return b, hostError(err, path)
}

// Open opens a regular file, or what leads to /dev/null, for reading. Anything else is an error and never waited for.
func (r Root) Open(path string) (*os.File, error) {
	name, err := r.Real(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, hostError(err, path)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, hostError(err, path)
	}
	null, err := os.Stat(os.DevNull)
	if !st.Mode().IsRegular() && (err != nil || !os.SameFile(st, null)) {
		f.Close()
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("is no regular file (%s)", st.Mode().Type())}
	}
	return f, nil
}

// ReadDir lists a directory, sorted by name.
func (r Root) ReadDir(path string) ([]fs.DirEntry, error) {
	name, err := r.Real(path)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(name)
	return entries, hostError(err, path)
}

// hostError names path as the host knows it.
func hostError(err error, path string) error {
	if e, ok := err.(*fs.PathError); ok {
		return &fs.PathError{Op: e.Op, Path: path, Err: e.Err}
	}
	return err
}
