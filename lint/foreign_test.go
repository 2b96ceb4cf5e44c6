package lint

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// foreignConfig is a MachineConfig as others write them: with more than files of ours, and of any Ignition field.
func foreignConfig(name, policy string) string {
	return fmt.Sprintf(`apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfig
metadata:
  labels: {machineconfiguration.openshift.io/role: worker}
  name: %s
spec:
  kernelArguments: [quiet]
  config:
    ignition: {version: 3.2.0}
    systemd:
      units: [{name: x.service, enabled: true}]
    storage:
      files:
      - path: /etc/motd
        contents: {source: "data:,hello"}
      - path: /etc/containers/policy.json
        mode: 420
        overwrite: true
        contents: {source: "data:;base64,%s"}
`, name, base64.StdEncoding.EncodeToString([]byte(policy)))
}

func list(configs ...string) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nitems:\n")
	for _, c := range configs {
		b.WriteString("- " + strings.ReplaceAll(strings.TrimSuffix(c, "\n"), "\n", "\n  ") + "\n")
	}
	return b.String() + "kind: List\nmetadata: {resourceVersion: \"\"}\n"
}

func gzipped(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestForeign(t *testing.T) {
	const bad = "{\n\"default\":[]}"
	rendered := strings.Replace(foreignConfig("rendered-worker-1", bad), "  name:", "  ownerReferences: [{kind: MachineConfigPool, name: worker}]\n  name:", 1)
	noFiles := strings.ReplaceAll(foreignConfig("99-ssh", bad), "/etc/containers/policy.json", "/etc/other.json")
	ours := strings.Replace(foreignConfig("51-worker-corp", signedPolicy), "  name:", "  annotations: {nodetrust.io/digest: 'sha256:00'}\n  name:", 1)
	for _, tt := range []struct{ name, in, want, loads string }{
		{"clean", foreignConfig("51-x", signedPolicy), "", CurrentLibrary + " true"},
		{"broken", foreignConfig("51-x", bad), "error /etc/containers/policy.json:2 empty-requirements", CurrentLibrary + " false"},
		{"edited after it was rendered", ours, "error mc.yaml:0 bad-desired", CurrentLibrary + " false"},
		{"nothing of interest", noFiles, "warning mc.yaml:0 nothing-to-judge", ""},
		{"several documents", foreignConfig("51-x", signedPolicy) + "---\n" + foreignConfig("52-x", bad), "error 52-x: /etc/containers/policy.json:2 empty-requirements", CurrentLibrary + " false"},
		{"list", list(foreignConfig("51-x", bad), noFiles), "error 51-x: /etc/containers/policy.json:2 empty-requirements", CurrentLibrary + " false"},
		{"list with what the MCO rendered", list(rendered, foreignConfig("51-x", signedPolicy)), "", CurrentLibrary + " true"},
		{"list without anything", list(noFiles), "warning mc.yaml:0 nothing-to-judge", ""},
		{"empty list", list(), "error mc.yaml:0 bad-desired", CurrentLibrary + " false"},
		{"compressed", gzipped(t, list(foreignConfig("51-x", signedPolicy))), "", CurrentLibrary + " true"},
		{"fetched contents", list(strings.Replace(foreignConfig("51-x", bad), "data:;base64", "https://x", 1)), "error 51-x: /etc/containers/policy.json:0 bad-desired", CurrentLibrary + " false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, t.TempDir(), map[string]string{"mc.yaml": tt.in})
			r, err := Run([]string{filepath.Join(dir, "mc.yaml")}, Options{Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if summary(r, dir) != tt.want || loads(r) != tt.loads {
				t.Errorf("got %s, %s\nwant %s, %s\n%+v", summary(r, dir), loads(r), tt.want, tt.loads, r)
			}
		})
	}
}

// TestRealCluster lints all MachineConfigs of a real cluster, whose policy accepts everything.
func TestRealCluster(t *testing.T) {
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	r, err := Run([]string{filepath.Join(dir, "machineconfigs/4.16.0-single-node-mc.yaml.gz")}, Options{Now: time.Now(), Readers: []string{"openshift-4.16"}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "warning 01-master-container-runtime: /etc/containers/policy.json:2 accepts-everything\nwarning 01-worker-container-runtime: /etc/containers/policy.json:2 accepts-everything"
	if got := summary(r, "-"); got != want || loads(r) != "openshift-4.16 true" {
		t.Errorf("got\n%s, %s", got, loads(r))
	}
}
