package lint

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/nodetrust/nodetrust/verify"
)

// Where a root process of a host looks for policy.json and registries.d, the first of the highest priority. The current
// library merges the directories; readers before 5.40, which all CRI-O up to 1.35 are, take root's own instead of the rest.
var (
	policyPaths = []string{"/root/.config/containers/policy.json", "/etc/containers/policy.json", "/usr/share/containers/policy.json"}
	userDir     = "/root/.config/containers/registries.d"
	systemDirs  = []string{
		"/etc/containers/registries.rootful.d", "/etc/containers/registries.d",
		"/usr/share/containers/registries.rootful.d", "/usr/share/containers/registries.d",
	}
	namespacedDir = "/etc/crio/policies"
)

// host lints the whole host below r.Root.
func (r *runner) host() error {
	if _, err := verify.ReadHostDir(r.Root, "/"); err != nil {
		return &InputError{fmt.Errorf("reading %s: %w", r.Root, err)}
	}
	regs, unreadable := r.hostRegistries()
	f, err := r.hostPolicy()
	var system *policy
	switch {
	case err != nil:
		r.loadables = append(r.loadables, loadable{name: policyPaths[1], registries: regs, required: true, problem: err.Error()})
	case unreadable != nil:
		system = r.onePolicy(f, nil, hostSource(r.Root), true)
		r.loadables[len(r.loadables)-1].problem = unreadable.Error()
	default:
		system = r.onePolicy(f, regs, hostSource(r.Root), true)
	}
	if system != nil && !system.broken && !regs.broken {
		r.mirrors(system, regs)
	}
	r.namespaced(system, regs)
	r.environment()
	return nil
}

func (r *runner) hostPolicy() (file, error) {
	var found []file
	for i, p := range policyPaths {
		data, err := verify.ReadHostFile(r.Root, p, MaxPolicy)
		switch {
		case err == nil:
			found = append(found, file{p, data})
		case errors.Is(err, fs.ErrNotExist):
		case len(found) == 0:
			r.add(Finding{Severity: Error, Code: "unreadable", File: p, Message: err.Error(), Hint: "every pull on the node fails"})
			return file{}, err
		}
		if i == 1 && len(found) == 2 {
			r.add(Finding{Severity: Error, Code: "masked-policy", File: found[0].path, Message: "is read instead of " + found[1].path + " by every process of root, CRI-O included", Hint: "remove it"})
		}
	}
	if len(found) == 0 {
		err := fmt.Errorf("no policy.json found at any of %s", strings.Join(policyPaths, ", "))
		r.add(Finding{Severity: Error, Code: "missing-policy", File: policyPaths[1], Message: err.Error(), Hint: "every pull on the node fails"})
		return file{}, err
	}
	return found[0], nil
}

// hostRegistries lints the effective registries.d files. The error says that some could not be read.
func (r *runner) hostRegistries() (*registries, error) {
	var files []file
	var failed error
	user := 0
	for _, dir := range append([]string{userDir}, systemDirs...) {
		entries, err := verify.ReadHostDir(r.Root, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(entries) > maxFiles {
			err = fmt.Errorf("holds more than %d files", maxFiles)
		}
		if err != nil {
			r.add(Finding{Severity: Error, Code: "unreadable", File: dir, Message: err.Error()})
			failed = errors.Join(failed, fmt.Errorf("reading %s: %w", dir, err))
			continue
		}
		for _, e := range entries {
			p := path.Join(dir, e.Name())
			switch {
			case e.IsDir():
				continue
			case !strings.HasSuffix(e.Name(), ".yaml"):
				r.ignored(p)
				continue
			}
			data, err := verify.ReadHostFile(r.Root, p, MaxPolicy)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				r.add(Finding{Severity: Warning, Code: "dangling-link", File: p, Message: "is a link to nothing: readers skip it"})
			case err != nil:
				r.add(Finding{Severity: Error, Code: "unreadable", File: p, Message: err.Error()})
				failed = errors.Join(failed, fmt.Errorf("reading %s: %w", p, err))
			default:
				files = append(files, file{p, data})
			}
		}
		if dir == userDir {
			user = len(files)
			r.add(Finding{Severity: Warning, Code: "masked-registries-d", File: userDir, Message: fmt.Sprintf("exists (%d files): readers before containers-image 5.40, CRI-O up to 1.35 among them, read it instead of /etc/containers/registries.d", user), Hint: "remove it"})
		}
	}
	return r.registries(r.unmasked(files)), failed
}

// namespaced lints the policies that CRI-O takes for single namespaces instead of the system's.
func (r *runner) namespaced(system *policy, regs *registries) {
	entries, err := verify.ReadHostDir(r.Root, namespacedDir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.add(Finding{Severity: Error, Code: "unreadable", File: namespacedDir, Message: err.Error()})
		return
	}
	for i, e := range entries {
		p := path.Join(namespacedDir, e.Name())
		ns, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || i >= maxFiles {
			continue
		}
		data, err := verify.ReadHostFile(r.Root, p, MaxPolicy)
		if err != nil {
			r.add(Finding{Severity: Error, Code: "unreadable", File: p, Message: err.Error()})
			continue
		}
		r.add(Finding{Severity: Warning, Code: "namespaced-policy", File: p, Message: fmt.Sprintf("CRI-O uses it alone, instead of the system's policy, for pods in namespace %q", ns)})
		pol := r.policy(data, p)
		r.policyKeys(pol, hostSource(r.Root))
		if !pol.broken && !regs.broken {
			r.lookups(pol, regs)
		}
		if system != nil && !system.broken && !pol.broken {
			r.weaker(system, pol)
		}
	}
}

// weaker finds scopes for which the system's policy demands something and the namespaced one accepts everything. CRI-O
// takes for granted that there are none.
func (r *runner) weaker(system, namespaced *policy) {
	own := map[string]policyScope{}
	for _, s := range namespaced.scopes {
		own[s.name] = s
	}
	check := func(s, by policyScope, name string) {
		if !s.accepts() && by.accepts() {
			r.add(Finding{
				Severity: Warning, Code: "namespaced-weaker", File: namespaced.file, Line: by.line,
				Message: fmt.Sprintf("%s: accepts every image of %s, which %s (line %d) does not", by.path, name, system.file, s.line),
			})
		}
	}
	check(system.defaults, namespaced.defaults, "scopes that are not named")
	for _, s := range system.scopes {
		by := namespaced.defaults
		for _, name := range append([]string{s.name}, parents(s.name)...) {
			if found, ok := own[name]; ok {
				by = found
				break
			}
		}
		check(s, by, fmt.Sprintf("scope %q", s.name))
	}
}
