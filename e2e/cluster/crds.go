package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// crds are OpenShift's custom resources that nodetrust deals with, each with the default feature set.
var crds = []string{
	"0000_10_config-operator_01_clusterimagepolicies.crd.yaml",
	"0000_10_config-operator_01_imagepolicies.crd.yaml",
	"0000_80_machine-config_01_machineconfigpools-Default.crd.yaml",
	"0000_80_machine-config_01_machineconfigs.crd.yaml",
}

// InstallCRDs installs OpenShift's custom resource definitions and waits until objects of them can be made. No operator works
// on these.
func (c *Cluster) InstallCRDs(ctx context.Context) error {
	dir, err := openshiftAPI(ctx)
	if err != nil {
		return err
	}
	args := []string{"apply", "--server-side"}
	for _, name := range crds {
		args = append(args, "-f", filepath.Join(dir, "payload-manifests", "crds", name))
	}
	if _, err := c.Kubectl(args...); err != nil {
		return err
	}
	_, err = c.Kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd",
		"clusterimagepolicies.config.openshift.io", "imagepolicies.config.openshift.io",
		"machineconfigpools.machineconfiguration.openshift.io", "machineconfigs.machineconfiguration.openshift.io")
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
