package lint

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// dump lints the MachineConfigs of a list: those that people and the MCO wrote, not those that the MCO rendered of
// them.
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
	case trust.RegistriesDir, namespacedDir, crioConfDir, "/etc/pki/containers", "/etc/pki/rpm-gpg", "/etc/pki/sigstore",
		"/etc/machine-config-daemon/no-reboot":
		return true
	}
	return p == trust.PolicyPath || p == crioConf || isRegistriesConf(p) || ofRoot(p)
}

// ofRoot reports whether a file is one of root's own that mask those of the system. On OpenShift's nodes /root is a
// link.
func ofRoot(p string) bool {
	p = strings.Replace(p, "/var/roothome/", "/root/", 1)
	return p == userPolicy || path.Dir(p) == userDir && strings.HasSuffix(p, ".yaml")
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

// units looks for units in a MachineConfig or Ignition config that have the runtime read another policy.json, and
// reports whether there was one.
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
