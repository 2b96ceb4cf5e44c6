package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mount is a line of mountinfo.
type mount struct {
	id, at string
	// shows is the directory of its file system that is mounted. It follows renames of that directory.
	shows string
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// readMounts returns this process's mounts.
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

// replacedError is the end of an agent whose mounts show directories that the host has put aside. A mount is of a
// directory, not of its name: when the host renames the directory or removes it, a container goes on seeing the old
// one, and nothing in it can change that. Whoever starts the agent again mounts what has the name now.
type replacedError struct{ at string }

func (e *replacedError) Error() string {
	return fmt.Sprintf("the host has replaced the directory that is mounted at %s: it is to be mounted again", e.at)
}

// checkMounts reports a mount through which dirs are seen and whose directory has been renamed or removed since the
// first call. dirs are absolute paths. What can't be read of the mounts is not reported: they are one sign of
// several.
func (a *Agent) checkMounts(dirs []string) error {
	now, err := readMounts()
	if err != nil {
		a.Log.Debug("reading mounts", "err", err)
		return nil
	}
	next := map[string]mount{}
	for _, m := range now {
		if m.at != "/" && below(m.at, a.HostRoot) && looksThrough(dirs, m.at) {
			next[m.at] = m // of several at one place the last is on top
		}
	}
	for at, m := range next {
		// An ID that is new has been mounted by the host on top of what was there: that is what counts then.
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

// below reports whether p is dir or in it.
func below(p, dir string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
