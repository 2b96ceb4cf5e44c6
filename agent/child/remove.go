package child

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// removeTree removes dir and everything in it, following no link. Unlike os.RemoveAll it needs the same memory and two
// open files for any depth, which a child chooses: it moves the entries of a directory up into dir.
func removeTree(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return os.Remove(dir)
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	top := os.NewFile(uintptr(fd), dir)
	defer top.Close()
	// A name that the child can't predict.
	prefix := fmt.Sprintf(".%d-", time.Now().UnixNano())
	moved := 0
	aside := func(from int, name string) error {
		moved++
		return unix.Renameat(from, name, fd, fmt.Sprintf("%s%d", prefix, moved))
	}
	err = each(top, func(name string) error {
		if unlink(fd, name) == nil {
			return nil
		}
		sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		d := os.NewFile(uintptr(sub), name)
		defer d.Close()
		err = each(d, func(name string) error {
			if unlink(sub, name) == nil {
				return nil
			}
			return aside(sub, name)
		})
		if err != nil {
			return err
		}
		return unlink(fd, name)
	})
	if err != nil {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	return os.Remove(dir)
}

func unlink(dir int, name string) error {
	if unix.Unlinkat(dir, name, 0) == nil {
		return nil
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

func each(d *os.File, f func(name string) error) error {
	for {
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := d.Readdirnames(1024)
		if len(names) == 0 {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		for _, n := range names {
			if err := f(n); err != nil {
				return err
			}
		}
	}
}
