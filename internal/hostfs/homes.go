package hostfs

import (
	"path"
	"slices"
	"strings"
)

// maxPasswd bounds /etc/passwd, in bytes.
const maxPasswd = 4 << 20

// Homes returns the home directories that root's processes may have, each once, by the content of /etc/passwd. The
// first is that of the first account with uid 0, or /root: a process without $HOME, such as a unit of systemd, has it.
// Then come /root and those of other accounts with uid 0. Which $HOME a process was started with no file tells.
func Homes(passwd string) []string {
	var out []string
	for line := range strings.SplitSeq(passwd, "\n") {
		f := strings.Split(line, ":")
		if len(f) < 6 || (f[0] != "root" && f[2] != "0") || !path.IsAbs(f[5]) {
			continue
		}
		if h := path.Clean(f[5]); h != "/" && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	switch {
	case slices.Contains(out, "/root"):
	case len(out) == 0:
		out = []string{"/root"}
	default:
		out = slices.Insert(out, 1, "/root")
	}
	return out
}

// Homes are those of the host, as Homes has them; at most eight are looked into.
func (r Root) Homes() []string {
	passwd, _ := r.ReadFile("/etc/passwd", maxPasswd) // without it, root's home is /root
	out := Homes(string(passwd))
	return out[:min(len(out), 8)]
}
