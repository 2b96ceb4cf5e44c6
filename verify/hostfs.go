package verify

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// hostFS reads files of a host whose root directory is root; "" and "/" are this machine as it is. Paths are those that
// a process of the host would use. Symbolic links are followed as that process would follow them: an absolute target is
// taken below root, and ".." stops there. The os.Root of the standard library refuses absolute links instead, which real
// hosts have.
type hostFS struct{ root string }

func (h hostFS) isThisMachine() bool { return h.root == "" || h.root == "/" }

// real returns where path lies on this machine. It exists only for paths whose directories exist; the result may not.
func (h hostFS) real(path string) (string, error) {
	if h.isThisMachine() {
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
		target, err := os.Readlink(filepath.Join(h.root, next))
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
	return filepath.Join(h.root, done), nil
}

// readFile reads a regular file of at most limit bytes. Anything else, a pipe for example, is an error and never waited for.
func (h hostFS) readFile(path string, limit int64) ([]byte, error) {
	name, err := h.real(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, hostError(err, path)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, hostError(err, path)
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("is no regular file (%s)", st.Mode().Type())}
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, hostError(err, path)
	}
	if int64(len(b)) > limit {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("is larger than %d bytes", limit)}
	}
	return b, nil
}

func (h hostFS) readDir(path string) ([]fs.DirEntry, error) {
	name, err := h.real(path)
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
