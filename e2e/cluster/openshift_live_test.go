package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// noVersion of owners is none that the API server has: else the garbage collector would look for them, and delete
// what they own.
const noVersion = "machineconfiguration.openshift.io/v0"

// machineConfig is a MachineConfig of a role with files, by path. owner, if not empty, is the kind of what the
// Machine Config Operator made it from.
func machineConfig(name, role, owner string, files map[string]string) []byte {
	list := []any{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		content := files[path]
		list = append(list, map[string]any{
			"path": path, "mode": 420, "overwrite": true,
			"contents": map[string]any{"source": "data:," + url.PathEscape(content)},
		})
	}
	metadata := map[string]any{"name": name, "labels": map[string]any{"machineconfiguration.openshift.io/role": role}}
	if owner != "" {
		metadata["ownerReferences"] = []any{map[string]any{
			"apiVersion": noVersion, "kind": owner, "name": "cluster",
			"uid": "00000000-0000-0000-0000-000000000000",
		}}
	}
	b, err := yaml.Marshal(map[string]any{
		"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig", "metadata": metadata,
		"spec": map[string]any{"config": map[string]any{
			"ignition": map[string]any{"version": "3.4.0"},
			"storage":  map[string]any{"files": list},
		}},
	})
	if err != nil {
		panic(err)
	}
	return b
}

// machineConfigPool is a MachineConfigPool that takes the MachineConfigs of some roles and the nodes of one.
func machineConfigPool(name string, roles ...string) []byte {
	return fmt.Appendf(nil, `apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfigPool
metadata: {name: %[1]s}
spec:
  machineConfigSelector: {matchExpressions: [{key: machineconfiguration.openshift.io/role, operator: In, values: [%[2]s]}]}
  nodeSelector: {matchLabels: {node-role.kubernetes.io/%[1]s: ""}}
`, name, strings.Join(roles, ", "))
}

const (
	workerTemplate = "01-worker-container-runtime"
	generated      = "99-worker-generated-registries"
	policyPath     = "/etc/containers/policy.json"
	sigstorePath   = "/etc/containers/registries.d/sigstore-registries.yaml"
)

// theirPolicy is what the Machine Config Operator writes for a ClusterImagePolicy.
func theirPolicy(scope string) string {
	return fmt.Sprintf(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"atomic":{"%[1]s":[{"type":"sigstoreSigned","keyData":"Zm9v","signedIdentity":{"type":"matchRepoDigestOrExact"}}]},`+
		`"docker":{"%[1]s":[{"type":"sigstoreSigned","keyData":"Zm9v","signedIdentity":{"type":"matchRepoDigestOrExact"}}]},"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}`, scope)
}

// openshift installs the CRDs and makes objects, which are deleted at the end of the test.
func openshift(t *testing.T, c *Cluster, objects ...[]byte) {
	t.Helper()
	must(t, c.InstallCRDs(context.Background()))
	t.Cleanup(func() {
		_, err := c.Kubectl("delete", "machineconfigs,machineconfigpools,clusterversions,clusterimagepolicies,images.config.openshift.io", "--all")
		must(t, err)
	})
	must(t, c.Apply(bytes.Join(objects, []byte("---\n"))))
}

// clusterVersion says which version of OpenShift the cluster is.
func clusterVersion(t *testing.T, c *Cluster, version string) {
	t.Helper()
	must(t, c.Apply([]byte("apiVersion: config.openshift.io/v1\nkind: ClusterVersion\nmetadata: {name: version}\nspec: {clusterID: 11111111-1111-1111-1111-111111111111}\n")))
	status := fmt.Sprintf(`[{"op":"add","path":"/status","value":{"desired":{"version":%q,"image":"quay.io/openshift-release-dev/ocp-release@sha256:%064d"},"observedGeneration":1,"versionHash":"x","history":[],"availableUpdates":null}}]`, version, 0)
	must(t, c.Do("PATCH", "/apis/config.openshift.io/v1/clusterversions/version/status", "application/json-patch+json",
		[]byte(status), nil))
}

// ran is what a command of nodetrust has done.
type ran struct {
	stdout, stderr string
	code           int
}

// nodetrust runs the CLI as cluster-admin, on this machine.
func nodetrust(t *testing.T, c *Cluster, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Lab.Programs.Nodetrust, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(c.dir, "home"), "KUBECONFIG=" + c.Kubeconfig}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// write puts a file into the test's directory.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, data, 0o644))
	return path
}

