package lint

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Where CRI-O's configuration lies. All files of the directory are read, in the order of their names, and the last
// word counts.
const (
	crioConf    = "/etc/crio/crio.conf"
	crioConfDir = "/etc/crio/crio.conf.d"
)

// crioConf lints the CRI-O configuration of the host, and returns the directory of namespaced policies.
func (r *runner) crioConf() string { return r.crio(crioFiles(rootFiles{hostfs.Root(r.Root)})) }

// unread is a file or directory that could not be used.
type unread struct {
	path string
	err  error
}

// crioFiles are the files of CRI-O's configuration, in the order in which they are read.
func crioFiles(from fileTree) (files []file, bad []unread) {
	names, err := from.list(crioConfDir)
	paths := []string{crioConf}
	for _, name := range names {
		paths = append(paths, path.Join(crioConfDir, name))
	}
	for i, p := range paths {
		data, err := from.ReadFile(p, maxRegistries)
		switch {
		case i > maxFiles:
			bad = append(bad, unread{crioConfDir, fmt.Errorf("holds more than %d files", maxFiles)})
			return files, bad
		case err == nil:
			files = append(files, file{p, data})
		case !errors.Is(err, fs.ErrNotExist):
			bad = append(bad, unread{p, err})
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		bad = append(bad, unread{crioConfDir, err})
	}
	return files, bad
}

// crioSetting is a value of CRI-O's configuration, and the file that has the last word.
type crioSetting struct {
	value string
	file  file
}

// crioSettings are signature_policy and signature_policy_dir. Files that can't be parsed are left aside.
func crioSettings(files []file) (system, namespaced crioSetting, bad []unread) {
	for _, f := range files {
		var conf struct {
			Crio struct {
				Image struct {
					Policy   *string `toml:"signature_policy"`
					Policies *string `toml:"signature_policy_dir"`
				} `toml:"image"`
			} `toml:"crio"`
		}
		if err := toml.Unmarshal(f.data, &conf); err != nil {
			bad = append(bad, unread{f.path, err})
			continue
		}
		if v := conf.Crio.Image.Policy; v != nil {
			system = crioSetting{*v, f}
		}
		if v := conf.Crio.Image.Policies; v != nil {
			namespaced = crioSetting{*v, f}
		}
	}
	return system, namespaced, bad
}

// crio lints CRI-O's configuration, in the order in which it is read, and returns the directory of namespaced
// policies.
func (r *runner) crio(files []file, bad []unread) (policies string) {
	system, namespaced, broken := crioSettings(files)
	for _, f := range append(bad, broken...) {
		r.add("crio-conf", place{file: f.path}, "which policy it makes CRI-O read can't be told: %v", f.err)
	}
	if v := system.value; v != "" && path.Clean(v) != trust.PolicyPath {
		r.add("crio-policy", place{file: system.file.path, line: lineOf(string(system.file.data), v)},
			"signature_policy is %s: CRI-O reads that and not %s, Podman goes on reading the latter", v, trust.PolicyPath)
	}
	policies = policy.NamespacedDir
	if v := namespaced.value; v != "" && path.Clean(v) != policy.NamespacedDir {
		if strings.HasPrefix(v, "/") {
			policies = path.Clean(v)
		}
		r.add("crio-policies", place{file: namespaced.file.path, line: lineOf(string(namespaced.file.data), v)},
			"signature_policy_dir is %s: policies of namespaces are read there, which no agent watches",
			v).Hint = "leave it at " + policy.NamespacedDir
	}
	return policies
}
