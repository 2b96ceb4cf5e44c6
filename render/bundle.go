package render

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/templates"
)

// Bundle returns a POSIX shell script that brings the files to a host. Here-documents hold the files as plain text,
// for reviewers, and because a host may lack a decoder: base64 is not in POSIX, its -d has other names, and minimal
// hosts have no OpenSSL.
func Bundle(in Input) ([]byte, error) {
	data := struct {
		Source, Readers, Digest, Mark string
		Files                         trust.FileSet // policy.json last
		Scopes, Keys                  []string
		// Properties of some reader: Vendor reads /usr/share and registries.rootful.d, Dangling fails at a link to
		// nothing in registries.d, Directories at a directory there.
		Vendor, Dangling, Directories bool
	}{Source: in.Config.Name, Digest: in.Files.Digest(), Keys: in.Config.KeyPaths(), Mark: "NODETRUST_END"}
	var names []string
	for _, r := range in.Readers {
		names = append(names, r.Name)
		data.Vendor = data.Vendor || r.Places().Merges
		data.Dangling = data.Dangling || !r.SkipsDangling()
		data.Directories = data.Directories || !r.Places().Merges
	}
	data.Readers = strings.Join(names, ", ")
	for _, f := range in.Files {
		if err := bundled(f); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Path, err)
		}
		for strings.Contains(string(f.Data), data.Mark) {
			data.Mark += "_"
		}
		data.Files = append(data.Files, f)
		if path.Dir(f.Path) == trust.RegistriesDir {
			c, err := registriesd.Parse(registriesd.File{Path: f.Path, Data: f.Data})
			if err != nil {
				return nil, fmt.Errorf("file %s: parsing: %w", f.Path, err)
			}
			data.Scopes = append(data.Scopes, c.Scopes()...)
		}
	}
	slices.SortFunc(data.Files, func(a, b trust.File) int {
		switch trust.PolicyPath {
		case b.Path:
			return -1
		case a.Path:
			return 1
		}
		return strings.Compare(a.Path, b.Path)
	})
	slices.Sort(data.Scopes)
	data.Scopes = slices.Compact(data.Scopes)
	t, err := template.New("bundle").Funcs(template.FuncMap{"quote": quote, "rights": rights}).Parse(templates.Bundle)
	if err != nil {
		return nil, fmt.Errorf("parsing the bundle's template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("writing the bundle: %w", err)
	}
	return b.Bytes(), nil
}

// bundled returns why a file can't stand in a here-document, or its path can't be split into words.
func bundled(f trust.File) error {
	switch {
	case strings.ContainsFunc(f.Path, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-", r)
	}):
		return fmt.Errorf("a bundle can't hold a path with special characters")
	case len(f.Data) == 0 || f.Data[len(f.Data)-1] != '\n' ||
		bytes.ContainsFunc(f.Data, func(r rune) bool { return r == 0 || r == '\r' }):
		return fmt.Errorf("a bundle can hold only text")
	case f.UID != 0 || f.GID != 0:
		return fmt.Errorf("a bundle can hold only files of root")
	}
	return nil
}

// rights writes a mode as ls -l does.
func rights(mode uint32) string {
	out := []byte("-rwxrwxrwx")
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			out[i+1] = '-'
		}
	}
	return string(out)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
