package mco

import (
	"path"
	"slices"

	"github.com/nodetrust/nodetrust/internal/trust"
)

const noRebootKey = noRebootDir + "containers-gpg.pub"

// Reboots reports whether nodes of OpenShift 4.minor (8 or later) reboot when a MachineConfig changes the file,
// without a NodeDisruptionPolicy. Other parts of the change may reboot them as well.
func Reboots(minor int, file string) bool {
	switch {
	case file == trust.PolicyPath:
		return minor < 10
	case file == noRebootKey:
		return false
	case path.Dir(file) == trust.RegistriesDir:
		return minor < 16
	case path.Dir(file) == namespacedDir:
		return minor < 18
	}
	return true
}

// Rebooting lists the files whose change reboots nodes of OpenShift 4.minor.
func Rebooting(minor int, files trust.FileSet) []string {
	var out []string
	for _, f := range files.Sorted() {
		if Reboots(minor, f.Path) && !slices.Contains(out, f.Path) {
			out = append(out, f.Path)
		}
	}
	return out
}
