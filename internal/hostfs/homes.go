package hostfs

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Passwd is the file that says where root's home is.
const Passwd = "/etc/passwd"

// maxPasswd bounds Passwd, in bytes, and MaxHomes the homes that are looked into.
const (
	maxPasswd = 4 << 20
	MaxHomes  = 8
)

// Homes returns the home directories that root's processes may have, each once, by the content of Passwd, and whether
// there are more than MaxHomes. The first is that of the first account with uid 0, or /root: a process without $HOME,
// such as a unit of systemd, has it. Then come /root and those of other accounts with uid 0. Which $HOME a process was
// started with no file tells.
func Homes(passwd string) (out []string, more bool) {
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
	return out[:min(len(out), MaxHomes)], len(out) > MaxHomes
}

// Homes are those of the host, as Homes has them: /root alone where there is no Passwd. With an error, which says why
// Passwd can't be read, /root is no more than a guess.
func (r Root) Homes() ([]string, error) {
	passwd, err := r.ReadFile(Passwd, maxPasswd)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	out, _ := Homes(string(passwd))
	return out, err
}
