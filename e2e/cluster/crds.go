package cluster

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// crds are OpenShift's custom resources that nodetrust deals with, each with the default feature set: names and files in the module.
var crds = map[string]string{
	"clusterimagepolicies.config.openshift.io":             "payload-manifests/crds/0000_10_config-operator_01_clusterimagepolicies.crd.yaml",
	"imagepolicies.config.openshift.io":                    "payload-manifests/crds/0000_10_config-operator_01_imagepolicies.crd.yaml",
	"images.config.openshift.io":                           "payload-manifests/crds/0000_10_config-operator_01_images.crd.yaml",
	"clusterversions.config.openshift.io":                  "config/v1/zz_generated.crd-manifests/0000_00_cluster-version-operator_01_clusterversions-Default.crd.yaml",
	"machineconfigpools.machineconfiguration.openshift.io": "payload-manifests/crds/0000_80_machine-config_01_machineconfigpools-Default.crd.yaml",
	"machineconfigs.machineconfiguration.openshift.io":     "payload-manifests/crds/0000_80_machine-config_01_machineconfigs.crd.yaml",
	"machineconfigurations.operator.openshift.io":          "payload-manifests/crds/0000_80_machine-config_01_machineconfigurations-Default.crd.yaml",
}

// InstallCRDs installs OpenShift's custom resource definitions and waits until objects of them can be made. No operator works
// on these.
func (c *Cluster) InstallCRDs(ctx context.Context) error {
	dir, err := openshiftAPI(ctx)
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
	_, err = c.Kubectl(append([]string{"wait", "--for=condition=Established", "--timeout=30s", "crd"}, names...)...)
	return err
}

// openshiftAPI is the directory of the module github.com/openshift/api, which the go command fetches if need be.
func openshiftAPI(ctx context.Context) (string, error) {
	root, err := lab.ModuleRoot()
	if err != nil {
		return "", err
	}
	var dir []byte
	for _, args := range [][]string{{"mod", "download"}, {"list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "github.com/openshift/api"}} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = filepath.Join(root, "e2e", "crds")
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if dir, err = cmd.Output(); err != nil {
			return "", fmt.Errorf("finding the module of OpenShift's API: %w: %s", err, stderr.String())
		}
	}
	return strings.TrimSpace(string(dir)), nil
}
