package lint

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/nodetrust/nodetrust/trust"
	"github.com/nodetrust/nodetrust/verify/hostfs"
)

// Where CRI-O's configuration lies. All files of the directory are read, in the order of their names, and the last word counts.
const (
	crioConf    = "/etc/crio/crio.conf"
	crioConfDir = "/etc/crio/crio.conf.d"
)

// crioPolicy is what CRI-O's configuration says of policies.
type crioPolicy struct {
	// Policies is the directory of namespaced policies.
	Policies string
}

// crioConf lints the CRI-O configuration of the host.
func (r *runner) crioConf() crioPolicy {
	var files []file
	read := func(p string) {
		data, err := hostfs.Root(r.Root).ReadFile(p, maxRegistries)
		switch {
		case err == nil:
			files = append(files, file{p, data})
		case !errors.Is(err, fs.ErrNotExist):
			r.crioUnreadable(p, err)
		}
	}
	read(crioConf)
	entries, err := hostfs.Root(r.Root).ReadDir(crioConfDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.crioUnreadable(crioConfDir, err)
	}
	for i, e := range entries {
		if i < maxFiles && !e.IsDir() {
			read(path.Join(crioConfDir, e.Name()))
		}
	}
	return r.crio(files)
}

func (r *runner) crioUnreadable(p string, err error) {
	r.add(Finding{Severity: Warning, Code: "crio-conf", File: p, Message: fmt.Sprintf("which policy it makes CRI-O read can't be told: %v", err)})
}

// crio lints CRI-O's configuration, in the order in which it is read.
func (r *runner) crio(files []file) crioPolicy {
	type setting struct {
		value string
		file  file
	}
	var system, namespaced setting
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
			r.crioUnreadable(f.path, err)
			continue
		}
		if v := conf.Crio.Image.Policy; v != nil {
			system = setting{*v, f}
		}
		if v := conf.Crio.Image.Policies; v != nil {
			namespaced = setting{*v, f}
		}
	}
	if v := system.value; v != "" && path.Clean(v) != trust.PolicyPath {
		r.add(Finding{
			Severity: Error, Code: "crio-policy", File: system.file.path, Line: lineOf(string(system.file.data), v),
			Message: fmt.Sprintf("signature_policy is %s: CRI-O reads that and not %s, Podman goes on reading the latter", v, trust.PolicyPath),
			Hint:    "remove it, or lint the file it names",
		})
	}
	out := crioPolicy{namespacedDir}
	if v := namespaced.value; v != "" && path.Clean(v) != namespacedDir {
		if strings.HasPrefix(v, "/") {
			out.Policies = path.Clean(v)
		}
		r.add(Finding{
			Severity: Warning, Code: "crio-policies", File: namespaced.file.path, Line: lineOf(string(namespaced.file.data), v),
			Message: fmt.Sprintf("signature_policy_dir is %s: policies of namespaces are read there, which no agent watches", v),
			Hint:    "leave it at " + namespacedDir,
		})
	}
	return out
}
