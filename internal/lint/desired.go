package lint

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/source"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// desired lints the files of a MachineConfig, an Ignition config, a ConfigMap or the directory that it is mounted as.
// A file may hold several as YAML documents; their names then stand before the files in findings.
func (r *runner) desired(p string, data []byte) {
	docs, err := source.Documents(data)
	if err != nil {
		r.desiredState(p, "", nil, err)
		return
	}
	for i, doc := range docs {
		state, err := ReadDesired(doc)
		prefix := ""
		if len(docs) > 1 {
			prefix = fmt.Sprintf("document %d: ", i+1)
			if err == nil && state.Name != "" {
				prefix = state.Name + ": "
			}
		}
		found := err == nil && r.units(prefix, doc)
		if !found || len(state.Files) > 0 {
			r.desiredState(p, prefix, state, err)
		}
	}
}

func (r *runner) desiredState(p, prefix string, state *desired.State, err error) {
	if err != nil {
		r.add("bad-desired", place{file: p}, "%s%v", prefix, err)
		r.loadables = append(r.loadables, loadable{name: p, problem: problemText(err)})
		return
	}
	if !r.state(p, prefix, state) {
		r.nothing(p, prefix)
	}
}

func (r *runner) nothing(p, prefix string) {
	r.add("nothing-to-judge", place{file: p}, "%shas no policy.json and no registries.d files", prefix)
}

// state lints the files of one config, and reports whether there was anything to lint.
func (r *runner) state(p, prefix string, state *desired.State) bool {
	from := filesOnHost{files: state.Files, host: keysOfHost(r.Root)}
	var regs *registries
	if files := registriesOf(state.Files); len(files) > 0 {
		for i := range files {
			files[i].path = prefix + files[i].path
		}
		regs = r.registries(files)
	}
	found := regs != nil
	var system *policyFacts
	var crio, conf []file
	if f, ok := state.Files.Get(trust.PolicyPath); ok {
		found = true
		system = r.onePolicy(file{path: prefix + f.Path, data: f.Data}, regs, from)
	} else if regs != nil {
		r.loadables = append(r.loadables, loadable{name: p, registries: regs})
	}
	passwd, _ := state.Files.Get(hostfs.Passwd)
	homes, _ := hostfs.Homes(string(passwd.Data))
	for _, f := range state.Files.Sorted() {
		named := file{path: prefix + f.Path, data: f.Data}
		switch dir := path.Dir(f.Path); {
		case dir == trust.RegistriesDir:
			r.ignored(named.path)
		case dir == policy.NamespacedDir && strings.HasSuffix(f.Path, ".json"):
			found = true
			r.weaker(system, r.onePolicy(named, nil, from), from)
		case f.Path == crioConf || dir == crioConfDir:
			found = true
			crio = append(crio, named)
		case isRegistriesConf(f.Path, homes[0]):
			conf = append(conf, named)
		case ofRoot(f.Path, homes) && path.Ext(f.Path) == ".json":
			found = true
			r.masks(named.path, ", CRI-O included", "write it there")
		case ofRoot(f.Path, homes):
			found = true
			r.add("masked-registries-d", place{file: named.path},
				"readers before containers-image 5.40, CRI-O up to 1.35 among them, read its directory instead of %s",
				trust.RegistriesDir).Hint = "write it there"
		}
	}
	r.crio(crio)
	r.mirrors(system, regs, r.registryConfs(effectiveConfs(conf, homes[0])))
	return found
}

// dump lints the MachineConfigs of a list, without those that the MCO rendered.
func (r *runner) dump(p string, data []byte) {
	d, err := mco.ParseDump(data)
	if err != nil {
		r.desiredState(p, "", nil, err)
		return
	}
	r.merged(d)
	found := false
	for _, c := range d.Configs {
		if c.Rendered() && len(d.Configs) > 1 {
			continue
		}
		state := &desired.State{Name: c.Name, Pool: c.Role()}
		for _, f := range c.Files {
			if f.Err != nil {
				found = true
				r.add("bad-desired", place{file: c.Name + ": " + f.Path}, "%v", f.Err)
				r.loadables = append(r.loadables, loadable{name: p, problem: fmt.Sprintf("%s: %s: %v", c.Name, f.Path, f.Err)})
				continue
			}
			state.Files = append(state.Files, trust.File{Path: f.Path, Mode: 0o644, Data: f.Data})
		}
		found = r.state(p, c.Name+": ", state) || found
	}
	if !found {
		r.nothing(p, "")
	}
}

