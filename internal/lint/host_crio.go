package lint

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Where CRI-O's configuration lies. Files of the directory are read in the order of their names; the last word counts.
const (
	crioConf    = "/etc/crio/crio.conf"
	crioConfDir = "/etc/crio/crio.conf.d"
)

// crioFiles are the files of CRI-O's configuration, in the order in which they are read, and what can't be read.
func crioFiles(from fileTree) (files []file) {
	names, err := from.list(crioConfDir)
	paths := []string{crioConf}
	for _, name := range names {
		paths = append(paths, path.Join(crioConfDir, name))
	}
	if len(paths) > maxFiles+1 {
		paths, err = paths[:maxFiles+1], fmt.Errorf("holds more than %d files", maxFiles)
	}
	for _, p := range paths {
		data, err := from.ReadFile(p, maxRegistries)
		if !errors.Is(err, fs.ErrNotExist) {
			files = append(files, file{p, data, err})
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		files = append(files, file{path: crioConfDir, err: err})
	}
	return files
}

// crioSetting is a value of CRI-O's configuration, and the file that has the last word.
type crioSetting struct {
	value string
	file  file
}

// crioSettings are signature_policy and signature_policy_dir. Files that can't be read or parsed are left aside: bad.
func crioSettings(files []file) (system, namespaced crioSetting, bad []file) {
	for _, f := range files {
		var conf struct {
			Crio struct {
				Image struct {
					Policy   *string `toml:"signature_policy"`
					Policies *string `toml:"signature_policy_dir"`
				} `toml:"image"`
			} `toml:"crio"`
		}
		if f.err == nil {
			f.err = toml.Unmarshal(f.data, &conf)
		}
		if f.err != nil {
			bad = append(bad, f)
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

// crio lints CRI-O's configuration, in its order, and returns the directory of namespaced policies.
func (r *runner) crio(files []file) (policies string) {
	system, namespaced, bad := crioSettings(files)
	for _, f := range bad {
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