// TestLive: render and diff read the same from the API server as from a dump of the same objects.
func TestLive(t *testing.T) {
	c := need(t)
	objects := [][]byte{
		machineConfigPool("worker", "worker"), machineConfigPool("infra", "worker", "infra"),
		machineConfigPool("plain", "plain"),
		machineConfig(workerTemplate, "worker", "ControllerConfig", map[string]string{policyPath: acceptAnything}),
		machineConfig(generated, "worker", "Image", map[string]string{
			policyPath: theirPolicy("quay.io/else"), sigstorePath: fmt.Sprintf(
				"docker:\n  quay.io/else:\n    use-sigstore-attachments: true\n  %s/team:\n    use-sigstore-attachments: true\n",
				c.Registry.Host),
		}),
		machineConfig("01-plain-container-runtime", "plain", "ControllerConfig",
			map[string]string{policyPath: acceptAnything, "/etc/html": "<&>\u2028"}),
		[]byte("apiVersion: config.openshift.io/v1\nkind: ClusterImagePolicy\nmetadata: {name: else}\nspec: {scopes: [quay.io/else], policy: {rootOfTrust: {policyType: PublicKey, publicKey: {keyData: LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUZrdwotLS0tLUVORCBQVUJMSUMgS0VZLS0tLS0=}}}}\n"),
		[]byte("apiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {name: cluster}\nspec: {}\n"),
	}
	for i := range 47 { // more than two pages, among them what the MCO rendered long ago
		objects = append(objects, machineConfig(fmt.Sprintf("rendered-worker-%032d", i), "", "MachineConfigPool",
			map[string]string{policyPath: acceptAnything}))
	}
	openshift(t, c, objects...)
	clusterVersion(t, c, "4.20.3")

	trusts := map[string]string{}
	for _, pool := range []string{"worker", "infra", "plain", "gone"} {
		trusts[pool] = write(t, pool+".yaml", []byte(strings.Replace(c.Trust(""), "pools: [worker]", "pools: ["+pool+"]", 1)))
	}
	text, err := c.Kubectl("get", "machineconfigs,machineconfigpools,clusterversions,images.config.openshift.io,clusterimagepolicies", "-o", "yaml")
	must(t, err)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err = io.WriteString(z, text)
	must(t, errors.Join(err, z.Close()))
	asJSON, err := c.Kubectl("get", "machineconfigs,machineconfigpools,clusterversions,images.config.openshift.io,clusterimagepolicies", "-o", "json")
	must(t, err)
	dumps := map[string]string{
		"yaml": write(t, "dump.yaml", []byte(text)), "gzip": write(t, "dump.gz", zipped.Bytes()),
		"json": write(t, "dump.json", []byte(asJSON)),
	}

	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{
			"shadowed",
			[]string{"render", "--to", "machineconfig", "--cluster", "@", trusts["worker"]},
			3,
			generated + ": is merged later",
		},
		{
			"merged",
			[]string{"render", "--to", "machineconfig", "--cluster", "@", "--merge", trusts["worker"]},
			0,
			"nodetrust.io/merged-files: ",
		},
		{
			"a custom pool",
			[]string{"render", "--to", "machineconfig", "--cluster", "@", trusts["infra"]},
			3,
			"would no longer have an effect",
		},
		{
			"a custom pool, merged",
			[]string{"render", "--to", "machineconfig", "--cluster", "@", "--merge", trusts["infra"]},
			0, "name: 99-infra-zz-lab",
		},
		{
			"a pool without the MCO's",
			[]string{"render", "--to", "machineconfig", "--cluster", "@", trusts["plain"]},
			3,
			"the MCO has not written its own yet",
		},
		{
			"no pool",
			[]string{"render", "--to", "machineconfig", "--cluster", "@", trusts["gone"]},
			3,
			"no MachineConfigPool gone",
		},
		{"diff", []string{"diff", "--pool", "worker", "@", trusts["worker"]}, 0, "docker: quay.io/else: stronger: "},
		{
			"diff, the other way round",
			[]string{"diff", "--pool", "worker", trusts["worker"], "@", "-o", "json"},
			3,
			`"relation": "weaker"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := func(cluster string) ran {
				args := append([]string(nil), tt.args...)
				for i, a := range args {
					if a == "@" {
						args[i] = cluster
					}
				}
				return nodetrust(t, c, args...)
			}
			live := at("live")
			if live.code != tt.code || !strings.Contains(live.stdout+live.stderr, tt.says) {
				t.Errorf("exit status %d, %s%s; want %d, %s", live.code, live.stdout, live.stderr, tt.code, tt.says)
			}
			for name, file := range dumps {
				if dump := at(file); dump != live {
					t.Errorf("%s: exit status %d, %s%s; live: %d, %s%s", name, dump.code, dump.stdout, dump.stderr, live.code,
						live.stdout, live.stderr)
				}
			}
		})
	}
}

// TestLive_real does the same with the MachineConfigs of a real cluster.
func TestLive_real(t *testing.T) {
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	c := need(t)
	zipped, err := os.ReadFile(filepath.Join(dir, "machineconfigs/4.16.0-single-node-mc.yaml.gz"))
	must(t, err)
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	must(t, err)
	text, err := io.ReadAll(z)
	must(t, err)
	openshift(t, c, machineConfigPool("worker", "worker"), machineConfigPool("master", "master"))
	clusterVersion(t, c, "4.16.0")
	// As they were created: the API server knows neither their resourceVersions nor their uids.
	var list struct {
		Items []map[string]any `json:"items"`
	}
	must(t, yaml.Unmarshal(text, &list))
	if len(list.Items) == 0 {
		t.Fatal("the dump is no list")
	}
	for _, o := range list.Items {
		m := o["metadata"].(map[string]any)
		for _, key := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
			delete(m, key)
		}
		owners, _ := m["ownerReferences"].([]any)
		for _, owner := range owners {
			owner.(map[string]any)["apiVersion"] = noVersion
		}
		b, err := yaml.Marshal(o)
		must(t, err)
		must(t, c.Apply(b))
	}
	for _, pool := range []string{"worker", "master"} {
		trust := write(t, "trust.yaml", []byte(strings.Replace(c.Trust(""), "pools: [worker]", "pools: ["+pool+"]", 1)))
		dump, err := c.Kubectl("get", "machineconfigs,machineconfigpools,clusterversions", "-o", "yaml")
		must(t, err)
		file := write(t, "dump.yaml", []byte(dump))
		for _, more := range [][]string{nil, {"--merge"}} {
			at := func(cluster string) ran {
				return nodetrust(t, c, append([]string{"render", "--to", "machineconfig", "--cluster", cluster, trust}, more...)...)
			}
			live, dumped := at("live"), at(file)
			if live != dumped || live.code != 0 || !strings.Contains(live.stderr, "01-"+pool+"-container-runtime") {
				t.Errorf("%s %v: %d, %s%s; from the dump: %d, %s%s", pool, more, live.code, live.stdout, live.stderr, dumped.code,
					dumped.stdout, dumped.stderr)
			}
		}
	}
}

// TestNodeDisruptionPolicy: what we render is a MachineConfiguration that OpenShift's own schema takes, and what it
// doesn't take is refused.
func TestNodeDisruptionPolicy(t *testing.T) {
	c := need(t)
	openshift(t, c, machineConfigPool("worker", "worker"))
	rendered := nodetrust(t, c, "render", "--to", "nodedisruptionpolicy", write(t, "trust.yaml", []byte(c.Trust(""))))
	if rendered.code != 0 {
		t.Fatal(rendered.stderr)
	}
	file := write(t, "policy.yaml", []byte(rendered.stdout))
	for _, args := range [][]string{{"--dry-run=server"}, nil} {
		if out, err := c.Kubectl(append([]string{"apply", "--server-side", "--validate=strict", "-f", file},
			args...)...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Cleanup(func() {
		_, err := c.Kubectl("delete", "machineconfigurations", "--all")
		must(t, err)
	})
	// Beside what somebody else has put there.
	theirs := "apiVersion: operator.openshift.io/v1\nkind: MachineConfiguration\nmetadata: {name: cluster}\nspec: {nodeDisruptionPolicy: {files: [{path: /etc/theirs, actions: [{type: None}]}]}}\n"
	if out, err := c.Kubectl("apply", "--server-side", "--field-manager=somebody", "-f",
		write(t, "theirs.yaml", []byte(theirs))); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := c.Kubectl("apply", "--server-side", "-f", file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := c.Kubectl("get", "machineconfiguration", "cluster", "-o",
		"jsonpath={.spec.nodeDisruptionPolicy.files[*].path}")
	must(t, err)
	for _, want := range []string{"/etc/theirs", policyPath, "/etc/containers/registries.d"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is missing: %s", want, out)
		}
	}
	for name, spoil := range map[string][2]string{
		"service without a unit's suffix": {"crio.service", "crio"},
		"an action that isn't one":        {"type: Reload", "type: Relaod"},
	} {
		bad := strings.Replace(rendered.stdout, spoil[0], spoil[1], 1)
		if _, err := c.Kubectl("apply", "--server-side", "--dry-run=server", "-f",
			write(t, "bad.yaml", []byte(bad))); err == nil {
			t.Errorf("%s is taken: the test proves nothing", name)
		}
	}
}
