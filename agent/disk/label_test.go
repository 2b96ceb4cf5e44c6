package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSetLabel_withoutSELinux: the directory has a label of a time when SELinux was on. Then only CAP_SYS_ADMIN may
// write one, which the agent lacks (xattr(7)); here the file is made immutable to get the same EPERM.
func TestSetLabel_withoutSELinux(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if label(int(f.Fd())) != "" {
		t.Skip("SELinux is on")
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Skipf("no flags on this file system: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|immutable); err != nil {
		t.Skipf("can't make a file immutable: %v", err)
	}
	defer unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags) //nolint:errcheck // else the directory stays
	const context = "system_u:object_r:etc_t:s0"
	if err := unix.Fsetxattr(int(f.Fd()), labelXattr, []byte(context), 0); !errors.Is(err, unix.EPERM) {
		t.Skipf("writing a label to an immutable file: %v", err)
	}
	if err := setLabel(f, context); err != nil {
		t.Errorf("a file could not be put in place for a label that nobody reads: %v", err)
	}
}
