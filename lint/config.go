package lint

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/nodetrust/nodetrust/desired"
	"github.com/nodetrust/nodetrust/trust"
)

// trustConfig lints a trust.yaml. Its key files are read relative to it.
func (r *runner) trustConfig(name string, data []byte) {
	cfg, err := trust.Parse(name, data, func(p string) ([]byte, error) {
		if !filepath.IsAbs(p) {
			p = filepath.Join(filepath.Dir(name), p)
		}
		return readFile(p, maxKeyFile)
	})
	if err != nil {
		r.problems(name, err)
		r.loadables = append(r.loadables, loadable{name: name, problem: problemText(err)})
		return
	}
	for _, k := range cfg.Keys {
		switch {
		case k.File != nil:
			r.key(k.File.Binary, name, k.Line, "key "+k.Name)
		case r.Root != "":
			r.policyKeys(&policy{file: name, keys: []policyKey{{path: k.Path, line: k.Line, at: jsonPath("key " + k.Name), gpg: len(k.Fingerprints) > 0}}}, hostSource(r.Root))
		}
	}
	r.trustMeaning(cfg)
	files, err := cfg.Files(r.readers)
	if err != nil {
		r.problems(name, err)
	}
	l := loadable{name: name, config: cfg}
	if files == nil {
		if files, err = cfg.Files(nil); err != nil {
			l.problem = problemText(err)
			r.loadables = append(r.loadables, l)
			return
		}
	}
	r.rendered(&l, files)
	r.loadables = append(r.loadables, l)
}

// rendered fills l with the rendered files without taking over their findings: trust.yaml has its own.
func (r *runner) rendered(l *loadable, files trust.FileSet) {
	quiet := linter{now: r.now}
	p, _ := files.Get(trust.PolicyPath)
	l.policyFile = file{p.Path, p.Data}
	l.policy = quiet.policy(p.Data, p.Path)
	// What a reader lacks is told by Files, with the line of trust.yaml.
	l.policy.features = nil
	l.registries = quiet.registries(registriesOf(files))
}

func registriesOf(files trust.FileSet) []file {
	var out []file
	for _, f := range files.Sorted() {
		if path.Dir(f.Path) == trust.RegistriesDir && strings.HasSuffix(f.Path, ".yaml") {
			out = append(out, file{f.Path, f.Data})
		}
	}
	return out
}

func (r *runner) problems(name string, err error) {
	var ps trust.Problems
	if !errors.As(err, &ps) {
		r.add(Finding{Severity: Error, Code: "trust-config", File: name, Message: err.Error()})
		return
	}
	for _, p := range ps {
		msg := p.Message
		if p.Path != "" {
			msg = p.Path + ": " + msg
		}
		r.add(Finding{Severity: Error, Code: "trust-config", File: p.File, Line: p.Line, Message: msg})
	}
}

// trustMeaning finds what is valid and yet likely not meant.
func (r *runner) trustMeaning(cfg *trust.Config) {
	warn := func(code string, line int, msg, hint string) {
		r.add(Finding{Severity: Warning, Code: code, File: cfg.File, Line: line, Message: msg, Hint: hint})
	}
	rules := map[string]trust.Registry{}
	for _, reg := range cfg.Registries {
		rules[reg.Scope] = reg
	}
	for i, reg := range cfg.Registries {
		at := fmt.Sprintf("spec.registries[%d]", i)
		for _, l := range append([]trust.Location{reg.Location}, locations(reg.Mirrors)...) {
			if strings.HasPrefix(l.Lookaside, "http:") {
				warn("insecure-lookaside", reg.Line, at+": "+l.Lookaside+": http can be changed on its way: an attacker may hide signatures, or offer old ones", "use https")
			}
		}
		if isTagScope(reg.Scope) {
			warn("tag-scope", reg.Line, at+".scope: a pull by digest never matches it, and node runtimes often pull by digest", "name the repository, without the tag")
		}
		if reg.Rule == trust.RuleAccept && reg.Because == "" {
			for _, p := range parents(reg.Scope) {
				if parent, ok := rules[p]; ok {
					if parent.Rule == trust.RuleSigned {
						warn("hole-below-signed", reg.Line, fmt.Sprintf("%s: accepts images without signature below the signed scope %s (line %d)", at, parent.Scope, parent.Line), "say why with because:")
					}
					break
				}
			}
		}
	}
	sides := map[string]bool{}
	for _, c := range cfg.Canaries {
		sides[string(c.Expect)] = true
	}
	if len(sides) < 2 {
		warn("canary-side-missing", 0, "spec.canaries: only an accept-canary and a refuse-canary together prove enforcement: nodes will say Unknown/NoCanary", "")
	}
}

func locations(mirrors []trust.Mirror) []trust.Location {
	out := make([]trust.Location, len(mirrors))
	for i, m := range mirrors {
		out[i] = m.Location
	}
	return out
}

// desired lints the files of a MachineConfig, an Ignition config or a mounted ConfigMap.
func (r *runner) desired(p string) error {
	if _, err := os.Stat(p); err != nil {
		return &InputError{err}
	}
	state, err := desired.Load(p)
	if err != nil {
		r.add(Finding{Severity: Error, Code: "bad-desired", File: p, Message: err.Error()})
		r.loadables = append(r.loadables, loadable{name: p, problem: problemText(err)})
		return nil
	}
	from := filesSource{files: state.Files, host: hostSource(r.Root)}
	var regs *registries
	if files := registriesOf(state.Files); len(files) > 0 {
		regs = r.registries(files)
	}
	found := regs != nil
	for _, f := range state.Files.Sorted() {
		switch dir := path.Dir(f.Path); {
		case f.Path == trust.PolicyPath:
			found = true
			r.onePolicy(file{f.Path, f.Data}, regs, from, false)
			regs = nil
		case dir == trust.RegistriesDir:
			r.ignored(f.Path)
		case dir == namespacedDir && strings.HasSuffix(f.Path, ".json"):
			found = true
			r.onePolicy(file{f.Path, f.Data}, nil, from, false)
		}
	}
	if regs != nil {
		r.loadables = append(r.loadables, loadable{name: p, registries: regs})
	}
	if !found {
		r.add(Finding{Severity: Warning, Code: "nothing-to-judge", File: p, Message: "has no policy.json and no registries.d files"})
	}
	return nil
}
