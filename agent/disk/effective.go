package disk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	// Larger foreign registries.d files are not parsed: parsing takes a hundred times their size for a moment.
	// Vendors' files have some kilobytes.
	maxRegistriesFile = 256 << 10
	maxRegistries     = 2 << 20 // bytes of all of them together
)

// Dirs returns the directories whose content Compare looks at, to be watched. Some need not exist.
func Dirs(root *os.Root, want trust.FileSet) []string {
	set := map[string]bool{policy.NamespacedDir: true}
	for _, d := range registriesd.Dirs() {
		set[d] = true
	}
	found, _ := homes(root)
	for _, h := range found {
		set[path.Dir(path.Join(h, policy.HomeFile))] = true
		set[path.Join(h, registriesd.HomeDir)] = true
	}
	for _, w := range want {
		set[path.Dir(w.Path)] = true
	}
	for _, d := range besideDirs() {
		set[d] = true
	}
	for _, k := range new(Comparer).keyPaths(want) {
		set[path.Dir(k)] = true
		if p, err := resolve(root, k); err == nil {
			set[path.Dir(p)] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// KeyPaths returns the key files that the policy.json of want names, without those in want.
func KeyPaths(want trust.FileSet) []string { return new(Comparer).keyPaths(want) }

func (c *Comparer) masks(root *os.Root, want trust.FileSet, obsolete []string) []judge.Difference {
	var ds []judge.Difference
	found, err := homes(root)
	if err != nil {
		ds = append(ds, judge.Difference{Path: hostfs.Passwd, Kind: judge.Unreadable, Want: "a file", Got: cause(err)})
	}
	for _, home := range found {
		for _, m := range []struct{ path, instead string }{
			{path.Join(home, policy.HomeFile), trust.PolicyPath},
			{path.Join(home, registriesd.HomeDir), trust.RegistriesDir},
		} {
			if _, ours := want.Get(m.path); ours {
				continue
			}
			if d, there := exists(root, m.path, m.instead); there {
				ds = append(ds, d)
			}
		}
	}
	return append(ds, namespaced(root, want, obsolete)...)
}

// exists reports a mask at p, also if its absence can't be shown.
func exists(root *os.Root, p, instead string) (judge.Difference, bool) {
	d := judge.Difference{Path: p, Kind: judge.Masks, Want: instead}
	dir, err := resolve(root, path.Dir(p))
	if err == nil {
		info, lerr := root.Lstat(rel(path.Join(dir, path.Base(p))))
		if err = lerr; err == nil {
			d.Got = "file"
			if !info.Mode().IsRegular() {
				d.Got = kindOf(info)
			}
			return d, true
		}
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return d, false
	}
	return judge.Difference{Path: p, Kind: judge.Unreadable, Want: "absent", Got: cause(err)}, true
}

func kindOf(info os.FileInfo) string {
	switch {
	case info.IsDir():
		return "directory"
	case info.Mode()&os.ModeSymlink != 0:
		return "symlink"
	}
	return "special file"
}

// namespaced reports CRI-O's policies for single namespaces. Each is read instead of policy.json.
func namespaced(root *os.Root, want trust.FileSet, obsolete []string) []judge.Difference {
	names, err := List(root, policy.NamespacedDir)
	if err != nil {
		return []judge.Difference{{Path: policy.NamespacedDir, Kind: judge.Unreadable, Want: "a directory", Got: cause(err)}}
	}
	var ds []judge.Difference
	for _, n := range names {
		p := path.Join(policy.NamespacedDir, n)
		if _, ours := want.Get(p); ours || !strings.HasSuffix(n, ".json") || slices.Contains(obsolete, p) {
			continue
		}
		ds = append(ds, judge.Difference{
			Path: p, Kind: judge.Masks, Want: trust.PolicyPath,
			Got: "policy of namespace " + strings.TrimSuffix(n, ".json"),
		})
	}
	return ds
}

// List returns the sorted names in a directory, none if there is no such directory.
func List(root *os.Root, dir string) ([]string, error) {
	d, err := openFolder(root, dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.close()
	names, err := d.names()
	slices.Sort(names)
	return names, err
}

// homes returns root's home directories, as hostfs has them: with an error /root is no more than a guess.
func homes(root *os.Root) ([]string, error) {
	passwd := readFollowing(root, hostfs.Passwd)
	out, _ := hostfs.Homes(string(passwd.data))
	switch {
	case passwd.missing():
		return out, nil
	case passwd.err == nil && passwd.kind != "file":
		return out, errors.New(passwd.kind)
	}
	return out, passwd.err
}

// budget is the number of bytes that may still be read of foreign registries.d files.
type budget struct{ left int }

// take reports whether n more bytes may be read, and counts them.
func (b *budget) take(n int) bool {
	if n > maxRegistriesFile || n > b.left {
		return false
	}
	b.left -= n
	return true
}

// registries is the part of a registries.d file that can collide.
type registries struct {
	scopes  []string // as named in a collision: `scope ""` or default-docker
	invalid string   // the reason if it does not parse
}

type parsedFile struct {
	data []byte
	registries
}

type source struct {
	path string
	ours bool
	registries
}

// registries reports why readers refuse the registries.d directories as a whole, which fails every pull. It takes the
// files of want as if they were in place: compareFile compares them.
func (c *Comparer) registries(root *os.Root, want trust.FileSet, obsolete []string) []judge.Difference {
	var ds []judge.Difference
	all := map[string][]source{} // by directory, sorted by name
	memory := map[string]parsedFile{}
	rest := &budget{left: maxRegistries}
	for _, dir := range registriesd.Dirs() {
		sources, bad := c.readRegistries(root, dir, want, obsolete, memory, rest)
		all[dir] = sources
		ds = append(ds, bad...)
	}
	c.parsed = memory

	masked, merged := merge(all)
	ds = append(ds, masked...)
	named := map[judge.Difference]bool{}
	for _, view := range [][]source{all[trust.RegistriesDir], merged} {
		for _, d := range collisions(view) {
			if !named[d] {
				named[d] = true
				ds = append(ds, d)
			}
		}
	}
	return ds
}

// readRegistries reads one directory, with the files of want as if they were in place.
func (c *Comparer) readRegistries(root *os.Root, dir string, want trust.FileSet, obsolete []string,
	memory map[string]parsedFile, rest *budget,
) ([]source, []judge.Difference) {
	var sources []source
	for _, w := range want {
		if path.Dir(w.Path) == dir && strings.HasSuffix(w.Path, ".yaml") {
			sources = append(sources, source{path: w.Path, ours: true, registries: c.parseWanted(w)})
		}
	}
	var ds []judge.Difference
	d, err := openFolder(root, dir)
	if err == nil {
		defer d.close()
		var names []string
		if names, err = d.names(); err == nil {
			for _, n := range names {
				p := path.Join(dir, n)
				if _, ours := want.Get(p); ours || !strings.HasSuffix(n, ".yaml") || slices.Contains(obsolete, p) {
					continue
				}
				r := c.parseFound(root, d, p, memory, rest)
				if r.invalid != "" {
					ds = append(ds, judge.Difference{Path: p, Kind: judge.Invalid, Want: "a registries.d file", Got: r.invalid})
					continue
				}
				sources = append(sources, source{path: p, registries: r})
			}
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		ds = append(ds, judge.Difference{Path: dir, Kind: judge.Unreadable, Want: "a directory", Got: cause(err)})
	}
	slices.SortFunc(sources, func(a, b source) int { return strings.Compare(a.path, b.path) })
	slices.SortFunc(ds, func(a, b judge.Difference) int { return strings.Compare(a.Path, b.Path) })
	return sources, ds
}

func (c *Comparer) parseWanted(w trust.File) registries {
	if len(w.Data) == 0 {
		return registries{}
	}
	key := &w.Data[0]
	r, ok := c.wanted[key]
	if !ok {
		if c.wanted == nil || len(c.wanted) > maxEntries {
			c.wanted = map[*byte]registries{}
		}
		r = parseRegistries(registriesd.File{Path: w.Path, Data: w.Data})
		c.wanted[key] = r
	}
	return r
}

// parseFound reads a foreign file. A file too large to be parsed becomes a doubt.
func (c *Comparer) parseFound(root *os.Root, d *folder, p string, memory map[string]parsedFile,
	rest *budget,
) registries {
	got := d.readUpTo(path.Base(p), min(maxRegistriesFile, rest.left))
	if got.kind == "symlink" {
		if nulled(root, p) {
			return registries{}
		}
		if got = readFollowing(root, p); got.missing() {
			return registries{invalid: "dangling symlink"}
		}
	}
	switch {
	case got.missing(): // gone since the directory was listed
		return registries{}
	case got.err != nil:
		return registries{invalid: cause(got.err)}
	case got.kind != "file":
		return registries{invalid: got.kind}
	case !rest.take(len(got.data)):
		return registries{invalid: "too large"}
	}
	old, ok := c.parsed[p]
	if !ok || !bytes.Equal(old.data, got.data) {
		old = parsedFile{data: got.data, registries: parseRegistries(registriesd.File{Path: p, Data: got.data})}
	}
	memory[p] = old
	return old.registries
}

// nulled reports whether p links to /dev/null, which masks a vendor's file: readers find an empty one. The /dev below
// root is not looked at: in a pod it is empty.
func nulled(root *os.Root, p string) bool {
	target, err := root.Readlink(rel(p))
	return err == nil && path.Clean(target) == "/dev/null"
}

// parseRegistries ignores unknown keys, as the runtimes do.
func parseRegistries(f registriesd.File) registries {
	c, err := registriesd.Parse(f)
	if err != nil {
		// Only the place: the rest of the parser's text may quote the file.
		return registries{invalid: place(err)}
	}
	var r registries
	if c.Default != nil {
		r.scopes = append(r.scopes, registriesd.DefaultSection)
	}
	for _, s := range c.Scopes() {
		r.scopes = append(r.scopes, fmt.Sprintf("scope %q", s))
	}
	return r
}

func place(err error) string {
	text := err.Error()
	if i := strings.Index(text, "line "); i >= 0 {
		line := text[i+len("line "):]
		if j := strings.IndexFunc(line, func(r rune) bool { return r < '0' || r > '9' }); j > 0 {
			return "bad YAML in line " + line[:j]
		}
	}
	return "bad YAML"
}

// merge returns what newer readers take of all directories, and our files that are hidden from them.
func merge(all map[string][]source) (masked []judge.Difference, merged []source) {
	seen := map[string]source{}
	for _, dir := range registriesd.Dirs() {
		for _, s := range all[dir] {
			base := path.Base(s.path)
			higher, hidden := seen[base]
			if !hidden {
				seen[base] = s
				merged = append(merged, s)
			} else if s.ours && !higher.ours {
				masked = append(masked, judge.Difference{Path: higher.path, Kind: judge.Masks, Want: s.path, Got: "file"})
			}
		}
	}
	return masked, merged
}

// collisions reports each scope that two files define. It names the foreign one of two files.
func collisions(view []source) []judge.Difference {
	var ds []judge.Difference
	first := map[string]source{}
	for _, s := range view {
		for _, scope := range s.scopes {
			a, taken := first[scope]
			if !taken {
				first[scope] = s
				continue
			}
			b := s
			if b.ours && !a.ours {
				a, b = b, a
			}
			ds = append(ds, judge.Difference{Path: b.path, Kind: judge.Duplicate, Want: a.path, Got: scope})
		}
	}
	return ds
}

// keys reports the key files of the desired policy that readers can't use.
func (c *Comparer) keys(root *os.Root, want trust.FileSet) []judge.Difference {
	var ds []judge.Difference
	for _, k := range c.keyPaths(want) {
		got := readFollowing(root, k)
		d := judge.Difference{Path: k, Kind: judge.KeyUnreadable, Want: "a key file"}
		switch {
		case got.missing(), errors.Is(got.err, unix.ENOTDIR):
			d.Kind = judge.KeyMissing
		case got.err != nil:
			d.Got = cause(got.err)
		case got.kind != "file":
			d.Got = got.kind
		case len(got.data) == 0:
			d.Got = "empty"
		default:
			continue
		}
		ds = append(ds, d)
	}
	return ds
}

func (c *Comparer) keyPaths(want trust.FileSet) []string {
	f, ok := want.Get(trust.PolicyPath)
	if !ok || len(f.Data) == 0 {
		return nil
	}
	if c.policy.data == &f.Data[0] {
		return c.policy.keys
	}
	doc, err := policy.Read(f.Data)
	if err != nil {
		return nil // the lint finds this before the policy is written
	}
	set := map[string]bool{}
	for r := range doc.Requirements() {
		for _, source := range r.KeySources() {
			for _, file := range source.Files() {
				if path.IsAbs(file) {
					set[path.Clean(file)] = true
				}
			}
		}
	}
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if _, ours := want.Get(k); !ours {
			keys = append(keys, k)
		}
	}
	c.policy.data, c.policy.keys = &f.Data[0], keys
	return keys
}
