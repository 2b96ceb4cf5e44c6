package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// The modules whose custom resource definitions the lab takes, by version as e2e/crds says.
const (
	openshiftAPI       = "github.com/openshift/api"
	prometheusOperator = "github.com/prometheus-operator/prometheus-operator"
)

// crds are OpenShift's custom resources that nodetrust deals with, each with the default feature set: names and files
// in the module.
var crds = map[string]string{
	"clusterimagepolicies.config.openshift.io":             "payload-manifests/crds/0000_10_config-operator_01_clusterimagepolicies.crd.yaml",
	"imagepolicies.config.openshift.io":                    "payload-manifests/crds/0000_10_config-operator_01_imagepolicies.crd.yaml",
	"images.config.openshift.io":                           "payload-manifests/crds/0000_10_config-operator_01_images.crd.yaml",
	"clusterversions.config.openshift.io":                  "config/v1/zz_generated.crd-manifests/0000_00_cluster-version-operator_01_clusterversions-Default.crd.yaml",
	"machineconfigpools.machineconfiguration.openshift.io": "payload-manifests/crds/0000_80_machine-config_01_machineconfigpools-Default.crd.yaml",
	"machineconfigs.machineconfiguration.openshift.io":     "payload-manifests/crds/0000_80_machine-config_01_machineconfigs.crd.yaml",
	"machineconfigurations.operator.openshift.io":          "payload-manifests/crds/0000_80_machine-config_01_machineconfigurations-Default.crd.yaml",
}

// InstallCRDs installs OpenShift's custom resource definitions and waits until objects of them can be made. No
// operator works on these.
func (c *Cluster) InstallCRDs(ctx context.Context) error {
	dir, err := crdModule(ctx, openshiftAPI)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(crds))
	args := []string{"apply", "--server-side"}
	for _, name := range names {
		args = append(args, "-f", filepath.Join(dir, crds[name]))
	}
	if _, err := c.Kubectl(args...); err != nil {
		return err
	}
	_, err = c.Kubectl(append([]string{"wait", "--for=condition=Established", "--timeout=3m", "crd"}, names...)...)
	return err
}

// crdModule is the directory of a module that e2e/crds requires, which the go command fetches if need be.
func crdModule(ctx context.Context, path string) (string, error) {
	root, err := lab.ModuleRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", path)
	cmd.Dir = filepath.Join(root, "e2e", "crds")
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("finding the module %s: %w: %s%s", path, err, out, stderr.String())
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("finding the module %s: %w", path, err)
	}
	return module.Dir, nil
}
