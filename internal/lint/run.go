package lint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/source"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// CurrentLibrary is the reader that is judged by really loading the files.
const CurrentLibrary = "containers-image-5.42.1"

// Options change what Run looks at.
type Options struct {
	// Root is the root directory of a host: without paths the host is linted, with paths key files are looked up there.
	Root string
	// Readers are asked whether they load the files; none is the current library.
	Readers []string
	// Stdin is read for a path "-", if it isn't nil.
	Stdin io.Reader
	// Now decides which keys have expired.
	Now time.Time
}

// InputError says that something given to Run can't be read or is nothing that can be linted.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }
func (e *InputError) Unwrap() error { return e.Err }

func inputErrorf(format string, args ...any) error { return &InputError{fmt.Errorf(format, args...)} }

// Run lints paths together, or the host below o.Root if there are none. Whatever the files hold, it is a finding; an
// error is an *InputError, or says that linting itself failed.
func Run(paths []string, o Options) (*Report, error) {
	if len(paths) == 0 && o.Root == "" {
		return nil, inputErrorf("nothing to lint: name files, or a host with --root")
	}
	if len(o.Readers) == 0 {
		o.Readers = []string{CurrentLibrary}
	}
	r := &runner{linter: linter{now: o.Now}, Options: o}
	if err := r.checkReaders(); err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		if err := r.host(); err != nil {
			return nil, err
		}
	}
	for _, p := range paths {
		if err := r.path(p); err != nil {
			return nil, err
		}
	}
	r.pathSet()
	r.silent()
	r.advisories(len(paths) == 0)
	return &Report{Findings: r.sorted(), Readers: r.verdicts()}, nil
}

// runner gathers what the paths hold.
type runner struct {
	linter
	Options
	// policies and registryFiles were named as paths, and are looked at together at the end.
	policies      []file
	registryFiles []file
	unread        bool   // what a file of registries.d that was named holds is not known
	confFiles     []file // registries.conf
	crioFiles     []file
	loadables     []loadable
	readers       []trust.Reader // of Options.Readers
	view          *view          // of a host
}

// loadable is a set of files that readers are asked about.
type loadable struct {
	name       string
	policy     *policyFacts // nil if there is none
	registries *registries
	// readers are those that see these files; nil is all.
	readers []string
	// config is the trust config that the files come from, and problem why it has none.
	config  *trust.Config
	problem string
}

// keyFiles is where the files that a policy names are read: a host, or the files of a MachineConfig.
type keyFiles interface {
	// ReadFile's error is fs.ErrNotExist if there surely is no such file, and errUnknowable if that can't be told.
	ReadFile(path string, limit int64) ([]byte, error)
}

var errUnknowable = errors.New("the host is not known")

// unknownHost is a host of which no file is known.
type unknownHost struct{}

func (unknownHost) ReadFile(string, int64) ([]byte, error) { return nil, errUnknowable }

// keysOfHost returns the key files of the host below root; the empty root knows nothing.
func keysOfHost(root string) keyFiles {
	if root == "" {
		return unknownHost{}
	}
	return hostfs.Root(root)
}

// filesOnHost are those of a set, with a host behind it.
type filesOnHost struct {
	files trust.FileSet
	host  keyFiles
}

func (s filesOnHost) ReadFile(p string, limit int64) ([]byte, error) {
	if f, ok := s.files.Get(p); ok {
		return f.Data, nil
	}
	return s.host.ReadFile(p, limit)
}

func (r *runner) path(p string) error {
	fi, err := os.Stat(p)
	switch {
	case p == "-" && r.Stdin != nil:
	case err != nil:
		return &InputError{err}
	case fi.IsDir():
		return r.directory(p)
	}
	in, err := source.Read(p, r.Stdin)
	if err != nil {
		return &InputError{err}
	}
	switch data := in.Data; in.Kind {
	case source.Policy:
		r.policies = append(r.policies, file{path: p, data: data})
	case source.Registries:
		r.registryFiles = append(r.registryFiles, file{path: p, data: data})
	case source.Key:
		r.key(data, place{file: p})
	case source.Trust:
		r.trustConfig(p, data)
	case source.Desired, source.MachineConfig, source.Ignition:
		r.desired(p, data)
	case source.Dump:
		r.dump(p, data)
	case source.RegistriesConf:
		r.confFiles = append(r.confFiles, file{path: p, data: data})
	case source.CRIO:
		r.crioFiles = append(r.crioFiles, file{path: p, data: data})
	default:
		return inputErrorf("%s: is no trust.yaml, policy.json, registries.d file, registries.conf, crio.conf, key file, MachineConfig or Ignition config", p)
	}
	return nil
}

func (r *runner) directory(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "desired.ign")); err == nil {
		state, err := desired.Load(dir)
		r.desiredState(dir, "", state, err)
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return &InputError{err}
	}
	if len(entries) > maxFiles {
		return inputErrorf("%s: holds more than %d files", dir, maxFiles)
	}
	if !r.registriesDir(dir, entries) {
		hint := ""
		if _, err := os.Stat(filepath.Join(dir, "etc/containers")); err == nil {
			hint = " (a host's root directory is given with --root)"
		}
		return inputErrorf("%s: holds no registries.d files (*.yaml) and no desired.ign%s", dir, hint)
	}
	return nil
}

// pathSet lints the policies and registries.d files that were named as paths.
func (r *runner) pathSet() {
	var regs *registries
	if len(r.registryFiles) > 0 {
		regs = r.registries(r.unmasked(r.registryFiles))
		if len(r.policies) == 0 {
			r.loadables = append(r.loadables, loadable{registries: regs})
		}
	}
	r.crio(r.crioFiles)
	entries := r.registryConfs(r.confFiles)
	if r.unread {
		regs = nil
	}
	for _, f := range r.policies {
		r.mirrors(r.onePolicy(f, regs, keysOfHost(r.Root)), regs, entries)
	}
}

// unmasked leaves out files of a base name that an earlier one has.
func (l *linter) unmasked(files []file) []file {
	var out []file
	first := map[string]file{}
	for _, f := range files {
		base := path.Base(filepath.ToSlash(f.path))
		if by, ok := first[base]; ok {
			l.addIf(!bytes.Equal(by.data, f.data), "masked-file", place{file: f.path},
				"is not read: %s has the same name and is read instead", by.path)
			continue
		}
		first[base] = f
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(path.Base(a.path), path.Base(b.path)) })
	return out
}

// judge lints a policy with its keys, and where signatures are looked for, if regs isn't nil.
func (r *runner) judge(f file, regs *registries, from keyFiles) *policyFacts {
	p := r.policy(f)
	r.policyKeys(p, from)
	r.lookups(p, regs)
	return p
}

func (r *runner) onePolicy(f file, regs *registries, from keyFiles) *policyFacts {
	p := r.judge(f, regs, from)
	r.loadables = append(r.loadables, loadable{name: f.path, policy: p, registries: regs})
	return p
}

// policyKeys lints the keys that a policy names. Key files are read once.
func (r *runner) policyKeys(p *policyFacts, from keyFiles) {
	files := map[string]file{}
	for _, k := range p.keys {
		if k.path == "" {
			r.keyData(k, k.data, k.place)
			continue
		}
		res, seen := files[k.path]
		if !seen {
			res.data, res.err = from.ReadFile(k.path, maxKeyFile)
			files[k.path] = res
		}
		switch {
		case errors.Is(res.err, errUnknowable):
		case errors.Is(res.err, fs.ErrNotExist):
			r.add("key-missing", k.place, "there is no %s", k.path)
		case res.err != nil:
			r.add("key-unreadable", k.place, "%v", res.err)
		case !seen:
			r.keyData(k, res.data, place{file: k.path})
		}
	}
}

func (r *runner) keyData(k policyKey, data []byte, at place) {
	f := r.key(data, at)
	if f == nil {
		return
	}
	if gpg := f.Kind == "openpgp"; gpg != k.gpg {
		want := "an OpenPGP key"
		if !k.gpg {
			want = "a PEM public key or certificate"
		}
		r.add("wrong-kind-of-key", at, "holds a key of kind %s, the policy needs %s", f.Kind, want)
	}
}

// lookups checks that readers look for the signatures that the policy asks for.
func (r *runner) lookups(p *policyFacts, regs *registries) {
	if regs == nil || p.broken || regs.broken {
		return
	}
	for _, s := range p.scopes {
		if s.name == "" || !s.signed() || policy.CheckScope(s.name) != nil || p.repeats(s) {
			continue
		}
		lookaside, attachments := regs.serves(s.name)
		r.addIf(s.has(policy.SignedBy) && !lookaside, "no-lookaside", s.place,
			"no registries.d file names a lookaside for it: signatures are looked for in /var/lib/containers/sigstore only")
		r.addIf(s.has(policy.SigstoreSigned) && !attachments, "no-attachments", s.place,
			"registries.d has no use-sigstore-attachments: true for it: every image is refused")
	}
}

// serves reports whether images of the scope have a lookaside and attachments, be it only some of them.
func (r *registries) serves(scope string) (lookaside, attachments bool) {
	_, file, attachments := r.Lookup(policy.Chain(policy.Docker, scope))
	return file != "" || r.lookasideBelow[scope], attachments || r.attachmentsBelow[scope]
}

// above lists the scopes above sections that have what is asked for: a part of such a scope's images is served.
func (r *registries) above(has func(registriesd.Entry) bool) map[string]bool {
	out := map[string]bool{}
	for scope, e := range r.Docker {
		if has(e) {
			for _, p := range policy.Chain(policy.Docker, scope)[1:] {
				out[p] = true
			}
		}
	}
	return out
}
