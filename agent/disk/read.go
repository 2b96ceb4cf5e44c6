// Package disk compares the files of a host with desired ones and replaces them. All paths stay below an *os.Root of
// the caller. Reads never block and are bounded.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	maxFile    = 4 << 20 // bytes read of one file
	maxEntries = 4096    // names read of one directory
	maxLinks   = 40      // symlinks followed to one key file, as many as Linux follows
	maxOthers  = 8 << 20 // bytes of all registries.d files together
	labelXattr = "security.selinux"
)

var errLarge = errors.New("larger than")

// folder is an open directory. Reading files by their names in it saves the walk from the root for each.
type folder struct {
	f     *os.File
	label string
}

// openFolder opens the directory at the absolute path dir below root. It follows relative symlinks that stay below
// root.
func openFolder(root *os.Root, dir string) (*folder, error) {
	f, err := root.OpenFile(rel(dir), os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return &folder{f: f, label: label(int(f.Fd()))}, nil
}

func (d *folder) close() { _ = d.f.Close() }

func (d *folder) names() ([]string, error) {
	if _, err := d.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := d.f.Readdirnames(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > maxEntries {
		return nil, fmt.Errorf("more than %d entries", maxEntries)
	}
	return names, nil
}

type found struct {
	err      error  // fs.ErrNotExist if there is nothing
	kind     string // "file", "symlink", "directory", …
	mode     uint32 // permission bits with setuid, setgid and sticky
	uid, gid uint32
	label    string // SELinux context; empty where there is none
	data     []byte // only of a regular file
	stat     stat   // from before the read
}

// stat is the metadata that changes with a file. The zero value stands for no file.
type stat struct {
	dev, ino         uint64
	size             int64
	mode, uid, gid   uint32
	modified, change unix.Timespec
}

func statOf(st *unix.Stat_t) stat {
	return stat{st.Dev, st.Ino, st.Size, st.Mode, st.Uid, st.Gid, st.Mtim, st.Ctim}
}

// settled reports whether the next change of the file must give it another time. Older kernels count time in steps of
// up to 10 ms, so two changes within a step have the same time.
func (s stat) settled() bool { return time.Since(time.Unix(s.change.Unix())) > 100*time.Millisecond }

// stat returns the metadata of a name without opening it, or the zero value on any failure.
func (d *folder) stat(base string) stat {
	var st unix.Stat_t
	if unix.Fstatat(int(d.f.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return stat{}
	}
	return statOf(&st)
}

func (f found) missing() bool { return errors.Is(f.err, fs.ErrNotExist) }

// read reads a regular file of the directory. For anything else it returns the kind without opening it.
func (d *folder) read(base string) found { return d.readUpTo(base, maxFile) }

// readUpTo is read for a file of at most limit bytes.
func (d *folder) readUpTo(base string, limit int) found {
	fd := int(d.f.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return found{err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return describe(&st)
	}
	// O_NOFOLLOW and O_NONBLOCK: the name may have become another thing.
	file, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) {
		return found{kind: "symlink"}
	}
	if err != nil {
		out := describe(&st)
		out.err = err
		return out
	}
	defer unix.Close(file)
	return readFD(file, limit)
}

func readFD(fd, limit int) found {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return found{err: err}
	}
	out := describe(&st)
	if out.kind != "file" {
		return out
	}
	out.stat = statOf(&st)
	out.label = label(fd)
	if st.Size > int64(limit) {
		out.err = fmt.Errorf("%w %d bytes", errLarge, limit)
		return out
	}
	// One byte more than the size shows the end of the file in the same call.
	buf := make([]byte, st.Size+1)
	n := 0
	for {
		m, err := unix.Read(fd, buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			out.err = err
			return out
		}
		n += m
		if m == 0 {
			out.data = buf[:n]
			return out
		}
		if n == len(buf) {
			if n > limit {
				out.err = fmt.Errorf("%w %d bytes", errLarge, limit)
				return out
			}
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

func describe(st *unix.Stat_t) found {
	out := found{mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		out.kind = "file"
	case unix.S_IFDIR:
		out.kind = "directory"
	case unix.S_IFLNK:
		out.kind = "symlink"
	case unix.S_IFIFO:
		out.kind = "fifo"
	case unix.S_IFSOCK:
		out.kind = "socket"
	default:
		out.kind = "device"
	}
	return out
}

func label(fd int) string {
	var buf [256]byte
	n, err := unix.Fgetxattr(fd, labelXattr, buf[:])
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(buf[:n]), "\x00")
}

// readFollowing reads the file at the absolute path p as a process on the host would: it follows symlinks, and takes
// absolute ones from root.
func readFollowing(root *os.Root, p string) found {
	p, err := resolve(root, p)
	if err != nil {
		return found{err: err}
	}
	d, err := openFolder(root, path.Dir(p))
	if err != nil {
		return found{err: err}
	}
	defer d.close()
	return d.read(path.Base(p))
}

// resolve returns the path of p without symlinks, as on a host whose root directory is root. The result is a hint, to
// be opened below root again: the tree may change meanwhile.
func resolve(root *os.Root, p string) (string, error) {
	done, todo := "/", strings.Split(strings.Trim(path.Clean(p), "/"), "/")
	for links := 0; len(todo) > 0; {
		next := path.Join(done, todo[0])
		todo = todo[1:]
		info, err := root.Lstat(rel(next))
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: p, Err: unix.ELOOP}
		}
		target, err := root.Readlink(rel(next))
		if err != nil {
			return "", err
		}
		// path.Join keeps ".." at the root, as the kernel does.
		full := target
		if !path.IsAbs(target) {
			full = path.Join(done, target)
		}
		done = "/"
		todo = append(split(full), todo...)
	}
	return done, nil
}

func split(p string) []string {
	p = strings.Trim(path.Clean(p), "/")
	if p == "" || p == "." {
		return nil
	}
	return strings.Split(p, "/")
}

// rel turns an absolute path of the host into one below its root.
func rel(p string) string {
	if p = strings.TrimPrefix(path.Clean(p), "/"); p == "" {
		return "."
	}
	return p
}

// cause returns the text of an error without its path.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err.Error()
}

// Read reads the file at the absolute path p as a process on the host would, following symlinks.
func Read(root *os.Root, p string) (trust.File, error) {
	got := readFollowing(root, p)
	if got.err == nil && got.kind != "file" {
		got.err = fmt.Errorf("is a %s", got.kind)
	}
	if got.err != nil {
		return trust.File{}, fmt.Errorf("reading %s: %w", p, got.err)
	}
	return trust.File{Path: p, Mode: got.mode, UID: got.uid, GID: got.gid, Data: got.data}, nil
}

// Others returns the registries.d files of the host in all directories that any reader uses. It does not touch the
// paths that skip says are about to be replaced: anything may stand there.
func Others(root *os.Root, skip func(p string) bool) (trust.FileSet, error) {
	var out trust.FileSet
	total := 0
	for _, dir := range registriesd.Dirs() {
		names, err := List(root, dir)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", dir, err)
		}
		for _, n := range names {
			if !strings.HasSuffix(n, ".yaml") || skip != nil && skip(path.Join(dir, n)) {
				continue
			}
			if nulled(root, path.Join(dir, n)) {
				continue
			}
			f, err := Read(root, path.Join(dir, n))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if total += len(f.Data); total > maxOthers {
				return nil, fmt.Errorf("files in %s are larger than %d bytes together",
					strings.Join(registriesd.Dirs(), ", "), maxOthers)
			}
			out = append(out, f)
		}
	}
	return out, nil
}
