package configuration

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// scratchName is the beginning of the names of the directories that scratch makes.
const scratchName = "nodetrust-verify-"

// scratch makes a directory below the system's temporary one, locked for as long as this process lives, whatever ends
// the process. So the next process can tell which directories a killed process has left, and removes them.
func scratch() (dir string, remove func() error, err error) {
	sweepScratch()
	for range 10 {
		if dir, err = os.MkdirTemp("", scratchName); err != nil {
			return "", nil, err
		}
		lock := lockDir(dir)
		if lock == nil {
			continue // another process has taken the directory for one that was left
		}
		return dir, func() error { return errors.Join(removeAll(dir), lock.Close()) }, nil
	}
	return "", nil, errors.New("the temporary directory is removed by somebody else at once")
}

// removeAll removes a directory in which a gpg that was left alone may still make files.
func removeAll(dir string) (err error) {
	for range 5 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// sweepScratch removes the directories that killed processes of this user have left.
func sweepScratch() {
	tmp, err := os.Open(os.TempDir())
	if err != nil {
		return
	}
	defer tmp.Close()
	names, err := tmp.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		if !strings.HasPrefix(name, scratchName) {
			continue
		}
		dir := filepath.Join(os.TempDir(), name)
		if lock := lockDir(dir); lock != nil {
			_ = os.RemoveAll(dir)
			_ = lock.Close()
		}
	}
}

// lockDir takes the lock of a directory of this user; nil if another process has it, or there is no such directory.
func lockDir(dir string) *os.File {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil && ownAndThere(f, dir) {
		return f
	}
	_ = f.Close()
	return nil
}

// ownAndThere reports whether the open directory belongs to this user and still has that name.
func ownAndThere(f *os.File, dir string) bool {
	st, err := f.Stat()
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	now, err := os.Lstat(dir)
	return ok && int(sys.Uid) == os.Geteuid() && err == nil && now.Mode()&fs.ModeSymlink == 0 && os.SameFile(st, now)
}
