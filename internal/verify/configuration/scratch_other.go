//go:build !unix

package configuration

import "os"

// scratch makes a directory below the system's temporary one.
func scratch() (dir string, remove func() error, err error) {
	dir, err = os.MkdirTemp("", "nodetrust-verify-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}