// ReadDesired reads a MachineConfig or Ignition config. What nodetrust rendered is read as strictly as the agent
// would; of what others wrote only the files count that decide about images.
func ReadDesired(doc []byte) (*desired.State, error) {
	state, err := desired.Parse(doc)
	if err == nil || bytes.Contains(doc, []byte(desired.DigestAnnotation)) ||
		!bytes.Contains(doc, []byte("MachineConfig")) {
		return state, err
	}
	return desired.Extract(doc, judged)
}

// judged reports whether a file of a MachineConfig is looked at.
func judged(p string) bool {
	switch path.Dir(p) {
	case trust.RegistriesDir, policy.NamespacedDir, crioConfDir, "/etc/pki/containers", "/etc/pki/rpm-gpg",
		"/etc/pki/sigstore", "/etc/machine-config-daemon/no-reboot":
		return true
	}
	homes, _ := hostfs.Homes("") // a config says of no other ones
	return p == trust.PolicyPath || p == crioConf || isRegistriesConf(p, homes[0]) || ofRoot(p, homes)
}

// ofRoot reports whether a file is one of root's own in one of the homes, which mask those of the system: a policy.json
// or one of registries.d. On OpenShift's nodes /root is a link.
func ofRoot(p string, homes []string) bool {
	p = strings.Replace(p, "/var/roothome/", "/root/", 1)
	return slices.ContainsFunc(homes, func(home string) bool {
		return p == path.Join(home, policy.HomeFile) ||
			path.Dir(p) == path.Join(home, registriesd.HomeDir) && path.Ext(p) == ".yaml"
	})
}

// ignitionUnits are the units of an Ignition config.
type ignitionUnits struct {
	Units []struct {
		Name     string
		Mask     bool
		Contents string
		Dropins  []struct{ Name, Contents string }
	}
}

// units reports whether a MachineConfig or Ignition config has units that make the runtime read another policy.json.
func (r *runner) units(prefix string, doc []byte) bool {
	var config struct {
		Systemd ignitionUnits
		Spec    struct {
			Config struct{ Systemd ignitionUnits }
		}
	}
	if yaml.Unmarshal(doc, &config) != nil {
		return false
	}
	before := len(r.findings) + r.dropped
	for _, u := range append(config.Systemd.Units, config.Spec.Config.Systemd.Units...) {
		if u.Mask {
			continue
		}
		r.unitText(prefix+"unit "+u.Name, u.Name, []byte(u.Contents))
		for _, d := range u.Dropins {
			r.unitText(prefix+"unit "+u.Name+"/"+d.Name, u.Name, []byte(d.Contents))
		}
	}
	return len(r.findings)+r.dropped > before
}

// merged finds MachineConfigs of ours into which others were merged that are not in the list any more as they were:
// what those demand now reaches no node.
func (r *runner) merged(d *mco.Dump) {
	for _, c := range d.Configs {
		if !c.Merged() || c.Rendered() {
			continue
		}
		why, err := mco.Target{Dump: d, Pool: c.Role(), Minor: d.Minor}.Outdated(c)
		at := place{file: c.Name}
		switch {
		case err != nil && len(d.Configs) > 1: // alone, there is nothing to compare with
			r.add("merged-outdated", at, "whether what was merged into it has changed can't be told: %v", err).Severity = Warning
		case err == nil && len(why) > 0:
			r.add("merged-outdated", at, "what was merged into it has changed, and reaches no node: %s",
				strings.Join(why, "; "))
		}
	}
}
