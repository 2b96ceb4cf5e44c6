package mco

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	sigstoreFile = trust.RegistriesDir + "/sigstore-registries.yaml"
	ourFile      = trust.RegistriesDir + "/quay.io.yaml"
)

// merging is a pool with registries.d files of the MCO (sigstoreFile) and of another MachineConfig (ourFile), and the
// merge of one of ours.
func merging(t *testing.T, mcos, others, ours string) (trust.FileSet, []Taken, Target, error) {
	t.Helper()
	d := &Dump{Configs: []Config{
		template01("worker"),
		mc("99-worker-generated-registries", "worker", "Image", imagePolicy), mc("50-worker-other", "worker", "", ""),
	}}
	if mcos != "" {
		d.Configs[1].Files = append(d.Configs[1].Files, File{Path: sigstoreFile, Data: []byte(mcos)})
	}
	if others != "" {
		d.Configs[2].Files = append(d.Configs[2].Files, File{Path: ourFile, Data: []byte(others)})
	}
	target := Target{Dump: d, Pool: "worker", Minor: 20}
	files, taken, err := target.MergeRegistries(trust.FileSet{{
		Path: trust.PolicyPath, Mode: 0o644,
		Data: []byte(ourPolicy),
	}, {Path: ourFile, Mode: 0o644, Data: []byte(ours)}})
	return files, taken, target, err
}

func TestMergeRegistries(t *testing.T) {
	const (
		on   = "docker:\n  quay.io/corp:\n    use-sigstore-attachments: true\n  quay.io/else:\n    use-sigstore-attachments: true\n"
		look = "docker:\n  quay.io/corp:\n    lookaside: https://a/b\n"
	)
	for _, tt := range []struct {
		name, mcos, others, ours string
		want                     map[string]string // path -> content, as YAML
		taken                    string            // paths
		err                      string
	}{
		{"nothing shared", "docker:\n  quay.io/x:\n    use-sigstore-attachments: true\n", "", look, nil, "", ""},
		{
			"shared scope", on, "", look, map[string]string{
				ourFile:      "docker: {quay.io/corp: {lookaside: 'https://a/b', use-sigstore-attachments: true}}",
				sigstoreFile: "docker: {quay.io/else: {use-sigstore-attachments: true}}",
			}, sigstoreFile, "",
		},
		{
			"all shared", "docker:\n  quay.io/corp:\n    use-sigstore-attachments: true\n", "", look, map[string]string{
				ourFile: "docker: {quay.io/corp: {lookaside: 'https://a/b', use-sigstore-attachments: true}}", sigstoreFile: "{}",
			}, sigstoreFile, "",
		},
		{
			"same path", "", "default-docker:\n  lookaside: https://d\ndocker:\n  quay.io/more:\n    lookaside: https://c\n  quay.io/corp:\n    sigstore: https://a/b\n", look, map[string]string{
				ourFile: "{default-docker: {lookaside: 'https://d'}, docker: {quay.io/more: {lookaside: 'https://c'}, quay.io/corp: {lookaside: 'https://a/b', sigstore: 'https://a/b'}}}",
			}, ourFile, "",
		},
		{"same bytes", "", look, look, nil, "", ""},
		{"both", on, "docker:\n  quay.io/more:\n    lookaside: https://c\n", look, map[string]string{
			ourFile:      "docker: {quay.io/more: {lookaside: 'https://c'}, quay.io/corp: {lookaside: 'https://a/b', use-sigstore-attachments: true}}",
			sigstoreFile: "docker: {quay.io/else: {use-sigstore-attachments: true}}",
		}, ourFile + " " + sigstoreFile, ""},
		{
			"another lookaside", "", "docker:\n  quay.io/corp:\n    sigstore: https://c\n", look, nil, "",
			"50-worker-other: quay.io/corp: signatures are looked up at https://c, ours at https://a/b",
		},
		{
			"attachments off", on, "", "docker:\n  quay.io/corp:\n    use-sigstore-attachments: false\n", nil, "",
			"use-sigstore-attachments is true, ours false",
		},
		{
			"attachments off below", "docker:\n  quay.io:\n    use-sigstore-attachments: true\n", "",
			"docker:\n  quay.io/corp:\n    use-sigstore-attachments: false\n", nil, "",
			"is true for quay.io, and false for quay.io/corp in ours",
		},
		{
			"attachments off below a wildcard", "docker:\n  '*.io':\n    use-sigstore-attachments: true\n", "",
			"docker:\n  quay.io/corp:\n    use-sigstore-attachments: false\n", nil, "", "is true for *.io",
		},
		{
			"no list of hosts", "docker: 1\n", "", look, nil, "",
			"merging with " + sigstoreFile + " of 99-worker-generated-registries: parsing",
		},
		{
			"lists", "", "docker:\n  quay.io/corp:\n    x: [1]\n", "docker:\n  quay.io/corp:\n    x: [2]\n", nil, "",
			"x is [1], ours [2]",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files, taken, target, err := merging(t, tt.mcos, tt.others, tt.ours)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var paths, replaces []string
			for _, f := range taken {
				paths = append(paths, f.Path)
			}
			if got := strings.Join(paths, " "); got != tt.taken {
				t.Errorf("taken: %s, want %s", got, tt.taken)
			}
			if tt.want == nil {
				if f, _ := files.Get(ourFile); string(f.Data) != tt.ours || len(files) != 2 {
					t.Errorf("nothing to merge, and yet %s", f.Data)
				}
			}
			for p, want := range tt.want {
				f, ok := files.Get(p)
				if !ok || normal(t, string(f.Data)) != normal(t, want) || f.Mode != 0o644 {
					t.Errorf("%s: got %s, want %s", p, f.Data, want)
				}
			}
			// The same merge as the MCO's: no scope is in two files, and nothing of others is shadowed unknowingly.
			ours := mc("99-worker-zz-corp", "worker", "", "")
			for _, f := range files {
				ours.Files = append(ours.Files, File{Path: f.Path, Data: f.Data})
			}
			replaces = append(paths, trust.PolicyPath)
			if c, err := target.Conflicts(ours, replaces...); err != nil || len(c) > 0 {
				t.Errorf("merged, and yet %v, %v", c, err)
			}
		})
	}
}

