package mco

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	acceptAll = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}`
	ourPolicy = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"registry.redhat.io":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","signedIdentity":{"type":"matchRepository"}}]}}}`
	// allowed is what allowedRegistries make.
	allowed = `{"default":[{"type":"reject"}],"transports":{"docker":{"registry.redhat.io":[{"type":"insecureAcceptAnything"}]},"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}`
	// imagePolicy is what a ClusterImagePolicy makes.
	imagePolicy = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"quay.io/openshift-release-dev/ocp-release":[{"type":"sigstoreSigned","keyPath":"/s","signedIdentity":{"type":"matchRepoDigestOrExact"}}]}}}`
)

// object is a MachineConfig of a role, with policy.json if policy isn't empty.
func mc(name, role, owner, policy string) Config {
	c := Config{Name: name, Owner: owner, Labels: map[string]string{"machineconfiguration.openshift.io/role": role}}
	if policy != "" {
		c.Files = []File{{Path: trust.PolicyPath, Data: []byte(policy)}}
	}
	return c
}

func template01(pool string) Config {
	return mc("01-"+pool+"-container-runtime", pool, "ControllerConfig", acceptAll)
}

func names(cs []Config) (out []string) {
	for _, c := range cs {
		out = append(out, c.Name)
	}
	return out
}

func TestSources(t *testing.T) {
	d := &Dump{Configs: []Config{
		mc("99-worker-generated-registries", "worker", "Image", ""), mc("51-infra-a", "infra", "", ""),
		mc("99-infra-z", "infra", "", ""),
		template01("worker"), mc("51-master-a", "master", "", ""), mc("rendered-worker-1", "", "MachineConfigPool", ""),
	}}
	for _, tt := range []struct {
		pool  string
		minor int
		want  string
	}{
		{"worker", 14, "01-worker-container-runtime 99-worker-generated-registries"},
		{"worker", 15, "01-worker-container-runtime 99-worker-generated-registries"},
		{"master", 15, "51-master-a"},
		{"infra", 14, "01-worker-container-runtime 51-infra-a 99-infra-z 99-worker-generated-registries"},
		{"infra", 15, "01-worker-container-runtime 99-worker-generated-registries 51-infra-a 99-infra-z"},
	} {
		got, err := d.Sources(tt.pool, OrderOf(tt.minor))
		if err != nil {
			t.Fatal(err)
		}
		if s := strings.Join(names(got), " "); s != tt.want {
			t.Errorf("%s 4.%d: got %s, want %s", tt.pool, tt.minor, s, tt.want)
		}
	}
	if _, err := d.Sources("other", ByName); err != nil {
		t.Errorf("a pool without objects of its own takes the workers': %v", err)
	}
	d.Pools = []Pool{{Name: "infra", Selector: &Selector{
		MatchLabels: map[string]string{"machineconfiguration.openshift.io/role": "infra"},
	}}}
	if got, err := d.Sources("infra", ByName); err != nil || strings.Join(names(got), " ") != "51-infra-a 99-infra-z" {
		t.Errorf("by selector: got %v, %v", names(got), err)
	}
	if _, err := d.Sources("worker", ByName); err == nil {
		t.Error("a pool that the cluster doesn't have is accepted")
	}
}

// TestConflicts holds the cases that were seen or computed for real clusters.
func TestConflicts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		others  []Config
		ours    Config
		pool    string
		minor   int
		want    string // a part of the conflicts, "" for none
		against string // the MachineConfig it names
	}{
		{
			"documented name, nothing configured",
			[]Config{
				template01("worker"),
				mc("99-worker-generated-registries", "worker", "Image", ""),
			},
			mc("51-worker-rh", "worker", "", ourPolicy), "worker",
			16, "", "",
		},
		{
			"documented name, image policy",
			[]Config{
				template01("worker"),
				mc("99-worker-generated-registries", "worker", "Image", imagePolicy),
			},
			mc("51-worker-rh", "worker", "", ourPolicy),
			"worker", 21, "would never reach a node", "99-worker-generated-registries",
		},
		{
			"legacy name of the MCO's",
			[]Config{
				template01("worker"),
				mc("99-worker-3d25bd6b-ef3f-4b9e-registries", "worker", "Image", allowed),
			},
			mc("51-worker-rh", "worker", "", ourPolicy), "worker", 10, "would never reach a node",
			"99-worker-3d25bd6b-ef3f-4b9e-registries",
		},
		{
			"winning name shadows the MCO's",
			[]Config{
				template01("worker"),
				mc("99-worker-generated-registries", "worker", "Image", allowed),
			},
			mc("99-worker-rh", "worker", "", ourPolicy),
			"worker", 16, "would no longer have an effect", "99-worker-generated-registries",
		},
		{
			"99-worker-corp still loses",
			[]Config{
				template01("worker"),
				mc("99-worker-generated-registries", "worker", "Image", allowed),
			},
			mc("99-worker-corp", "worker", "", ourPolicy),
			"worker", 16, "would never reach a node", "99-worker-generated-registries",
		},
		{
			"custom pool from 4.15",
			[]Config{
				template01("worker"),
				mc("99-worker-generated-registries", "worker", "Image", imagePolicy),
			},
			mc("51-infra-rh", "infra", "", ourPolicy),
			"infra", 15, "would no longer have an effect", "99-worker-generated-registries",
		},
		{
			"custom pool up to 4.14",
			[]Config{
				template01("worker"),
				mc("99-worker-generated-registries", "worker", "Image", imagePolicy),
			},
			mc("51-infra-rh", "infra", "", ourPolicy),
			"infra", 14, "would never reach a node", "99-worker-generated-registries",
		},
		{
			"another's config sorts later",
			[]Config{template01("worker"), mc("75-worker-compliance", "worker", "", acceptAll)},
			mc("51-worker-rh", "worker", "", ourPolicy), "worker", 16, "would never reach a node", "75-worker-compliance",
		},
		{
			"another's config sorts before",
			[]Config{template01("worker"), mc("50-worker-x", "worker", "", acceptAll)},
			mc("51-worker-rh", "worker", "", ourPolicy), "worker", 16, "would be shadowed", "50-worker-x",
		},
		{
			"the same bytes",
			[]Config{template01("worker"), mc("50-worker-x", "worker", "", ourPolicy)},
			mc("51-worker-rh", "worker", "", ourPolicy), "worker", 16, "", "",
		},
		{
			"an earlier one of ours",
			[]Config{template01("worker"), mc("51-worker-rh", "worker", "", acceptAll)},
			mc("51-worker-rh", "worker", "", ourPolicy), "worker", 16, "", "",
		},
		{
			"another pool's",
			[]Config{template01("worker"), mc("99-master-generated-registries", "master", "Image", allowed)},
			mc("51-worker-rh", "worker", "", ourPolicy), "worker", 16, "", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := Target{Dump: &Dump{Configs: tt.others}, Pool: tt.pool, Minor: tt.minor}
			got, err := target.Conflicts(tt.ours)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if len(got) > 0 {
					t.Errorf("got %v", got)
				}
				return
			}
			if len(got) != 1 || got[0].With != tt.against || !strings.Contains(got[0].Reason, tt.want) {
				t.Errorf("got %v, want %s with %s", got, tt.want, tt.against)
			}
		})
	}
}

// TestUnknownVersion: where the answer depends on the version, there is none without it.
func TestUnknownVersion(t *testing.T) {
	d := &Dump{Configs: []Config{
		template01("worker"),
		mc("99-worker-generated-registries", "worker", "Image", imagePolicy),
	}}
	_, err := Target{Dump: d, Pool: "infra"}.Conflicts(mc("51-infra-rh", "infra", "", ourPolicy))
	if !errors.Is(err, ErrVersion) {
		t.Errorf("got %v", err)
	}
	if _, err := (Target{Dump: d, Pool: "worker"}).Conflicts(mc("51-worker-rh", "worker", "", ourPolicy)); err != nil {
		t.Errorf("the pool worker is merged alike by all versions: %v", err)
	}
}

func TestScopeConflicts(t *testing.T) {
	ours := mc("51-worker-rh", "worker", "", ourPolicy)
	ours.Files = append(ours.Files, File{
		Path: trust.RegistriesDir + "/registry.redhat.io.yaml",
		Data: []byte("docker:\n  registry.redhat.io:\n    lookaside: https://x/y\n"),
	})
	other := mc("99-worker-generated-registries", "worker", "Image", "")
	sigstore := File{Path: trust.RegistriesDir + "/sigstore-registries.yaml"}
	for _, tt := range []struct{ text, want string }{
		{"docker:\n  quay.io/x:\n    use-sigstore-attachments: true\n", ""},
		{
			"docker:\n  registry.redhat.io:\n    use-sigstore-attachments: true\n",
			"has the scope registry.redhat.io, as /etc/containers/registries.d/registry.redhat.io.yaml would",
		},
		{"docker: [", "can't tell which scopes it has"},
	} {
		sigstore.Data = []byte(tt.text)
		other.Files = []File{sigstore}
		got, err := Target{
			Dump: &Dump{Configs: []Config{template01("worker"), other}}, Pool: "worker",
			Minor: 20,
		}.Conflicts(ours)
		if err != nil {
			t.Fatal(err)
		}
		if tt.want == "" && len(got) != 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0].String(), tt.want)) {
			t.Errorf("%s: got %v", tt.text, got)
		}
	}
}

func TestMerge(t *testing.T) {
	for _, tt := range []struct {
		name, base string
		demands    map[string]string // scope -> type of the only requirement
		err        string
	}{
		{"templates", "", map[string]string{"registry.redhat.io": "signedBy"}, ""},
		{"allowed registries", allowed, map[string]string{"registry.redhat.io": "signedBy", "default": "reject"}, ""},
		{"image policy", imagePolicy, map[string]string{
			"registry.redhat.io":                        "signedBy",
			"quay.io/openshift-release-dev/ocp-release": "sigstoreSigned",
		}, ""},
		{
			"blocked", strings.Replace(imagePolicy, `"docker":{`, `"docker":{"registry.redhat.io/bad":[{"type":"reject"}],`, 1),
			map[string]string{"registry.redhat.io/bad": "reject"},
			"",
		},
		{"image policy for a scope of ours", strings.ReplaceAll(imagePolicy, "quay.io/openshift-release-dev/ocp-release",
			"registry.redhat.io"), nil, "both a GPG and a sigstore signature"},
		{"image policy above a scope of ours", strings.ReplaceAll(imagePolicy, "quay.io/openshift-release-dev/ocp-release",
			"*.redhat.io"), nil, "both a GPG and a sigstore signature"},
		{"unreadable", "{", nil, "parsing policy.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := Target{
				Dump: &Dump{Configs: []Config{
					template01("worker"),
					mc("99-worker-generated-registries", "worker", "Image", tt.base), mc("51-worker-rh", "worker", "", ourPolicy),
				}},
				Pool: "worker", Minor: 16,
			}
			m, err := target.Merge([]byte(ourPolicy), "51-worker-rh")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var p struct {
				Default    []struct{ Type string }
				Transports map[string]map[string][]struct{ Type string }
			}
			if err := json.Unmarshal(m.Policy, &p); err != nil {
				t.Fatal(err)
			}
			for scope, want := range tt.demands {
				got := p.Transports["docker"][scope]
				if scope == "default" {
					got = p.Default
				}
				if len(got) != 1 || got[0].Type != want {
					t.Errorf("%s: got %v, want %s", scope, got, want)
				}
			}
			name, err := target.LastName("rh", "51-worker-rh")
			if err != nil || name != "99-worker-zz-rh" {
				t.Errorf("got %s, %v", name, err)
			}
			ours := mc(name, "worker", "", string(m.Policy))
			if c, err := target.Conflicts(ours, trust.PolicyPath); err != nil || len(c) != 0 {
				t.Errorf("merged, and yet %v, %v", c, err)
			}
			again, err := target.Merge([]byte(ourPolicy), "51-worker-rh")
			if err != nil || !bytes.Equal(again.Policy, m.Policy) || again.Digest != m.Digest {
				t.Errorf("same input, other bytes (%v)", err)
			}
		})
	}
}

func TestLastName(t *testing.T) {
	d := &Dump{Configs: []Config{
		template01("worker"), mc("99-worker-zzz", "worker", "", ""),
		mc("99-infra-a", "infra", "", ""),
	}}
	for _, tt := range []struct {
		pool  string
		minor int
		want  string
	}{
		{"worker", 16, "99-worker-zzz-rh"},
		{"worker", 0, "99-worker-zzz-rh"},
		{"infra", 16, "99-infra-zz-rh"},
		{"infra", 14, "99-zz-infra-rh"},
		{"infra", 0, "99-zz-infra-rh"},
	} {
		got, err := Target{Dump: d, Pool: tt.pool, Minor: tt.minor}.LastName("rh")
		if err != nil || got != tt.want {
			t.Errorf("%s 4.%d: got %s, %v, want %s", tt.pool, tt.minor, got, err, tt.want)
		}
	}
}

func TestParseDump(t *testing.T) {
	object := `{"apiVersion":"machineconfiguration.openshift.io/v1","kind":"MachineConfig","metadata":{"name":"a","labels":{"machineconfiguration.openshift.io/role":"worker"},"ownerReferences":[{"kind":"Image"}]},
	"spec":{"config":{"storage":{"files":[{"path":"/etc/containers/policy.json","contents":{"source":"data:,%7B%7D"}},{"path":"/etc/other","contents":{"source":"https://x/y"}}]}}}}`
	version := `{"apiVersion":"config.openshift.io/v1","kind":"ClusterVersion","metadata":{"name":"version"},"status":{"desired":{"version":"4.16.3"}}}`
	list := `{"apiVersion":"v1","kind":"List","items":[` + object + "," + version + `]}`
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprint(z, list)
	z.Close()
	for name, in := range map[string]string{
		"list": list, "gzip": zipped.String(),
		"documents": object + "\n---\n" + version + "\n", "stream": object + "\n" + version,
	} {
		d, err := ParseDump([]byte(in))
		if name == "documents" { // JSON documents with a YAML separator
			d, err = ParseDump([]byte("---\n" + in))
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Minor != 16 || len(d.Configs) != 1 || d.Configs[0].Role() != "worker" || d.Configs[0].Owner != "Image" ||
			len(d.Configs[0].Files) != 1 || string(d.Configs[0].Files[0].Data) != "{}" {
			t.Errorf("%s: got %+v", name, d)
		}
	}
	for name, in := range map[string]string{
		"empty": "", "no list": "[]", "other": `{"kind":"Pod"}`, "twice": `{"kind":"List","items":[` + object + "," + object +
			`]}`, "yaml": "a: [", "json": "{",
		"alias": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n",
	} {
		if _, err := ParseDump([]byte(in)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestUnknownContents: a file that can't be read is never taken for one that says nothing.
func TestUnknownContents(t *testing.T) {
	c := mc("99-worker-generated-registries", "worker", "Image", "x")
	c.Files[0] = File{Path: trust.PolicyPath, Err: errors.New("remote")}
	if _, err := (Target{Dump: &Dump{Configs: []Config{c}}, Pool: "worker"}).Merge([]byte(ourPolicy)); err == nil {
		t.Error("merged with nothing")
	}
}

// realCluster is what a real cluster of one node has.
func realCluster(t *testing.T) *Dump {
	t.Helper()
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	data, err := os.ReadFile(filepath.Join(dir, "machineconfigs/4.16.0-single-node-mc.yaml.gz"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDump(data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRealCluster merges the MachineConfigs of a real cluster: the result is what its MCO made of them.
func TestRealCluster(t *testing.T) {
	d := realCluster(t)
	for _, pool := range []string{"master", "worker"} {
		files, err := d.PoolFiles(pool, 16)
		if err != nil {
			t.Fatal(err)
		}
		same := false
		for _, c := range d.Configs {
			if !c.Rendered() || !strings.HasPrefix(c.Name, "rendered-"+pool+"-") {
				continue
			}
			equal := len(c.Files) == len(files)
			for _, f := range c.Files {
				equal = equal && f.Err == nil && bytes.Equal(f.Data, files[f.Path].Data)
			}
			same = same || equal
		}
		if !same || len(files) == 0 {
			t.Errorf("%s: no rendered MachineConfig has our %d files", pool, len(files))
		}
		if o := files[trust.PolicyPath]; o.Owner.Name != "01-"+pool+"-container-runtime" || !template(o.Owner) {
			t.Errorf("%s: policy.json is %s's", pool, o.Owner.Name)
		}
		target := Target{Dump: d, Pool: pool, Minor: 16}
		if c, err := target.Conflicts(mc("51-"+pool+"-rh", pool, "", ourPolicy)); err != nil || len(c) != 0 {
			t.Errorf("%s: got %v, %v", pool, c, err)
		}
	}
}

// FuzzParseDump: nothing panics, and what is read can be merged.
func FuzzParseDump(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"machineconfiguration.openshift.io/v1","kind":"MachineConfig","metadata":{"name":"a","labels":{"machineconfiguration.openshift.io/role":"worker"}},"spec":{"config":{"storage":{"files":[{"path":"/etc/containers/policy.json","contents":{"source":"data:;base64,` + base64.StdEncoding.EncodeToString([]byte(allowed)) + `"}}]}}}}`))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: machineconfiguration.openshift.io/v1, kind: MachineConfig, metadata: {name: a}, spec: }\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ParseDump(data)
		if err != nil {
			return
		}
		target := Target{Dump: d, Pool: "worker"}
		_, _ = target.Conflicts(mc("51-worker-x", "worker", "", ourPolicy))
		if m, err := target.Merge([]byte(ourPolicy)); err == nil && !json.Valid(m.Policy) {
			t.Error("the merged policy is no JSON")
		}
	})
}
