package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// ErrNotDurable is wrapped by errors of Replace and Remove when the change is visible, but its directory could not be
// synced: a loss of power may bring the old state back.
var ErrNotDurable = errors.New("change is in place, durability unknown")

// Replace puts f at its path below root in one step: readers see the old file or the new one, never a part. The new
// file has f's mode and owner, and the SELinux label of the old file or else of the directory. On nil the new file is
// on stable storage.
//
// Replace makes missing directories. It replaces a symlink at the path, removes an empty directory there, and renames
// any other directory: aside is the new name, for the log.
func Replace(root *os.Root, f trust.File) (aside string, err error) {
	return replace(root, f, wantedLabel)
}

// replace is Replace with a label that is chosen by those of the old file and of the directory.
func replace(root *os.Root, f trust.File, choose func(file, dir string) string) (aside string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("replacing %s: %w", f.Path, plain(err))
		}
	}()
	dirName, base := path.Dir(f.Path), path.Base(f.Path)
	folder, err := openFolder(root, dirName)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDirs(root, dirName); err != nil {
			return "", err
		}
		folder, err = openFolder(root, dirName)
	}
	if err != nil {
		return "", err
	}
	defer folder.close()
	// Opened again by its name: os.Root can't be made from an open file.
	dir, err := root.OpenRoot(rel(dirName))
	if err != nil {
		return "", err
	}
	defer dir.Close()

	tmp, err := renameio.NewPendingFile(base, renameio.WithRoot(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return "", err
	}
	defer tmp.Cleanup() //nolint:errcheck // removes the temporary file unless it was renamed
	old := folder.read(base)
	if err := fill(tmp.File, f, choose(old.label, folder.label)); err != nil {
		return "", err
	}
	if old.kind == "directory" {
		if aside, err = clearAway(dir, base); err != nil {
			return "", err
		}
	}
	if err := tmp.CloseAtomicallyReplace(); err != nil {
		return aside, err
	}
	if err := folder.f.Sync(); err != nil {
		return aside, fmt.Errorf("%w: %w", ErrNotDurable, err)
	}
	return aside, nil
}

// plain returns err without the names of temporary files: equal failures must have equal texts.
func plain(err error) error {
	var (
		pe *fs.PathError
		le *os.LinkError
	)
	switch {
	case errors.Is(err, ErrNotDurable):
	case errors.As(err, &pe):
		return fmt.Errorf("%s: %w", pe.Op, pe.Err)
	case errors.As(err, &le):
		return fmt.Errorf("%s: %w", le.Op, le.Err)
	}
	return err
}

// fill writes everything but the name of the temporary file, and reads it back.
func fill(tmp *os.File, f trust.File, context string) error {
	if _, err := tmp.Write(f.Data); err != nil {
		return err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	got, err := io.ReadAll(io.LimitReader(tmp, int64(len(f.Data))+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, f.Data) {
		return errors.New("reading back gave other bytes than were written")
	}
	if err := setLabel(tmp, context); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(tmp.Fd()), &st); err != nil {
		return err
	}
	if st.Uid != f.UID || st.Gid != f.GID {
		if err := tmp.Chown(int(f.UID), int(f.GID)); err != nil {
			return err
		}
	}
	// After chown, which clears setuid bits.
	return unix.Fchmod(int(tmp.Fd()), f.Mode)
}

func wantedLabel(file, dir string) string {
	if file != "" && sameType(file, dir) {
		return file
	}
	return dir
}

// setLabel sets the SELinux context unless the file has its type already.
func setLabel(f *os.File, context string) error {
	if context == "" {
		return nil
	}
	has := label(int(f.Fd()))
	if has != "" && sameType(has, context) {
		return nil
	}
	err := unix.Fsetxattr(int(f.Fd()), labelXattr, []byte(context), 0)
	// EPERM for a new file without a context: SELinux is off now and was on when the directory was labelled. Only
	// CAP_SYS_ADMIN may write the attribute then, and nobody reads it.
	if off := has == "" && errors.Is(err, unix.EPERM); err != nil && !off && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("setting the label: %w", err)
	}
	return nil
}

func clearAway(dir *os.Root, base string) (aside string, err error) {
	err = dir.Remove(base)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return "", err
	}
	// A name without .yaml or .json at its end, which no reader takes up.
	aside = base + ".aside-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	return aside, dir.Rename(base, aside)
}

// makeDirs makes the directory at the absolute path p, and syncs each parent before the next directory.
func makeDirs(root *os.Root, p string) error {
	at := "/"
	for _, name := range split(p) {
		parent := at
		at = path.Join(at, name)
		if _, err := root.Lstat(rel(at)); err == nil {
			continue
		}
		if err := makeDir(root, parent, name); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes one directory. It sets the mode of an opened directory only: who may write the parent could put a link
// at the name.
func makeDir(root *os.Root, parent, name string) error {
	p, err := openFolder(root, parent)
	if err != nil {
		return err
	}
	defer p.close()
	fd := int(p.f.Fd())
	if err := unix.Mkdirat(fd, name, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return &fs.PathError{Op: "mkdirat", Path: path.Join(parent, name), Err: err}
	}
	dir, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "openat", Path: path.Join(parent, name), Err: err}
	}
	defer unix.Close(dir)
	// Regardless of the umask: readers need not be root.
	if err := unix.Fchmod(dir, 0o755); err != nil {
		return &fs.PathError{Op: "fchmod", Path: path.Join(parent, name), Err: err}
	}
	return p.f.Sync()
}

// Remove removes the file at the absolute path p. A missing file is no error; a directory is one.
func Remove(root *os.Root, p string) error {
	info, err := root.Lstat(rel(p))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err == nil && info.IsDir() {
		err = unix.EISDIR
	}
	if err == nil {
		err = root.Remove(rel(p))
	}
	if err != nil {
		return fmt.Errorf("removing %s: %w", p, err)
	}
	if err := syncDir(root, path.Dir(p)); err != nil {
		return fmt.Errorf("removing %s: %w: %w", p, ErrNotDurable, err)
	}
	return nil
}

func syncDir(root *os.Root, dir string) error {
	d, err := openFolder(root, dir)
	if err != nil {
		return err
	}
	defer d.close()
	return d.f.Sync()
}

// Sweep removes temporary files of interrupted Replaces of these paths. It must not run during a Replace.
func Sweep(root *os.Root, paths []string) error {
	var errs []error
	bases := map[string][]string{}
	for _, p := range paths {
		bases[path.Dir(p)] = append(bases[path.Dir(p)], regexp.QuoteMeta(path.Base(p)))
	}
	for dir, names := range bases {
		// The form of renameio's temporary names.
		orphan := regexp.MustCompile(`^\.(` + strings.Join(names, "|") + `)[0-9]+$`)
		there, err := List(root, dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("sweeping %s: %w", dir, err))
			continue
		}
		for _, n := range there {
			if !orphan.MatchString(n) {
				continue
			}
			if err := Remove(root, path.Join(dir, n)); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
