//go:build unix

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// trusted reports a file that another user may have written: one that isn't this user's, or that has one of the modes.
func trusted(st fs.FileInfo, modes fs.FileMode) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("has an owner that can't be told")
	case int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("belongs to user %d", sys.Uid)
	case st.Mode().Perm()&modes != 0:
		return fmt.Errorf("has mode %04o: other users may read or write it", st.Mode().Perm())
	}
	return nil
}

// flock reports whether this is the only audit that writes to the file.
func flock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