// normal is YAML in one form.
func normal(t *testing.T, text string) string {
	t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if len(v) == 0 {
		return ""
	}
	return string(b)
}

// TestOutdated: what has changed since a merge is noticed, and nothing else.
func TestOutdated(t *testing.T) {
	const on = "docker:\n  quay.io/corp:\n    use-sigstore-attachments: true\n  quay.io/else:\n    use-sigstore-attachments: true\n"
	files, taken, target, err := merging(t, on, "", "docker:\n  quay.io/corp:\n    lookaside: https://a/b\n")
	if err != nil {
		t.Fatal(err)
	}
	m, err := target.Merge([]byte(ourPolicy))
	if err != nil {
		t.Fatal(err)
	}
	ours := mc("99-worker-zz-corp", "worker", "", "")
	if ours.Annotations, err = MergedAnnotations("corp", m.Taken, taken); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		ours.Files = append(ours.Files, File{Path: f.Path, Data: f.Data})
	}
	mcos := func(d *Dump) *Config { return &d.Configs[1] }
	for _, tt := range []struct {
		name   string
		change func(*Dump)
		want   string
	}{
		{"nothing", func(*Dump) {}, ""},
		{"the plain one is still there", func(d *Dump) {
			d.Configs = append(d.Configs,
				mc("51-worker-corp", "worker", "", ourPolicy))
		}, ""},
		{"an earlier merged one is still there", func(d *Dump) {
			old := mc("99-worker-zzz-corp", "worker", "", ourPolicy)
			old.Annotations = ours.Annotations
			d.Configs = append(d.Configs, old)
		}, ""},
		{"a file that has nothing to do with ours", func(d *Dump) {
			mcos(d).Files = append(mcos(d).Files, File{
				Path: trust.RegistriesDir + "/x.yaml",
				Data: []byte("docker: {x.io: {lookaside: 'https://x'}}"),
			})
		}, ""},
		{
			"another policy", func(d *Dump) { mcos(d).Files[0].Data = []byte(allowed) },
			"99-worker-generated-registries has another /etc/containers/policy.json than the one that was merged",
		},
		{"the same policy of another one", func(d *Dump) { mcos(d).Name = "99-worker-renamed" }, ""},
		{
			"another registries.d file", func(d *Dump) { mcos(d).Files[1].Data = []byte("docker: {}") },
			"another " + sigstoreFile,
		},
		{
			"the file is gone", func(d *Dump) { mcos(d).Files = mcos(d).Files[:1] },
			sigstoreFile + " of 99-worker-generated-registries is gone",
		},
		{"a new file with a scope of ours", func(d *Dump) {
			mcos(d).Files = append(mcos(d).Files, File{
				Path: trust.RegistriesDir + "/x.yaml",
				Data: []byte("docker: {quay.io/corp: {lookaside: 'https://x'}}"),
			})
		}, "has the scope quay.io/corp"},
		{"a new file of our path", func(d *Dump) {
			d.Configs[2].Files = append(d.Configs[2].Files, File{Path: ourFile, Data: []byte("docker: {}")})
		}, "50-worker-other has a " + ourFile + " now"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, fresh, err := merging(t, on, "", "docker: {}")
			if err != nil {
				t.Fatal(err)
			}
			d := fresh.Dump.With(ours)
			tt.change(d)
			why, err := Target{Dump: d, Pool: "worker", Minor: 20}.Outdated(ours)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(why, "; "); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	spoilt := ours
	spoilt.Annotations = map[string]string{MergedAnnotation: "x", MergedFilesAnnotation: "{"}
	if _, err := (Target{Dump: target.Dump.With(spoilt), Pool: "worker", Minor: 20}).Outdated(spoilt); err == nil {
		t.Error("an annotation that can't be read is taken for nothing")
	}
}

// TestAwaited: a policy.json that the MCO will write, and hasn't yet.
func TestAwaited(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy string
		change func(*Dump)
		want   string
	}{
		{"nothing asked for", "", func(*Dump) {}, ""},
		{
			"asked for and not written", "", func(d *Dump) { d.ClusterPolicies, d.Restricted = []string{"b", "a"}, true },
			"the allowed or blocked registries of the Image config and the ClusterImagePolicies a, b",
		},
		{"written", imagePolicy, func(d *Dump) { d.ClusterPolicies = []string{"a"} }, ""},
	} {
		d := &Dump{Configs: []Config{
			template01("worker"),
			mc("99-worker-generated-registries", "worker", "Image", tt.policy),
		}}
		tt.change(d)
		c, err := Target{Dump: d, Pool: "worker"}.Awaited()
		if err != nil || tt.want == "" && c != nil || tt.want != "" && (c == nil || !strings.HasSuffix(c.Reason, tt.want)) {
			t.Errorf("%s: got %v, %v", tt.name, c, err)
		}
	}
}

