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
	rendered := strings.Replace(foreignConfig("rendered-worker-1", bad), "  name:",
		"  ownerReferences: [{kind: MachineConfigPool, name: worker}]\n  name:", 1)
	noFiles := strings.ReplaceAll(foreignConfig("99-ssh", bad), "/etc/containers/policy.json", "/etc/other.json")
	ours := strings.Replace(foreignConfig("51-worker-corp", signedPolicy), "  name:",
		"  annotations: {nodetrust.io/digest: 'sha256:00'}\n  name:", 1)
	for _, tt := range []struct{ name, in, want, loads string }{
		{"clean", foreignConfig("51-x", signedPolicy), "", CurrentLibrary + " true"},
		{
			"broken", foreignConfig("51-x", bad), "error /etc/containers/policy.json:2 empty-requirements",
			CurrentLibrary + " false",
		},
		{"edited after it was rendered", ours, "error mc.yaml:0 bad-desired", CurrentLibrary + " false"},
		{"nothing of interest", noFiles, "warning mc.yaml:0 nothing-to-judge", ""},
		{
			"several documents", foreignConfig("51-x", signedPolicy) + "---\n" + foreignConfig("52-x", bad),
			"error 52-x: /etc/containers/policy.json:2 empty-requirements", CurrentLibrary + " false",
		},
		{
			"list", list(foreignConfig("51-x", bad), noFiles), "error 51-x: /etc/containers/policy.json:2 empty-requirements",
			CurrentLibrary + " false",
		},
		{
			"list with what the MCO rendered", list(rendered, foreignConfig("51-x", signedPolicy)), "",
			CurrentLibrary + " true",
		},
		{"list without anything", list(noFiles), "warning mc.yaml:0 nothing-to-judge", ""},
		{"empty list", list(), "error mc.yaml:0 bad-desired", CurrentLibrary + " false"},
		{"compressed", gzipped(t, list(foreignConfig("51-x", signedPolicy))), "", CurrentLibrary + " true"},
		{
			"fetched contents", list(strings.Replace(foreignConfig("51-x", bad), "data:;base64", "https://x", 1)),
			"error 51-x: /etc/containers/policy.json:0 bad-desired", CurrentLibrary + " false",
		},
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
	r, err := Run([]string{filepath.Join(dir, "machineconfigs/4.16.0-single-node-mc.yaml.gz")},
		Options{Now: time.Now(), Readers: []string{"openshift-4.16"}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "warning 01-master-container-runtime: /etc/containers/policy.json:2 accepts-everything\nwarning 01-worker-container-runtime: /etc/containers/policy.json:2 accepts-everything"
	if got := summary(r, "-"); got != want || loads(r) != "openshift-4.16 true" {
		t.Errorf("got\n%s, %s", got, loads(r))
	}
}

// configOf is a MachineConfig with these files.
func configOf(files ...string) string {
	s := strings.ReplaceAll(foreignConfig("51-x", ""),
		"      - path: /etc/containers/policy.json\n        mode: 420\n        overwrite: true\n        contents: {source: \"data:;base64,\"}\n", "")
	for i := 0; i < len(files); i += 2 {
		s += "      - path: " + files[i] + "\n        contents: {source: \"data:;base64," +
			base64.StdEncoding.EncodeToString([]byte(files[i+1])) + "\"}\n"
	}
	return s
}

// TestForeignFiles: what else in a MachineConfig decides about images.
func TestForeignFiles(t *testing.T) {
	const (
		policyPath = "/etc/containers/policy.json"
		registries = "/etc/containers/registries.d/a.yaml"
		mirrored   = "[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"mirror.corp\"\n"
	)
	for _, tt := range []struct {
		name  string
		files []string
		want  string
	}{
		{"signature_policy", []string{
			"/etc/crio/crio.conf.d/99-x.conf",
			"[crio.image]\nsignature_policy = \"/etc/corp.json\"\n",
		}, "error /etc/crio/crio.conf.d/99-x.conf:2 crio-policy"},
		{"signature_policy of the first", []string{
			"/etc/crio/crio.conf",
			"[crio.image]\nsignature_policy = \"/etc/corp.json\"\n", "/etc/crio/crio.conf.d/0",
			"[crio.image]\nsignature_policy = \"\"\n",
		}, ""},
		{
			"signature_policy_dir",
			[]string{"/etc/crio/crio.conf", "[crio.image]\nsignature_policy_dir = \"/etc/corp\"\n"},
			"warning /etc/crio/crio.conf:2 crio-policies",
		},
		{"crio.conf of other things", []string{"/etc/crio/crio.conf.d/99-x.conf", "[crio.runtime]\npids_limit = 1\n"}, ""},
		{
			"crio.conf broken",
			[]string{"/etc/crio/crio.conf.d/99-x.conf", "[crio"},
			"warning /etc/crio/crio.conf.d/99-x.conf:0 crio-conf",
		},
		{
			"root's own policy",
			[]string{"/root/.config/containers/policy.json", signedPolicy},
			"error /root/.config/containers/policy.json:0 masked-policy",
		},
		{
			"root's own policy, really",
			[]string{"/var/roothome/.config/containers/policy.json", signedPolicy},
			"error /var/roothome/.config/containers/policy.json:0 masked-policy",
		},
		{
			"root's own registries.d",
			[]string{"/root/.config/containers/registries.d/a.yaml", lookaside},
			"warning /root/.config/containers/registries.d/a.yaml:0 masked-registries-d",
		},
		{
			"registries.conf alone",
			[]string{"/etc/containers/registries.conf", mirrored},
			"warning mc.yaml:0 nothing-to-judge",
		},
		{"mirror without lookaside", []string{
			policyPath, signedPolicy, registries, lookaside,
			"/etc/containers/registries.conf", mirrored,
		}, "warning /etc/containers/registries.conf:4 mirror-no-lookaside"},
		{"mirror without lookaside, and a canary", []string{
			policyPath,
			strings.Replace(signedPolicy, `"example.com/team":`,
				`"example.com/team/a@sha256:`+strings.Repeat("a", 64)+
					`":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}],"example.com/team":`, 1), registries, lookaside,
			"/etc/containers/registries.conf", mirrored,
		}, "warning /etc/containers/registries.conf:4 mirror-no-lookaside"},
		{"mirror, lookasides elsewhere", []string{policyPath, signedPolicy, "/etc/containers/registries.conf", mirrored}, ""},
		{"insecure mirror", []string{
			policyPath, signedPolicy, "/etc/containers/registries.conf.d/m.conf",
			mirrored + "insecure = true\n",
		}, "warning /etc/containers/registries.conf.d/m.conf:4 registry-insecure"},
		{
			"insecure wildcard",
			[]string{
				policyPath, signedPolicy, "/etc/containers/registries.conf",
				"[[registry]]\nprefix = \"*.com\"\ninsecure = true\n",
			},
			"warning /etc/containers/registries.conf:0 registry-insecure",
		},
		{"insecure, and nothing signed", []string{
			policyPath, docker(`"example.com":` + reject),
			"/etc/containers/registries.conf", mirrored + "insecure = true\n",
		}, ""},
		{
			"blocked",
			[]string{
				policyPath, signedPolicy, "/etc/containers/registries.conf",
				"[[registry]]\nprefix = \"example.com\"\nblocked = true\n",
			},
			"warning /etc/containers/registries.conf:2 registry-blocked",
		},
		{"namespaced policy weaker", []string{
			policyPath, signedPolicy, "/etc/crio/policies/apps.json",
			`{"default":` + accept + `}`,
		}, "warning /etc/crio/policies/apps.json:1 accepts-everything\nwarning /etc/crio/policies/apps.json:1 namespaced-weaker\nwarning /etc/crio/policies/apps.json:1 namespaced-weaker"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, t.TempDir(), map[string]string{"mc.yaml": configOf(tt.files...)})
			r, err := Run([]string{filepath.Join(dir, "mc.yaml")}, Options{Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(r, dir); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s\n%+v", got, tt.want, r.Findings)
			}
		})
	}
}

// TestForeignUnits: units of a MachineConfig that have CRI-O read another policy.
func TestForeignUnits(t *testing.T) {
	for _, tt := range []struct{ name, units, want string }{
		{"drop-in", "{name: crio.service, dropins: [{name: 10-x.conf, contents: \"[Service]\\nEnvironment=CONTAINERS_POLICY_JSON=/p.json\\n\"}]}", "error unit crio.service/10-x.conf:2 policy-environment"},
		{
			"flag", "{name: crio.service, contents: \"[Service]\\nExecStart=/usr/bin/crio --signature-policy /p.json\\n\"}",
			"error unit crio.service:2 policy-environment",
		},
		{"masked", "{name: crio.service, mask: true, contents: \"Environment=HOME=/x\\n\"}", ""},
		{"home of another", "{name: x.service, contents: \"[Service]\\nEnvironment=HOME=/x\\n\"}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mc := strings.Replace(foreignConfig("51-x", signedPolicy), "{name: x.service, enabled: true}", tt.units, 1)
			alone := mc[:strings.Index(mc, "    storage:\n")]
			dir := write(t, t.TempDir(), map[string]string{"mc.yaml": mc, "alone.yaml": alone})
			for _, f := range []string{"mc.yaml", "alone.yaml"} {
				r, err := Run([]string{filepath.Join(dir, f)}, Options{Now: time.Now()})
				if err != nil {
					t.Fatal(err)
				}
				want := tt.want
				if want == "" && f == "alone.yaml" {
					want = "warning alone.yaml:0 nothing-to-judge"
				}
				if got := summary(r, dir); got != want {
					t.Errorf("%s: got\n%s\nwant\n%s\n%+v", f, got, want, r.Findings)
				}
			}
		})
	}
}
