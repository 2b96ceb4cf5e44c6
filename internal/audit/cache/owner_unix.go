//go:build unix

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// trusted returns an error if another user may have written the file: its owner, or a mode in modes.
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

func flock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
