package render

import (
	"fmt"
	"path"
	"slices"

	"github.com/nodetrust/nodetrust/internal/trust"
)

const maxDisruptionFiles = 50

type (
	machineConfiguration struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       struct {
			NodeDisruptionPolicy struct {
				Files []disruptionFile `yaml:"files"`
			} `yaml:"nodeDisruptionPolicy"`
		} `yaml:"spec"`
	}

	disruptionFile struct {
		Path    string             `yaml:"path"`
		Actions []disruptionAction `yaml:"actions"`
	}

	disruptionAction struct {
		Type   string            `yaml:"type"`
		Reload *disruptionReload `yaml:"reload,omitempty"`
	}

	disruptionReload struct {
		ServiceName string `yaml:"serviceName"`
	}
)

// NodeDisruptionPolicy returns the MachineConfiguration by which the MCO changes our files without rebooting nodes.
// The entries for policy.json and registries.d repeat the defaults of 4.17 and later; the other files need no action,
// as each pull reads them. It returns an error if one of the readers knows no such policy.
func NodeDisruptionPolicy(in Input) ([]byte, error) {
	for _, r := range in.Readers {
		if r.OpenShift > 0 && r.OpenShift < 16 {
			return nil, fmt.Errorf("reader %s has no NodeDisruptionPolicy: OpenShift has it from 4.17 on (4.16: technology preview)", r.Name)
		}
	}
	var m machineConfiguration
	m.APIVersion, m.Kind, m.Metadata.Name = "operator.openshift.io/v1", "MachineConfiguration", "cluster"
	reload := disruptionAction{Type: "Reload", Reload: &disruptionReload{"crio.service"}}
	for _, f := range in.Files.Sorted() {
		entry := disruptionFile{f.Path, []disruptionAction{{Type: "None"}}}
		switch {
		case f.Path == trust.PolicyPath:
			entry.Actions = []disruptionAction{reload}
		case path.Dir(f.Path) == trust.RegistriesDir:
			entry = disruptionFile{trust.RegistriesDir, []disruptionAction{reload}}
		}
		files := &m.Spec.NodeDisruptionPolicy.Files
		if !slices.ContainsFunc(*files, func(d disruptionFile) bool { return d.Path == entry.Path }) {
			*files = append(*files, entry)
		}
	}
	if n := len(m.Spec.NodeDisruptionPolicy.Files); n > maxDisruptionFiles {
		return nil, fmt.Errorf("NodeDisruptionPolicy has %d files, the MCO takes at most %d", n, maxDisruptionFiles)
	}
	return encode(in, m)
}
