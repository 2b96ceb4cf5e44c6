package probe

import "golang.org/x/sys/unix"

// adoptOrphans makes this process the parent of its descendants' orphans, so that they can be waited for. It stays so
// until the process ends.
func adoptOrphans() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }
