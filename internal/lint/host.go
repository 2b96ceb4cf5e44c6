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
	"github.com/nodetrust/nodetrust/internal/policy/compare"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// view is a host as some of the readers see it: these look at the same places, and skip the same files.
type view struct {
	places        trust.Places
	homes         []string // root's, that of places first
	skipsDangling bool
	readers       []string
}

// views groups the readers. A reader's own policy counts, so hosts that are the same for all have one view.
func (r *runner) views() []*view {
	var out []*view
	homes, err := hostfs.Root(r.Root).Homes()
	if err != nil {
		r.add("unreadable", place{file: hostfs.Passwd}, "where root's home is can't be told: %v", err).Hint =
			"a policy.json in root's home would be read instead of " + trust.PolicyPath
	}
	for i, reader := range r.readers {
		j := slices.IndexFunc(out, func(v *view) bool {
			return v.places.Since == reader.Places().Since && v.skipsDangling == reader.SkipsDangling()
		})
		if j < 0 {
			j = len(out)
			out = append(out, &view{
				places: reader.Places().Of(homes[0]), homes: homes, skipsDangling: reader.SkipsDangling(),
			})
		}
		out[j].readers = append(out[j].readers, r.Readers[i])
	}
	return out
}

// host lints the whole host below r.Root, as each of the readers sees it.
func (r *runner) host() error {
	if _, err := hostfs.Root(r.Root).ReadDir("/"); err != nil {
		return &InputError{fmt.Errorf("reading %s: %w", r.Root, err)}
	}
	views := r.views()
	seen := make([]linter, len(views))
	for i, v := range views {
		one := &runner{linter: linter{now: r.now}, Options: r.Options, view: v}
		one.hostView()
		for j := range one.loadables {
			one.loadables[j].readers = v.readers
		}
		r.loadables = append(r.loadables, one.loadables...)
		seen[i] = one.linter
	}
	r.asSeen(views, seen)
	r.environment()
	return nil
}

// asSeen adds what the readers of each view find; what only some of them do is said to be theirs.
func (r *runner) asSeen(views []*view, seen []linter) {
	for i, l := range seen {
		r.dropped += l.dropped
		for _, f := range l.findings {
			var by []string
			first := i
			for j, others := range seen {
				if slices.Contains(others.findings, f) {
					by = append(by, views[j].readers...)
					first = min(first, j)
				}
			}
			switch {
			case first < i:
				continue // added already
			case len(by) < len(r.Readers):
				f.Message = "for " + strings.Join(by, ", ") + ": " + f.Message
			}
			r.take(f)
		}
	}
}

func (r *runner) hostView() {
	namespaced := r.crio(crioFiles(rootFiles{hostfs.Root(r.Root)}))
	regs, unreadable := r.hostRegistries()
	f, err := r.hostPolicy()
	var system *policyFacts
	switch {
	case err != nil:
		r.loadables = append(r.loadables, loadable{registries: regs, problem: err.Error()})
	case unreadable != nil:
		system = r.onePolicy(f, nil, keysOfHost(r.Root))
		r.loadables[len(r.loadables)-1].problem = unreadable.Error()
	default:
		system = r.onePolicy(f, regs, keysOfHost(r.Root))
	}
	if system != nil && !system.broken && !regs.broken {
		r.mirrors(system, regs, r.registriesConf())
	}
	r.namespaced(system, regs, namespaced)
	r.withoutSigstore(system)
}

// withoutSigstore warns of sigstore signatures on Debian 12, whose own podman and skopeo can't judge them.
func (r *runner) withoutSigstore(system *policyFacts) {
	release, err := hostfs.Root(r.Root).ReadFile("/etc/os-release", maxUnit)
	if err != nil || system == nil {
		return
	}
	var debian, twelve bool
	for line := range strings.Lines(string(release)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		debian = debian || name == "ID" && value == "debian"
		twelve = twelve || name == "VERSION_ID" && value == "12"
	}
	if line, used := system.features[trust.FeatureSigstore]; used && debian && twelve {
		r.add("sigstore-disabled", place{file: system.path, line: line},
			"asks for sigstore signatures: Debian 12's own podman and skopeo are built without them and refuse every image of the scope")
	}
}

// hostPolicy returns the policy.json that root's processes take, and tells what it masks.
func (r *runner) hostPolicy() (file, error) {
	found := rootPolicies(rootFiles{hostfs.Root(r.Root)}, r.view.places.Policy, r.view.homes)
	if len(found) > 0 && found[0].of == OfRoot && found[0].err != nil {
		r.add("unreadable", place{file: found[0].path}, "%v", found[0].err).Hint = "every pull on the node fails"
		return file{}, found[0].err
	}
	for _, p := range found {
		if home, ok := strings.CutPrefix(p.of, OfHome); ok {
			r.masks(p.path, " that is started with HOME="+home, "remove it")
		} else if p.of == OfSystem && p.path == trust.PolicyPath && p.err == nil {
			r.masks(found[0].path, ", CRI-O included", "remove it")
		}
	}
	if len(found) == 0 || found[0].of != OfRoot {
		err := fmt.Errorf("no policy.json found at any of %s", strings.Join(r.view.places.Policy, ", "))
		r.add("missing-policy", place{file: trust.PolicyPath}, "%v", err)
		return file{}, err
	}
	return found[0].file, nil
}

// masks says that a policy.json is read instead of the system's by root's processes, of which who tells more.
func (r *runner) masks(p, who, hint string) {
	r.add("masked-policy", place{file: p}, "is read instead of %s by every process of root%s", trust.PolicyPath,
		who).Hint = hint
}

// hostRegistries lints the effective registries.d files. The error says that some could not be read.
func (r *runner) hostRegistries() (*registries, error) {
	var files []file
	var failed error
	for _, dir := range r.view.places.Registries {
		entries, err := hostfs.Root(r.Root).ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(entries) > maxFiles {
			err = fmt.Errorf("holds more than %d files", maxFiles)
		}
		if err != nil {
			r.add("unreadable", place{file: dir}, "%v", err)
			failed = errors.Join(failed, fmt.Errorf("reading %s: %w", dir, err))
			if !r.view.places.Merges {
				break
			}
			continue
		}
		for _, e := range r.registriesEntries(r.Root, dir, entries) {
			if e.readable() {
				files = append(files, e)
			}
			if e.err != nil {
				failed = errors.Join(failed, r.view.unread(&r.linter, e))
			}
		}
		if path.Base(path.Dir(path.Dir(dir))) == ".config" {
			does := "is read before /etc/containers/registries.d: readers before containers-image 5.40, CRI-O up to 1.35 among them, read nothing else"
			if !r.view.places.Merges {
				does = "is read instead of /etc/containers/registries.d"
			}
			r.add("masked-registries-d", place{file: dir}, "%s (%d files)", does, len(files)).Hint = "remove it"
		}
		if !r.view.places.Merges {
			break // the first that exists counts alone
		}
	}
	return r.registries(r.unmasked(files)), failed
}

// namespaced lints the policies that CRI-O takes for single namespaces instead of the system's.
func (r *runner) namespaced(system *policyFacts, regs *registries, dir string) {
	entries, err := hostfs.Root(r.Root).ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.add("unreadable", place{file: dir}, "%v", err)
		return
	}
	for i, e := range entries {
		p := path.Join(dir, e.Name())
		ns, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || i >= maxFiles {
			continue
		}
		data, err := hostfs.Root(r.Root).ReadFile(p, MaxPolicy)
		if err != nil {
			r.add("unreadable", place{file: p}, "%v", err)
			continue
		}
		r.add("namespaced-policy", place{file: p}, "CRI-O uses it alone, instead of the system's policy, for pods in namespace %q", ns)
		r.weaker(system, r.judge(file{path: p, data: data}, regs, keysOfHost(r.Root)), keysOfHost(r.Root))
	}
}

// weaker finds scopes for which the namespaced policy accepts what the system's refuses. CRI-O looks for none.
func (r *runner) weaker(system, namespaced *policyFacts, from keyFiles) {
	if system == nil || system.broken || namespaced.broken {
		return
	}
	read := func(path string) ([]byte, error) { return from.ReadFile(path, maxKeyFile) }
	a, err := compare.Parse(system.data, read, r.now)
	if err != nil {
		return
	}
	b, err := compare.Parse(namespaced.data, read, r.now)
	if err != nil {
		return
	}
	for _, s := range compare.Policies(a, b).Scopes {
		if s.Relation != compare.Weaker && s.Relation != compare.Incomparable || s.Transport != policy.Docker &&
			s.Transport != "" {
			continue
		}
		name := "images that no scope covers"
		if s.Transport != "" {
			name = fmt.Sprintf("scope %q", s.Scope)
		}
		r.add("namespaced-weaker", place{file: namespaced.path, line: namespaced.decides(s.Scope).line},
			"%s: b, this policy, is %s than a, %s (line %d): %s", name, words(s.Relation), system.path,
			system.decides(s.Scope).line, s.Reason)
	}
}

// words are those that go before "than".
func words(r compare.Relation) string {
	if r == compare.Weaker {
		return "weaker"
	}
	return "another one, and no stricter,"
}

// decides returns the scope of the docker transport that is used for what scope names.
func (p *policyFacts) decides(scope string) policyScope {
	for _, name := range policy.Chain(policy.Docker, scope) {
		for _, s := range p.scopes {
			if s.name == name {
				return s
			}
		}
	}
	return p.defaults
}
