package desired

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nodetrust/nodetrust/internal/trust"
)

type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec map[string]json.RawMessage `json:"spec"`
}

func isMachineConfig(data []byte) bool {
	var o struct {
		Kind *string `json:"kind"`
	}
	return json.Unmarshal(data, &o) == nil && o.Kind != nil
}

func unwrap(data []byte) (object, json.RawMessage, error) {
	var o object
	if err := json.Unmarshal(data, &o); err != nil {
		return o, nil, fmt.Errorf("parsing MachineConfig: %w", err)
	}
	if o.Kind != "MachineConfig" || !strings.HasPrefix(o.APIVersion, "machineconfiguration.openshift.io/") {
		return o, nil, notObject(o)
	}
	config, ok := o.Spec["config"]
	if !ok {
		return o, nil, errors.New("MachineConfig has no spec.config")
	}
	return o, config, nil
}

// notObject returns what o is, with advice for nodetrust's own files that are taken for a desired state.
func notObject(o object) error {
	hint := ""
	switch o.Kind {
	case trust.ObjectKind:
		hint = "; render it: nodetrust render --to machineconfig"
	case "ConfigMap":
		hint = "; give the directory that it is mounted as"
	}
	return fmt.Errorf("%w, but a %s%s", errNotObject, strings.TrimSpace(o.APIVersion+" "+o.Kind), hint)
}

func machineConfig(data []byte) (*State, error) {
	o, config, err := unwrap(data)
	if err != nil {
		return nil, err
	}
	delete(o.Spec, "config")
	for name, v := range o.Spec {
		switch strings.TrimSpace(string(v)) {
		case `null`, `""`, `false`, `[]`, `{}`:
		default:
			return nil, fmt.Errorf("MachineConfig has spec.%s, which only the Machine Config Operator can apply", name)
		}
	}
	files, err := ignition(config)
	if err != nil {
		return nil, err
	}
	s := &State{Name: o.Metadata.Name, Pool: o.Metadata.Labels[RoleLabel], Files: files}
	if text, ok := o.Metadata.Annotations[CanariesAnnotation]; ok {
		if s.Canaries, err = trust.ParseCanaries([]byte(text)); err != nil {
			return nil, fmt.Errorf("reading annotation %s: %w", CanariesAnnotation, err)
		}
	}
	if digest, ok := o.Metadata.Annotations[DigestAnnotation]; ok && digest != files.Digest() {
		return nil, fmt.Errorf("annotation %s is %s, but the files are %s: one of them was edited", DigestAnnotation, digest,
			files.Digest())
	}
	return s, nil
}
