package lint

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	imagedocker "go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

const signedPolicy = `{"default":[{"type":"reject"}],
"transports":{"docker":{
"example.com/team":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/etc/pki/corp.gpg"}]}}}`

const lookaside = "docker:\n  example.com/team:\n    lookaside: https://example.com/sigs\n"

// summary lists findings as "severity file:line code", without root in front of files. Left out are the holes of old
// readers, which no file can mend.
func summary(r *Report, root string) string {
	var out []string
	for _, f := range r.Findings {
		if f.Code == "reader-advisory" {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s:%d %s", f.Severity, strings.TrimPrefix(f.File, root+"/"), f.Line, f.Code))
	}
	return strings.Join(out, "\n")
}

func loads(r *Report) string {
	var out []string
	for _, reader := range r.Readers {
		out = append(out, fmt.Sprintf("%s %v", reader.Reader, reader.Loads))
	}
	return strings.Join(out, ", ")
}

func newKey(t *testing.T, o fixture.KeyOptions) *fixture.Key {
	t.Helper()
	if testing.Short() {
		t.Skip("makes gpg keys")
	}
	p := fixture.Parts{TB: t}
	return p.Key(p.GPG(), "corp", o)
}

func TestHost(t *testing.T) {
	k := newKey(t, fixture.KeyOptions{})
	base := map[string]string{
		"etc/containers/policy.json":             signedPolicy,
		"etc/containers/registries.d/corp.yaml":  lookaside,
		"etc/pki/corp.gpg":                       string(k.Binary),
		"etc/containers/registries.d/README.txt": "not read\n",
	}
	for _, tt := range []struct {
		name   string
		change func(root string)
		want   string
		loads  bool
	}{
		{"clean", func(string) {}, "", true},
		{
			"no policy", func(root string) { os.Remove(root + "/etc/containers/policy.json") },
			"error /etc/containers/policy.json:0 missing-policy", false,
		},
		{"vendor policy", func(root string) {
			os.Remove(root + "/etc/containers/policy.json")
			write(t, root, map[string]string{"usr/share/containers/policy.json": signedPolicy})
		}, "", true},
		{"policy is a directory", func(root string) {
			os.Remove(root + "/etc/containers/policy.json")
			os.Mkdir(root+"/etc/containers/policy.json", 0o755)
		}, "error /etc/containers/policy.json:0 unreadable", false},
		{"link out of the root", func(root string) {
			os.Remove(root + "/etc/containers/policy.json")
			os.Symlink("/dev/zero", root+"/etc/containers/policy.json")
		}, "error /etc/containers/policy.json:0 missing-policy", false},
		{"absolute link below the root", func(root string) {
			os.Rename(root+"/etc/containers/policy.json", root+"/etc/real.json")
			os.Symlink("/etc/real.json", root+"/etc/containers/policy.json")
		}, "", true},
		{"masked policy", func(root string) {
			write(t, root, map[string]string{"root/.config/containers/policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`})
		}, "error /root/.config/containers/policy.json:0 masked-policy\nwarning /root/.config/containers/policy.json:1 accepts-everything", true},
		{"masked registries.d", func(root string) {
			write(t, root, map[string]string{"root/.config/containers/registries.d/x.yaml": "docker: {}\n"})
		}, "warning /root/.config/containers/registries.d:0 masked-registries-d", true},
		{"masked file", func(root string) {
			write(t, root, map[string]string{"usr/share/containers/registries.d/corp.yaml": "docker: [\n"})
		}, "warning /usr/share/containers/registries.d/corp.yaml:0 masked-file", true},
		{"duplicate across directories", func(root string) {
			write(t, root, map[string]string{"usr/share/containers/registries.d/other.yaml": lookaside})
		}, "error /usr/share/containers/registries.d/other.yaml:2 duplicate-scope", false},
		{"duplicate in rootful.d", func(root string) {
			write(t, root, map[string]string{"etc/containers/registries.rootful.d/other.yaml": lookaside})
		}, "error /etc/containers/registries.rootful.d/other.yaml:2 duplicate-scope", false},
		{
			"yml", func(root string) {
				os.Rename(root+"/etc/containers/registries.d/corp.yaml", root+"/etc/containers/registries.d/corp.yml")
			}, "warning /etc/containers/policy.json:3 no-lookaside\nerror /etc/containers/registries.d/corp.yml:0 ignored-file",
			true,
		},
		{"broken yaml", func(root string) {
			write(t, root, map[string]string{"etc/containers/registries.d/bad.yaml": "docker: [\n"})
		}, "error /etc/containers/registries.d/bad.yaml:1 bad-yaml", false},
		{
			"dangling link", func(root string) { os.Symlink("/nowhere", root+"/etc/containers/registries.d/z.yaml") },
			"warning /etc/containers/registries.d/z.yaml:0 dangling-link", true,
		},
		{"registries.d is a file", func(root string) {
			os.RemoveAll(root + "/etc/containers/registries.d")
			os.WriteFile(root+"/etc/containers/registries.d", nil, 0o644)
		}, "error /etc/containers/registries.d:0 unreadable", false},
		{
			"key missing", func(root string) { os.Remove(root + "/etc/pki/corp.gpg") },
			"error /etc/containers/policy.json:3 key-missing", true,
		},
		{
			"key empty", func(root string) { os.WriteFile(root+"/etc/pki/corp.gpg", nil, 0o644) },
			"error /etc/pki/corp.gpg:0 key-unreadable", true,
		},
		{"namespaced", func(root string) {
			write(t, root, map[string]string{"etc/crio/policies/apps.json": "{\n\"default\":[]}"})
		}, "warning /etc/crio/policies/apps.json:0 namespaced-policy\nerror /etc/crio/policies/apps.json:2 empty-requirements", true},
		{"namespaced and weaker", func(root string) {
			write(t, root, map[string]string{"etc/crio/policies/apps.json": `{"default":[{"type":"reject"}],"transports":{"docker":{
"example.com":[{"type":"insecureAcceptAnything"}]}}}`})
		}, "warning /etc/crio/policies/apps.json:0 namespaced-policy\nwarning /etc/crio/policies/apps.json:2 namespaced-weaker\nwarning /etc/crio/policies/apps.json:2 namespaced-weaker", true},
		{"namespaced by another key", func(root string) {
			write(t, root, map[string]string{"etc/crio/policies/apps.json": strings.Replace(signedPolicy, "corp.gpg",
				"other.gpg", 1), "etc/pki/other.gpg": string(newKey(t, fixture.KeyOptions{}).Binary)})
		}, "warning /etc/crio/policies/apps.json:0 namespaced-policy\nwarning /etc/crio/policies/apps.json:3 namespaced-weaker", true},
		{"namespaced and stricter", func(root string) {
			write(t, root, map[string]string{"etc/crio/policies/apps.json": `{"default":[{"type":"reject"}]}`})
		}, "warning /etc/crio/policies/apps.json:0 namespaced-policy", true},
		{"namespaced and equal", func(root string) {
			write(t, root, map[string]string{"etc/crio/policies/apps.json": signedPolicy})
		}, "warning /etc/crio/policies/apps.json:0 namespaced-policy", true},
		{
			"policy broken", func(root string) { os.WriteFile(root+"/etc/containers/policy.json", []byte("{}"), 0o644) },
			"error /etc/containers/policy.json:1 missing-default", false,
		},
		{"lookaside of a parent", func(root string) {
			write(t, root, map[string]string{
				"etc/containers/registries.d/corp.yaml": "default-docker:\n  lookaside: https://example.com/sigs\n",
			})
		}, "", true},
		{"lookaside of a part", func(root string) {
			write(t, root, map[string]string{"etc/containers/registries.d/corp.yaml": "docker:\n  example.com/team/app:\n    lookaside: https://example.com/sigs\n"})
		}, "", true},
		{"environment of a unit", func(root string) {
			write(t, root, map[string]string{"etc/systemd/system/crio.service.d/10-x.conf": "[Service]\nEnvironment=A=b \\\n  CONTAINERS_POLICY_JSON=/tmp/p.json\n"})
		}, "error /etc/systemd/system/crio.service.d/10-x.conf:3 policy-environment", true},
		{"home of a runtime", func(root string) {
			write(t, root, map[string]string{
				"usr/lib/systemd/system/crio.service":  "[Service]\nEnvironment=\"HOME=/var/lib/crio\"\n",
				"usr/lib/systemd/system/other.service": "[Service]\nEnvironment=HOME=/nowhere\n",
			})
		}, "error /usr/lib/systemd/system/crio.service:2 policy-environment", true},
		{"environment of the system", func(root string) {
			write(t, root, map[string]string{"etc/environment": "# a comment\nCONTAINERS_POLICY_JSON=/tmp/p.json\n"})
		}, "error /etc/environment:2 policy-environment", true},
		{"commented out", func(root string) {
			write(t, root, map[string]string{"etc/systemd/system/crio.service": "[Service]\n#Environment=CONTAINERS_POLICY_JSON=/p\nExecStart=/bin/true HOME=/x\n"})
		}, "", true},
		{"unit is masked", func(root string) {
			write(t, root, map[string]string{"etc/systemd/system/x": ""})
			os.Symlink("/dev/null", root+"/etc/systemd/system/other.service")
		}, "", true},
		{"unit is unreadable", func(root string) {
			os.MkdirAll(root+"/etc/systemd/system/crio.service", 0o755)
		}, "warning /etc/systemd/system/crio.service:0 unit-unreadable", true},
		{"mirror without lookaside", func(root string) {
			write(t, root, map[string]string{"etc/containers/registries.conf": "[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"mirror.corp:5000/x\"\n"})
		}, "warning /etc/containers/registries.conf:4 mirror-no-lookaside", true},
		{"mirror of a part", func(root string) {
			write(t, root, map[string]string{"etc/containers/registries.conf.d/m.conf": "[[registry]]\nprefix = \"example.com/team/app\"\nlocation = \"example.com/team/app\"\n[[registry.mirror]]\nlocation = \"mirror.corp/app\"\n"})
		}, "warning /etc/containers/registries.conf.d/m.conf:5 mirror-no-lookaside", true},
		{"mirror with lookaside", func(root string) {
			write(t, root, map[string]string{
				"etc/containers/registries.conf":           "[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"mirror.corp:5000/x\"\n",
				"etc/containers/registries.d/mirrors.yaml": "docker:\n  mirror.corp:5000/x/team:\n    lookaside: https://mirror.corp/sigs\n",
			})
		}, "", true},
		{"mirror of something else", func(root string) {
			write(t, root, map[string]string{"etc/containers/registries.conf": "[[registry]]\nlocation = \"example.com/teams\"\n[[registry.mirror]]\nlocation = \"mirror.corp\"\n"})
		}, "", true},
		{"mirrors unknown", func(root string) {
			write(t, root, map[string]string{"etc/containers/registries.conf": "[[registry\n"})
		}, "warning /etc/containers/registries.conf:0 registries-conf", true},
		{"mirror without attachments", func(root string) {
			write(t, root, map[string]string{
				"etc/containers/policy.json": strings.Replace(strings.Replace(signedPolicy, "signedBy", "sigstoreSigned",
					1), `"keyType":"GPGKeys","keyPath":"/etc/pki/corp.gpg"`,
					`"fulcio":{"caData":"aGk=","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyPath":"/r"`, 1),
				"etc/containers/registries.d/corp.yaml": "docker:\n  example.com:\n    use-sigstore-attachments: true\n",
				"etc/containers/registries.conf":        "[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"mirror.corp\"\n",
			})
		}, "error /etc/containers/policy.json:3 key-unreadable\nerror /etc/containers/policy.json:3 key-missing\nwarning /etc/containers/registries.conf:4 mirror-no-attachments", true},
		{"no attachments", func(root string) {
			write(t, root, map[string]string{"etc/containers/policy.json": strings.Replace(strings.Replace(signedPolicy,
				"signedBy", "sigstoreSigned", 1), `"keyType":"GPGKeys",`, "", 1)})
		}, "error /etc/containers/policy.json:3 no-attachments\nerror /etc/pki/corp.gpg:0 wrong-kind-of-key", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := write(t, t.TempDir(), base)
			tt.change(root)
			r, err := Run(nil, Options{Root: root, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(r, "-"); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s\n%+v", got, tt.want, r.Findings)
			}
			if len(r.Readers) != 1 || r.Readers[0].Loads != tt.loads || (r.Readers[0].Error == "") != tt.loads {
				t.Errorf("want loads %v, got %+v", tt.loads, r.Readers)
			}
		})
	}
}

// TestHostReaders: readers look at different places of one host.
func TestHostReaders(t *testing.T) {
	const other = "docker:\n  example.com:\n    lookaside: https://example.com/sigs\n"
	for _, tt := range []struct {
		name    string
		files   map[string]string
		readers []string
		want    string
		loads   string
	}{
		{
			"the vendor's policy alone",
			map[string]string{"usr/share/containers/policy.json": signedPolicy, "etc/containers/registries.d/a.yaml": lookaside},
			[]string{"cri-o-1.34", CurrentLibrary},
			"error /etc/containers/policy.json:0 missing-policy for cri-o-1.34",
			"cri-o-1.34 false, containers-image-5.42.1 true",
		},
		{
			"root's own registries.d",
			map[string]string{
				"etc/containers/policy.json": signedPolicy, "etc/containers/registries.d/a.yaml": lookaside,
				"root/.config/containers/registries.d/b.yaml": "docker: {}\n",
			},
			[]string{"podman-1.9", "cri-o-1.34", "podman-4.9", CurrentLibrary},
			"warning /etc/containers/policy.json:3 no-lookaside for cri-o-1.34, podman-4.9\nwarning /root/.config/containers/registries.d:0 masked-registries-d for containers-image-5.42.1\n" +
				"warning /root/.config/containers/registries.d:0 masked-registries-d for cri-o-1.34, podman-4.9\nerror /etc/containers/registries.d/a.yaml:2 reader-ignores",
			"podman-1.9 true, cri-o-1.34 true, podman-4.9 true, containers-image-5.42.1 true",
		},
		{
			"a scope twice, for one that merges",
			map[string]string{
				"etc/containers/policy.json": signedPolicy, "etc/containers/registries.d/a.yaml": lookaside,
				"usr/share/containers/registries.d/b.yaml": lookaside,
			},
			[]string{"cri-o-1.34", CurrentLibrary},
			"error /usr/share/containers/registries.d/b.yaml:2 duplicate-scope for containers-image-5.42.1",
			"cri-o-1.34 true, containers-image-5.42.1 false",
		},
		{
			"the same for all",
			map[string]string{"etc/containers/policy.json": signedPolicy, "etc/containers/registries.d/a.yaml": other},
			[]string{"cri-o-1.34", "podman-4.9", CurrentLibrary},
			"", "cri-o-1.34 true, podman-4.9 true, containers-image-5.42.1 true",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := write(t, t.TempDir(), tt.files)
			write(t, root, map[string]string{"etc/pki/corp.gpg": string(newKey(t, fixture.KeyOptions{}).Binary)})
			r, err := Run(nil, Options{Root: root, Readers: tt.readers, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			told := slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.Code == "reader-advisory" })
			for i, line := range strings.Split(summary(r, "-"), "\n") {
				if i < len(told) && strings.HasPrefix(told[i].Message, "for ") {
					by, _, _ := strings.Cut(told[i].Message, ":")
					line += " " + by
				}
				got = append(got, line)
			}
			slices.Sort(got)
			want := strings.Split(tt.want, "\n")
			slices.Sort(want)
			if !slices.Equal(got, want) || loads(r) != tt.loads {
				t.Errorf("got\n%s\n%s\nwant\n%s\n%s\n%+v", strings.Join(got, "\n"), loads(r), tt.want, tt.loads, r)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	now := time.Now()
	k := newKey(t, fixture.KeyOptions{Expire: "20d"})
	for _, tt := range []struct {
		name string
		data []byte
		now  time.Time
		want string
	}{
		{"expires soon", k.Binary, now, "warning k.gpg:0 key-expires-soon"},
		{"expired", k.Armored, now.AddDate(0, 1, 0), "error k.gpg:0 key-expired"},
		{"later", k.Armored, now.AddDate(0, 0, -15), ""},
		{
			"two blocks", append(append([]byte{}, k.Armored...), newKey(t, fixture.KeyOptions{Algo: "rsa2048"}).Armored...), now,
			"warning k.gpg:0 key-several-blocks\nwarning k.gpg:0 key-expires-soon\nwarning k.gpg:0 key-weak",
		},
		{"one of two expired", append(append([]byte{}, k.Binary...),
			newKey(t, fixture.KeyOptions{Algo: "ed25519"}).Binary...), now.AddDate(0, 1, 0), "warning k.gpg:0 key-expired"},
		{"breakable", newKey(t, fixture.KeyOptions{Algo: "rsa1024"}).Binary, now, "error k.gpg:0 key-weak"},
		{"breakable beside a strong one", append(newKey(t, fixture.KeyOptions{Algo: "rsa1024"}).Binary,
			newKey(t, fixture.KeyOptions{Algo: "ed25519"}).Binary...), now, "warning k.gpg:0 key-weak"},
		{"nothing", []byte("hello"), now, "error k.gpg:0 key-unreadable"},
		{"packed", packed(k.Binary), now, "warning k.gpg:0 key-packed\nwarning k.gpg:0 key-expires-soon"},
		{"secret", secretKey(t), now, "error k.gpg:0 key-secret"},
		{
			"secret beside an expired one", append(secretKey(t), k.Binary...), now.AddDate(0, 1, 0),
			"error k.gpg:0 key-secret\nwarning k.gpg:0 key-expired",
		},
		{"empty", nil, now, "error k.gpg:0 key-unreadable"},
		{"cut", k.Binary[:len(k.Binary)/2], now, "error k.gpg:0 key-unreadable"},
		{
			"text before", append([]byte("The key of corp\n\n"), k.Armored...), now.AddDate(0, 0, -15),
			"warning k.gpg:0 key-preamble",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, t.TempDir(), map[string]string{"k.gpg": string(tt.data)})
			r, err := Run([]string{filepath.Join(dir, "k.gpg")}, Options{Now: tt.now})
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(r, dir); got != tt.want || len(r.Readers) != 0 {
				t.Errorf("got\n%s\nwant\n%s\n%+v", got, tt.want, r)
			}
		})
	}
}

// TestTrustScopes: what makes a scope of policy.json useless does so in trust.yaml.
func TestTrustScopes(t *testing.T) {
	const head = "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: t}\nspec:\n  default: reject\n  keys:\n" +
		"  - {name: corp, file: corp.asc}\n  - {name: cosign, file: cosign.pub}\n  registries:\n"
	for _, tt := range []struct{ name, registries, want string }{
		{
			"no lookaside", "  - scope: quay.io/corp\n    require: [{signedBy: [corp]}]\n",
			"warning trust.yaml:10 no-lookaside",
		},
		{"lookaside of a parent", "  - {scope: quay.io, require: reject, lookaside: 'https://a.example'}\n  - scope: quay.io/corp\n    require: [{signedBy: [corp]}]\n", ""},
		{"library missing", "  - scope: docker.io/nginx\n    require: reject\n", "warning trust.yaml:10 library-missing"},
		{
			"mirror without attachments", "  - scope: quay.io/corp\n    require: [{sigstore: {keys: [cosign]}}]\n    attachments: true\n    mirrors:\n    - {location: m.example, attachments: false}\n",
			"warning trust.yaml:14 mirror-no-attachments",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{
				"trust.yaml": head + tt.registries,
				"corp.asc":   string(newKey(t, fixture.KeyOptions{}).Armored), "cosign.pub": pemKey,
			})
			rep, err := Run([]string{dir + "/trust.yaml"}, Options{Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			got, _ := strings.CutPrefix(summary(rep, dir), "warning trust.yaml:0 canary-side-missing")
			if got = strings.TrimSpace(got); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestTrustIdle: what is valid and changes nothing.
func TestTrustIdle(t *testing.T) {
	signed := func(scope, prefix string) string {
		return "  - scope: " + scope + "\n    require: [{signedBy: [corp], identity: {type: remapIdentity, prefix: " +
			prefix + ", signedPrefix: b.example}}]\n    lookaside: https://a.example\n"
	}
	nothing := "  canaries:\n  - {image: 'a.example/a@sha256:" + strings.Repeat("1", 64) + "', expect: refuse}\n"
	for _, tt := range []struct{ name, def, rest, want string }{
		{"no entry", "accept", nothing, "warning trust.yaml:0 accepts-everything"},
		{
			"accepting entries", "accept", "  registries:\n  - {scope: a.example, require: accept}\n",
			"warning trust.yaml:0 accepts-everything",
		},
		{"an entry rejects", "accept", "  registries:\n  - {scope: a.example, require: reject}\n", ""},
		{"the default rejects", "reject", "  registries:\n  - {scope: a.example, require: accept}\n", ""},
		{
			"remapped from elsewhere", "reject", "  registries:\n" + signed("a.example/x", "m.example"),
			"warning trust.yaml:10 remap-is-idle",
		},
		{
			"remapped from beside", "reject", "  registries:\n" + signed("a.example/x", "a.example/y"),
			"warning trust.yaml:10 remap-is-idle",
		},
		{"remapped from above", "reject", "  registries:\n" + signed("a.example/x", "a.example"), ""},
		{"remapped from below", "reject", "  registries:\n" + signed("a.example/x", "a.example/x/y"), ""},
		{"remapped below a wildcard", "reject", "  registries:\n" + signed("'*.example'", "a.example/x"), ""},
		{
			"remapped beside a wildcard", "reject", "  registries:\n" + signed("'*.example'", "a.other/x"),
			"warning trust.yaml:10 remap-is-idle",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{
				"k.asc": string(v4Key(t)),
				"trust.yaml": "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: t}\nspec:\n  default: " +
					tt.def + "\n" +
					"  keys:\n  - {name: corp, file: k.asc}\n" + tt.rest,
			})
			rep, err := Run([]string{dir + "/trust.yaml"}, Options{Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(summary(rep, dir)) {
				if line = strings.TrimSpace(line); !strings.HasSuffix(line, " canary-side-missing") &&
					!strings.Contains(line, " key-") {
					got = append(got, line)
				}
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestHostOldReaders: what stands in registries.d and is no file stops all pulls of older readers. Debian's skopeo
// says so too.
func TestHostOldReaders(t *testing.T) {
	k := newKey(t, fixture.KeyOptions{})
	for _, tt := range []struct {
		name   string
		change func(root string) error
		want   string
		loads  map[string]bool
	}{
		{
			"dangling link", func(root string) error {
				return os.Symlink("/nowhere",
					root+"/etc/containers/registries.d/z.yaml")
			},
			"error /etc/containers/registries.d/z.yaml:0 dangling-link\nwarning /etc/containers/registries.d/z.yaml:0 dangling-link",
			map[string]bool{"containers-image-5.23.1": false, "cri-o-1.32": true, CurrentLibrary: true},
		},
		{
			"directory", func(root string) error { return os.Mkdir(root+"/etc/containers/registries.d/z.yaml", 0o755) },
			"error /etc/containers/registries.d/z.yaml:0 unreadable",
			map[string]bool{"containers-image-5.23.1": false, "cri-o-1.32": false, CurrentLibrary: true},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, map[string]string{
				"etc/containers/policy.json": signedPolicy, "etc/containers/registries.d/corp.yaml": lookaside,
				"etc/pki/corp.gpg": string(k.Binary),
			})
			if err := tt.change(root); err != nil {
				t.Fatal(err)
			}
			rep, err := Run(nil, Options{Root: root, Readers: slices.Sorted(maps.Keys(tt.loads)), Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(rep, root); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
			for _, v := range rep.Readers {
				if v.Loads != tt.loads[v.Reader] {
					t.Errorf("%s: loads %v: %s", v.Reader, v.Loads, v.Error)
				}
			}
		})
	}
}

// TestRegistriesDir: a folder of registries.d that is named is judged as the one of a host is.
func TestRegistriesDir(t *testing.T) {
	const old, newer = "containers-image-5.33.1", "cri-o-1.34"
	all := []string{old, newer, CurrentLibrary}
	for _, tt := range []struct {
		name  string
		spoil func(path string) error
		want  string
		loads string // of all
	}{
		{
			"a link to nothing", func(p string) error { return os.Symlink("/nowhere", p) },
			"error z.yaml:0 dangling-link for " + old + "\nwarning z.yaml:0 dangling-link for " + newer + ", " + CurrentLibrary,
			"false true true",
		},
		{
			"a directory", func(p string) error { return os.Mkdir(p, 0o755) },
			"error z.yaml:0 unreadable for " + old + ", " + newer, "false false true",
		},
		{
			"a link to a directory", func(p string) error { return os.Symlink("/", p) },
			"error z.yaml:0 unreadable", "false false false",
		},
		{
			"a pipe", func(p string) error { return syscall.Mkfifo(p, 0o644) }, "error z.yaml:0 unreadable",
			"false false false",
		},
		{"a link to /dev/null", func(p string) error { return os.Symlink("/dev/null", p) }, "", "true true true"},
		{"a loop", func(p string) error { return os.Symlink("z.yaml", p) }, "error z.yaml:0 unreadable", "false false false"},
		{
			"a large file", func(p string) error { return os.WriteFile(p, make([]byte, MaxPolicy+1), 0o644) },
			"error z.yaml:0 unreadable", "false false false",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, map[string]string{
				"etc/containers/policy.json": `{"default":[{"type":"reject"}]}`, "etc/containers/registries.d/a.yaml": lookaside,
			})
			dir := root + "/etc/containers/registries.d"
			if err := tt.spoil(dir + "/z.yaml"); err != nil {
				t.Fatal(err)
			}
			if tt.name != "a pipe" { // the library waits for one that writes into it
				ref, err := imagedocker.ParseReference("//example.com/team/app")
				if err != nil {
					t.Fatal(err)
				}
				_, err = imagedocker.SignatureStorageBaseURL(&types.SystemContext{RegistriesDirPath: dir}, ref, false)
				if (err == nil) != strings.HasSuffix(tt.loads, "true") {
					t.Errorf("the library says %v", err)
				}
			}
			for name, in := range map[string]struct {
				paths []string
				root  string
			}{"the folder": {paths: []string{dir}}, "with a policy": {paths: []string{
				root + "/etc/containers/policy.json",
				dir,
			}}, "the host": {root: root}} {
				r, err := Run(in.paths, Options{Root: in.root, Readers: all, Now: time.Now()})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				var got, loads []string
				for _, f := range r.Findings {
					if f.Code == "reader-advisory" {
						continue
					}
					line := fmt.Sprintf("%s %s:%d %s", f.Severity, filepath.Base(f.File), f.Line, f.Code)
					if by, _, ok := strings.Cut(f.Message, ": "); ok && strings.HasPrefix(by, "for ") {
						line += " " + by
					}
					got = append(got, line)
				}
				for _, v := range r.Readers {
					loads = append(loads, strconv.FormatBool(v.Loads))
				}
				if strings.Join(got, "\n") != tt.want || strings.Join(loads, " ") != tt.loads {
					t.Errorf("%s: got\n%s\n%v\nwant\n%s\n%s\n%+v", name, strings.Join(got, "\n"), loads, tt.want, tt.loads, r)
				}
			}
		})
	}
}

// TestMaskedByDangling: a link to nothing hides the file of its name in the vendor's directory, as it does for the
// library.
func TestMaskedByDangling(t *testing.T) {
	root := t.TempDir()
	corp := string(newKey(t, fixture.KeyOptions{}).Binary)
	write(t, root, map[string]string{
		"etc/containers/policy.json": signedPolicy, "etc/containers/registries.d/a.yaml": "docker: {}\n",
		"usr/share/containers/registries.d/corp.yaml": lookaside, "etc/pki/corp.gpg": corp,
	})
	if err := os.Symlink("/nowhere", root+"/etc/containers/registries.d/corp.yaml"); err != nil {
		t.Fatal(err)
	}
	r, err := Run(nil, Options{Root: root, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := summary(r, root), "warning /etc/containers/policy.json:3 no-lookaside\nwarning /etc/containers/registries.d/corp.yaml:0 dangling-link\nwarning /usr/share/containers/registries.d/corp.yaml:0 masked-file"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestV6 holds what is said of files with an OpenPGP v6 key against what gpgme imports of them.
func TestV6(t *testing.T) {
	a, b, c, v6 := newKey(t, fixture.KeyOptions{}), newKey(t, fixture.KeyOptions{}),
		newKey(t, fixture.KeyOptions{}), v6Key(t)
	names := map[string]string{a.Fingerprint: "a", b.Fingerprint: "b", c.Fingerprint: "c"}
	for _, tt := range []struct {
		name string
		keys [][]byte
		want string
	}{
		{"alone", [][]byte{v6}, "error: "},
		{"first", [][]byte{v6, a.Binary}, "error: "},
		{"second", [][]byte{a.Binary, v6}, "error: "},
		{"last", [][]byte{a.Binary, b.Binary, v6}, "warning: a"},
		{"in between", [][]byte{a.Binary, b.Binary, v6, c.Binary}, "warning: a"},
		{"later", [][]byte{a.Binary, b.Binary, c.Binary, v6}, "warning: ab"},
		{"none", [][]byte{a.Binary, b.Binary}, ": ab"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := bytes.Join(tt.keys, nil)
			l := linter{now: time.Now()}
			l.key(data, place{file: "k"})
			severity, imported := "", ""
			for _, f := range l.findings {
				if f.Code == "key-v6" {
					severity = string(f.Severity)
				}
			}
			m, ids, err := signature.NewEphemeralGPGSigningMechanism(data)
			if err == nil {
				defer m.Close()
			}
			for _, id := range ids {
				imported += names[strings.ToUpper(id)]
			}
			if got := severity + ": " + imported; got != tt.want {
				t.Errorf("got %s, want %s (%v): %v", got, tt.want, err, l.findings)
			}
		})
	}
}

func TestWeakHash(t *testing.T) {
	k := newKey(t, fixture.KeyOptions{CertDigest: "SHA1"})
	dir := write(t, t.TempDir(), map[string]string{"k.gpg": string(k.Binary)})
	r, err := Run([]string{filepath.Join(dir, "k.gpg")}, Options{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(r, dir); got != "warning k.gpg:0 key-sha1" {
		t.Errorf("got %s", got)
	}
}

// TestTrustKeys lints a trust.yaml with a key that hosts have.
func TestTrustKeys(t *testing.T) {
	a, b := newKey(t, fixture.KeyOptions{}), newKey(t, fixture.KeyOptions{})
	for _, tt := range []struct {
		name, pins string
		file       []byte
		want       string
	}{
		{"pinned", "[" + a.Fingerprint + "]", a.Binary, ""},
		{"not pinned", "", a.Binary, "warning trust.yaml:7 key-not-pinned"},
		{
			"more than pinned", "[" + a.Fingerprint + "]", append(append([]byte{}, a.Binary...), b.Binary...),
			"warning trust.yaml:7 key-not-pinned",
		},
		{
			"another", "[" + a.Fingerprint + "]", b.Binary,
			"warning trust.yaml:7 key-not-pinned\nerror trust.yaml:7 key-pin-missing",
		},
		{"missing", "[" + a.Fingerprint + "]", nil, "error trust.yaml:7 key-missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pins := ""
			if tt.pins != "" {
				pins = ", fingerprints: " + tt.pins
			}
			dir := write(t, t.TempDir(), map[string]string{
				"trust.yaml": "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: corp}\nspec:\n  pools: [worker]\n  keys:\n" +
					"  - {name: corp, path: /etc/pki/corp.gpg" + pins +
					"}\n  default: reject\n  registries:\n  - scope: example.com/team\n    require: [{signedBy: [corp]}]\n    lookaside: https://example.com/sigs\n" +
					"  canaries:\n  - {image: 'example.com/team/a@sha256:" + strings.Repeat("a", 64) +
					"', expect: accept}\n  - {image: 'example.com/team/b@sha256:" + strings.Repeat("b", 64) + "', expect: refuse}\n",
			})
			if tt.file != nil {
				write(t, dir, map[string]string{"root/etc/pki/corp.gpg": string(tt.file)})
			}
			r, err := Run([]string{filepath.Join(dir, "trust.yaml")}, Options{Root: filepath.Join(dir, "root"), Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(r, dir); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s\n%+v", got, tt.want, r)
			}
		})
	}
}

func TestTrustMeaning(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"trust.yaml": `apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: corp}
spec:
  pools: [worker]
  default: accept
  keys:
  - {name: corp, path: /k, fingerprints: [567E347AD0044ADE55BA8A5F199E2F91FD431D51]}
  registries:
  - scope: quay.io
    require: [{signedBy: [corp]}]
    lookaside: https://example.com/sigs
    mirrors:
    - {location: mirror.corp/quay, attachments: true}
  canaries:
  - {image: 'quay.io/a/a@sha256:` + strings.Repeat("a", 64) + `', expect: accept}
  - {image: 'quay.io/a/b@sha256:` + strings.Repeat("b", 64) + `', expect: refuse}
`})
	r, err := Run([]string{filepath.Join(dir, "trust.yaml")}, Options{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(r, dir); got != "error trust.yaml:10 release-payload\nwarning trust.yaml:14 mirror-no-lookaside" {
		t.Errorf("got\n%s\n%+v", got, r)
	}
}

func TestKeyData(t *testing.T) {
	k := newKey(t, fixture.KeyOptions{Expire: "20d"})
	policy := strings.Replace(signedPolicy, `"keyPath":"/etc/pki/corp.gpg"`,
		`"keyData":"`+base64.StdEncoding.EncodeToString(k.Binary)+`"`, 1)
	dir := write(t, t.TempDir(), map[string]string{"policy.json": policy})
	r, err := Run([]string{filepath.Join(dir, "policy.json")}, Options{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(r, dir); got != "warning policy.json:3 key-expires-soon" {
		t.Errorf("got %s", got)
	}
	if keys := PolicyKeys([]byte(policy), "/"); len(keys) != 1 || keys[0].Fingerprint != k.Fingerprint ||
		keys[0].Expires.IsZero() {
		t.Errorf("got %+v", keys)
	}
}

// TestTrustReaders: of a trust.yaml that asks for more than a reader can, that is said, and nothing of files that are
// never rendered.
func TestTrustReaders(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"trust.yaml": `apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: t}
spec:
  pools: [worker]
  default: reject
  keys:
  - {name: k, path: /etc/pki/k.gpg, fingerprints: [567E347AD0044ADE55BA8A5F199E2F91FD431D51]}
  registries:
  - scope: "*.corp.example"
    require: [{signedBy: [k]}]
    lookaside: https://sigs.corp.example/s
  - scope: "*.other.example"
    require: [{signedBy: [k]}]
    lookaside: https://sigs.other.example/s
`})
	r, err := Run([]string{dir + "/trust.yaml"}, Options{Readers: []string{"rhel7"}, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	want := "warning trust.yaml:0 canary-side-missing\nerror trust.yaml:10 trust-config\nerror trust.yaml:13 trust-config"
	if got := summary(r, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(r.Readers) != 1 || r.Readers[0].Loads || strings.Count(r.Readers[0].Error, "; ") != 1 {
		t.Errorf("%+v", r.Readers)
	}
}

func TestReaders(t *testing.T) {
	wildcard := strings.Replace(signedPolicy, "example.com/team", "*.example.com", 1)
	for _, tt := range []struct {
		name, policy, registries string
		readers                  []string
		want, loads              string
	}{
		{"current", signedPolicy, "", []string{CurrentLibrary}, "", "containers-image-5.42.1 true"},
		{"old", signedPolicy, "", []string{"rhel7", "cri-o-1.34"}, "", "rhel7 true, cri-o-1.34 true"},
		{
			"keyPaths", strings.Replace(signedPolicy, `"keyPath":"/etc/pki/corp.gpg"`, `"keyPaths":["/etc/pki/corp.gpg"]`, 1),
			"",
			[]string{"rhel7", "rhel9"},
			"", "rhel7 false, rhel9 true",
		},
		{"wildcard", wildcard, "", []string{"rhel7"}, "error policy.json:3 reader-ignores", "rhel7 true"},
		{"lookaside", signedPolicy, lookaside, []string{"rhel7"}, "error registries.d/a.yaml:2 reader-ignores", "rhel7 true"},
		{
			"both names", signedPolicy, lookaside + "    sigstore: https://example.com/sigs\n",
			[]string{"rhel7"},
			"",
			"rhel7 true",
		},
		{
			"pki", docker(`"example.com/a":[{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectEmail":"e"}}]`), "",
			[]string{"podman-5.2", "podman-5.6"},
			"", "podman-5.2 false, podman-5.6 true",
		},
		{
			"broken for all", "{}", "",
			[]string{"rhel7", CurrentLibrary},
			"error policy.json:1 missing-default",
			"rhel7 false, containers-image-5.42.1 false",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{"policy.json": tt.policy}
			paths := []string{"policy.json"}
			if tt.registries != "" {
				files["registries.d/a.yaml"] = tt.registries
				paths = append(paths, "registries.d")
			}
			dir := write(t, t.TempDir(), files)
			for i := range paths {
				paths[i] = filepath.Join(dir, paths[i])
			}
			r, err := Run(paths, Options{Readers: tt.readers, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if summary(r, dir) != tt.want || loads(r) != tt.loads {
				t.Errorf("got %s, %s\n%+v", summary(r, dir), loads(r), r)
			}
		})
	}
	if _, err := Run([]string{t.TempDir()}, Options{Readers: []string{"windows-95"}}); err == nil ||
		!strings.Contains(err.Error(), "windows-95") {
		t.Errorf("got %v, want an error about the reader", err)
	}
}

// TestPathSet: files that are named together are looked at together.
func TestPathSet(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"policy.json": signedPolicy, "registries.d/a.yaml": lookaside,
		"registries.conf":   "[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"mirror.corp\"\ninsecure = true\n",
		"mirrors.conf":      "[[registry]]\nlocation = \"example.com\"\n",
		"crio.conf":         "[crio.image]\nsignature_policy = \"/p.json\"\n",
		"registries-x.conf": "[[registry", "crio-x.conf": "[crio", "other.conf": "a = 1\n",
	})
	for _, tt := range []struct{ paths, want string }{
		{
			"policy.json registries.d registries.conf",
			"warning registries.conf:4 registry-insecure\nwarning registries.conf:4 mirror-no-lookaside",
		},
		{"registries.conf", ""},
		{"policy.json registries.d mirrors.conf", ""},
		{"policy.json registries.d registries.conf mirrors.conf", ""}, // the later one counts
		{"crio.conf policy.json", "error crio.conf:2 crio-policy"},
		{"registries-x.conf", "warning registries-x.conf:0 registries-conf"},
		{"crio-x.conf", "warning crio-x.conf:0 crio-conf"},
		{"other.conf", "is no trust.yaml"},
	} {
		t.Run(tt.paths, func(t *testing.T) {
			var paths []string
			for p := range strings.FieldsSeq(tt.paths) {
				paths = append(paths, filepath.Join(dir, p))
			}
			r, err := Run(paths, Options{Now: time.Now()})
			switch {
			case err != nil && (!strings.Contains(err.Error(), "is no ") || !strings.Contains(err.Error(), tt.want)):
				t.Error(err)
			case err == nil && summary(r, dir) != tt.want:
				t.Errorf("got\n%s\nwant\n%s\n%+v", summary(r, dir), tt.want, r.Findings)
			}
		})
	}
}

func TestInput(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{
		"big.json": "{" + strings.Repeat(" ", MaxPolicy), "text": "hello\n", "empty/x": "",
		"host/etc/containers/policy.json": "{}",
	})
	for _, tt := range []struct {
		name, path, want string
	}{
		{"nothing", "", "nothing to lint"},
		{"missing", "missing", "no such file"},
		{"too large", "big.json", "larger than"},
		{"no kind", "text", "is no trust.yaml, policy.json"},
		{"empty directory", "empty", "holds no registries.d files"},
		{"host", "host", "--root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var paths []string
			if tt.path != "" {
				paths = []string{filepath.Join(dir, tt.path)}
			}
			if _, err := Run(paths, Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
