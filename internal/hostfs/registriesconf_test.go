package hostfs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.podman.io/storage/pkg/configfile"
)

// TestRegistriesConf reads the same files, in the same order, as the library that the image library reads them with.
func TestRegistriesConf(t *testing.T) {
	for _, tt := range []struct {
		name string
		is   []string
		want []string // without the directories above
	}{
		{"none", nil, nil},
		{
			"vendor",
			[]string{"usr/share/containers/registries.conf", "usr/share/containers/registries.conf.d/a.conf"},
			[]string{"usr/share/containers/registries.conf", "usr/share/containers/registries.conf.d/a.conf"},
		},
		{
			"names, not directories",
			[]string{
				"etc/containers/registries.conf", "usr/share/containers/registries.conf",
				"etc/containers/registries.conf.d/10-a.conf", "usr/share/containers/registries.conf.d/20-a.conf",
				"etc/containers/registries.conf.d/30-a.txt", "etc/containers/registries.conf.d/30-d.conf/a.conf",
			},
			[]string{
				"etc/containers/registries.conf", "etc/containers/registries.conf.d/10-a.conf",
				"usr/share/containers/registries.conf.d/20-a.conf",
			},
		},
		{
			"one name",
			[]string{
				"usr/share/containers/registries.conf.d/a.conf", "usr/share/containers/registries.rootful.conf.d/a.conf",
				"etc/containers/registries.conf.d/a.conf", "etc/containers/registries.rootful.conf.d/a.conf",
			},
			[]string{"etc/containers/registries.rootful.conf.d/a.conf"},
		},
		{
			"home",
			[]string{
				"home/admin/.config/containers/registries.conf", "etc/containers/registries.conf",
				"home/admin/.config/containers/registries.conf.d/b.conf", "etc/containers/registries.conf.d/b.conf",
				"etc/containers/registries.conf.d/c.conf",
			},
			[]string{
				"home/admin/.config/containers/registries.conf", "home/admin/.config/containers/registries.conf.d/b.conf",
				"etc/containers/registries.conf.d/c.conf",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, p := range tt.is {
				p = filepath.Join(root, p)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			var want, library, got []string
			for _, p := range tt.want {
				want = append(want, "/"+p)
			}
			t.Setenv("XDG_CONFIG_HOME", filepath.Join(root, "home/admin/.config"))
			t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
			for item, err := range configfile.Read(&configfile.File{
				Name: "registries", Extension: "conf", EnvironmentName: "CONTAINERS_REGISTRIES_CONF",
				RootForImplicitAbsolutePaths: root,
			}) {
				if err != nil {
					t.Fatal(err)
				}
				rel, err := filepath.Rel(root, item.Name)
				if err != nil {
					t.Fatal(err)
				}
				library = append(library, "/"+rel)
			}
			main, dropIns := Root(root).RegistriesConf("/home/admin")
			if main.Path != "" {
				dropIns = slices.Insert(dropIns, 0, main)
			}
			for _, f := range dropIns {
				if f.Err != nil {
					t.Error(f.Err)
				}
				got = append(got, f.Path)
			}
			if !slices.Equal(got, want) || !slices.Equal(library, want) {
				t.Errorf("got %q, the library %q, want %q", got, library, want)
			}
		})
	}
}
