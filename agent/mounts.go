package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

type mount struct {
	id, at string
	// shows is the mounted directory in its file system. It follows renames of this directory.
	shows string
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func readMounts() ([]mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []mount
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 4 {
			out = append(out, mount{id: f[0], shows: f[3], at: unescapeMount.Replace(f[4])})
		}
	}
	return out, nil
}

// replacedError ends an agent whose mounts show directories that the host has renamed or removed. A mount is of a
// directory, not of its name: the container keeps seeing the old directory until it is started again.
type replacedError struct{ at string }

func (e *replacedError) Error() string {
	return fmt.Sprintf("the host has replaced the directory that is mounted at %s: it is to be mounted again", e.at)
}

// checkMounts reports a mount below which dirs (absolute paths) lie and whose directory was renamed or removed since
// the first call. It ignores mounts that it can't read: they are one sign of several.
func (a *Agent) checkMounts(dirs []string) error {
	now, err := readMounts()
	if err != nil {
		a.Log.Debug("reading mounts", "err", err)
		return nil
	}
	next := map[string]mount{}
	for _, m := range now {
		if m.at != "/" && below(m.at, a.HostRoot) && looksThrough(dirs, m.at) {
			next[m.at] = m // the last of several mounts at one place is on top
		}
	}
	for at, m := range next {
		// A new ID is a mount that the host put on top: it counts from now on.
		if was := a.mounts[at]; was.id == m.id && was.shows != m.shows {
			return &replacedError{at}
		}
	}
	a.mounts = next
	return nil
}

func looksThrough(dirs []string, at string) bool {
	for _, d := range dirs {
		if below(d, at) {
			return true
		}
	}
	return false
}

func below(p, dir string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