// FuzzMergeRegistries: whatever the cluster has, the merge is refused, or every scope is in one file and nothing that
// was said is lost.
func FuzzMergeRegistries(f *testing.F) {
	f.Add("docker: {quay.io/corp: {use-sigstore-attachments: true}}", "docker: {quay.io/corp: {lookaside: 'https://a/b'}}")
	f.Add("default-docker: {lookaside: 'https://x'}\ndocker:\n", "docker: {quay.io/corp: }")
	f.Add("docker: {quay.io: {use-sigstore-attachments: true, x: [1]}}",
		"docker: {quay.io: {x: {a: b}}, '*.io': {use-sigstore-attachments: false}}")
	f.Fuzz(func(t *testing.T, theirs, ours string) {
		mine, err := registriesd.Parse(registriesd.File{Data: []byte(ours)})
		if err != nil {
			return
		}
		files, _, target, err := merging(t, theirs, "", ours)
		if err != nil {
			return
		}
		pool, err := target.Dump.PoolFiles("worker", 20)
		if err != nil {
			t.Fatal(err)
		}
		result := map[string]registriesd.Entry{}
		count := func(data []byte) {
			l, err := registriesd.Parse(registriesd.File{Data: data})
			if err != nil {
				t.Fatalf("the result can't be read: %v", err)
			}
			for s, v := range l.Docker {
				if _, twice := result[s]; twice {
					t.Fatalf("%s is in two files", s)
				}
				result[s] = v
			}
		}
		for _, f := range files {
			if registriesd.Is(f.Path, trust.RegistriesDir) {
				count(f.Data)
			}
		}
		base, ok := pool[sigstoreFile]
		if _, taken := files.Get(sigstoreFile); ok && !taken {
			count(base.Data)
		}
		before, err := registriesd.Parse(registriesd.File{Data: []byte(theirs)})
		if err != nil {
			t.Fatal("merged with what can't be read")
		}
		for _, was := range []map[string]registriesd.Entry{before.Docker, mine.Docker} {
			for s, v := range was {
				for k := range said(t, v) {
					if _, ok := said(t, result[s])[k]; !ok {
						t.Fatalf("%s of %s is lost", k, s)
					}
				}
			}
		}
	})
}

// said is what a section says, by key. An empty URL says nothing.
func said(t *testing.T, e registriesd.Entry) (out map[string]any) {
	t.Helper()
	b, err := registriesd.Config{Docker: map[string]registriesd.Entry{"": e}}.YAML()
	if err != nil {
		t.Skip("an unknown key has no value")
	}
	var c struct{ Docker map[string]map[string]any }
	if err := yaml.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c.Docker[""]
}
