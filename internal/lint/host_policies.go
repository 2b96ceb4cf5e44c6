package lint

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Names of the policies of a host, in HostPolicy.Of. OfNamespace and OfHome stand before a name and a path.
const (
	OfRoot      = ""           // what root's processes take, CRI-O among them unless it is configured otherwise
	OfSystem    = "system"     // what others take where root has a policy of its own
	OfCRIO      = "CRI-O"      // what CRI-O takes instead
	OfNamespace = "namespace " // what CRI-O takes for the pods of one namespace
	OfHome      = "home "      // what root's processes take that are started with another $HOME than root's
)

// HostPolicy is a policy.json that a runtime of a host takes.
type HostPolicy struct {
	Of   string
	Path string
	Data []byte
}

// HostPolicies are all policies that the runtimes of a host may take, that of root first.
type HostPolicies struct {
	Policies []HostPolicy
	// LeftOut names what may make a runtime take another policy, and could not be read or followed.
	LeftOut []string
}

// fileTree are the files of a host, or those of a host that are known.
type fileTree interface {
	keyFiles
	// list returns the names of the files in a directory.
	list(dir string) ([]string, error)
}

// PoliciesOfHost finds the policies of the host below root, with the unit files and variables that may name others.
// The error says why it is not known which one root's processes take.
func PoliciesOfHost(root string) (*HostPolicies, error) {
	r := &runner{Options: Options{Root: root}}
	r.environment()
	out, err := policiesIn(rootFiles{hostfs.Root(root)})
	if err != nil {
		return nil, err
	}
	for _, f := range r.findings {
		out.LeftOut = append(out.LeftOut, f.File+" "+f.Message)
	}
	return out, nil
}

// PoliciesOfFiles finds the policies in a set of files that hosts get.
func PoliciesOfFiles(files trust.FileSet) (*HostPolicies, error) { return policiesIn(setFiles(files)) }

// NamesPolicies reports whether a file of a host is a policy or may name one. The passwd is that of hostfs.Passwd.
func NamesPolicies(p, passwd string) bool {
	dir := path.Dir(p)
	homes, _ := hostfs.Homes(passwd)
	return p == crioConf || p == hostfs.Passwd || p == trust.PolicyPath || dir == crioConfDir ||
		ofRoot(p, homes) && path.Ext(p) == ".json" || dir == policy.NamespacedDir && path.Ext(p) == ".json"
}

// rootPolicy is what there is at a place of root's policy.json; of is as in HostPolicy.
type rootPolicy struct {
	of string
	file
}

// rootPolicies returns what there is at the places, which are those of root's first home, and then in the other homes.
func rootPolicies(files fileTree, places, homes []string) (out []rootPolicy) {
	read := func(of, p string) bool {
		data, err := files.ReadFile(p, MaxPolicy)
		there := !errors.Is(err, fs.ErrNotExist)
		if there {
			out = append(out, rootPolicy{of, file{p, data, err}})
		}
		return there
	}
	of := OfRoot
	for _, p := range places {
		if !read(of, p) {
			continue
		}
		if p == trust.PolicyPath {
			break
		}
		of = OfSystem
	}
	for _, home := range homes[1:] {
		read(OfHome+home, path.Join(home, policy.HomeFile))
	}
	return out
}

func policiesIn(files fileTree) (*HostPolicies, error) {
	out := &HostPolicies{}
	homes := out.homes(files)
	newest := trust.SearchPaths()[len(trust.SearchPaths())-1]
	for _, p := range rootPolicies(files, newest.Of(homes[0]).Policy, homes) {
		switch {
		case p.err == nil:
			out.Policies = append(out.Policies, HostPolicy{p.of, p.path, p.data})
		case p.of == OfRoot:
			return nil, p.err
		case p.of == OfSystem:
			out.LeftOut = append(out.LeftOut, p.err.Error())
		default:
			out.LeftOut = append(out.LeftOut, fmt.Sprintf("the policy of %s: %v", p.of, p.err))
		}
	}
	if len(out.Policies) == 0 || out.Policies[0].Of != OfRoot {
		return nil, &fs.PathError{Op: "read", Path: trust.PolicyPath, Err: fs.ErrNotExist}
	}
	out.crio(files)
	return out, nil
}

// homes are those that root's processes may have.
func (h *HostPolicies) homes(files fileTree) []string {
	passwd, err := files.ReadFile(hostfs.Passwd, MaxPolicy)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.LeftOut = append(h.LeftOut, err.Error())
	}
	homes, more := hostfs.Homes(string(passwd))
	if more {
		h.LeftOut = append(h.LeftOut, fmt.Sprintf("%s names more than %d homes of root", hostfs.Passwd, hostfs.MaxHomes))
	}
	return homes
}

// crio adds what the configuration of CRI-O names.
func (h *HostPolicies) crio(files fileTree) {
	system, namespaced, bad := crioSettings(crioFiles(files))
	for _, f := range bad {
		h.LeftOut = append(h.LeftOut, f.path+": "+f.err.Error())
	}
	if system.value != "" {
		h.add(files, OfCRIO, system.value)
	}
	dir := policy.NamespacedDir
	if namespaced.value != "" {
		dir = namespaced.value
	}
	names, err := files.list(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.LeftOut = append(h.LeftOut, err.Error())
	}
	for i, name := range names {
		ns, ok := strings.CutSuffix(name, ".json")
		switch {
		case !ok:
		case i >= maxFiles:
			h.LeftOut = append(h.LeftOut, fmt.Sprintf("%s holds more than %d files", dir, maxFiles))
			return
		default:
			h.add(files, OfNamespace+ns, path.Join(dir, name))
		}
	}
}

func (h *HostPolicies) add(files fileTree, of, p string) {
	if !path.IsAbs(p) {
		h.LeftOut = append(h.LeftOut, fmt.Sprintf("the policy of %s: %s is no absolute path", of, p))
		return
	}
	data, err := files.ReadFile(path.Clean(p), MaxPolicy)
	if err != nil {
		h.LeftOut = append(h.LeftOut, fmt.Sprintf("the policy of %s: %v", of, err))
		return
	}
	h.Policies = append(h.Policies, HostPolicy{of, path.Clean(p), data})
}

// rootFiles are those below the root directory of a host.
type rootFiles struct{ hostfs.Root }

func (r rootFiles) list(dir string) ([]string, error) {
	entries, err := r.ReadDir(dir)
	var out []string
	for _, e := range entries {
		if !e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// setFiles are those of a set; there are no others.
type setFiles trust.FileSet

func (s setFiles) ReadFile(p string, limit int64) ([]byte, error) {
	f, ok := trust.FileSet(s).Get(p)
	switch {
	case !ok:
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	case int64(len(f.Data)) > limit:
		return nil, &fs.PathError{Op: "read", Path: p, Err: fmt.Errorf("is larger than %d bytes", limit)}
	}
	return f.Data, nil
}

func (s setFiles) list(dir string) (out []string, err error) {
	for _, f := range s {
		if path.Dir(f.Path) == path.Clean(dir) {
			out = append(out, path.Base(f.Path))
		}
	}
	slices.Sort(out)
	return out, nil
}
