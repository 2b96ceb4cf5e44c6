package lint

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// checkReaders makes sure that all names are known, before anything is read.
func (r *runner) checkReaders() error {
	var errs []error
	for _, name := range r.Readers {
		reader, err := trust.LookupReader(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.readers = append(r.readers, reader)
	}
	if err := errors.Join(errs...); err != nil {
		return &InputError{err}
	}
	return nil
}

// verdicts says for each reader whether it loads everything that was found, if there is anything to load.
func (r *runner) verdicts() []Reader {
	out := []Reader{}
	if len(r.loadables) == 0 {
		return out
	}
	for i, reader := range r.readers {
		v := Reader{Reader: r.Readers[i], Loads: true}
		if reader.Newer {
			v.Note = reader.Note
		}
		for _, l := range r.loadables {
			if !l.seenBy(r.Readers[i]) {
				continue
			}
			if err := l.loads(reader); err != nil {
				v.Loads, v.Error = false, outside.Text(strings.ReplaceAll(err.Error(), "\n", "; "))
				break
			}
		}
		out = append(out, v)
	}
	return out
}

// loads returns why the reader does not load the files. The word of the library that this program is built with
// counts for itself; an older one loads at most what this one loads, less what it has no support for.
func (l loadable) loads(reader trust.Reader) error {
	if l.problem != "" {
		return errors.New(l.problem)
	}
	if l.config != nil {
		if _, err := l.config.Files([]trust.Reader{reader}); err != nil {
			return err
		}
	}
	if err := l.load(); err != nil {
		return err
	}
	if l.policy == nil {
		return nil
	}
	for _, since := range trust.Features() {
		if line, used := l.policy.features[since.Feature]; used && since.Feature != trust.FeatureWildcard &&
			!reader.Supports(since.Feature) {
			return fmt.Errorf("invalid policy in %q: line %d: %s needs containers-image %s, the reader has %s", l.name, line,
				since.Feature, since.Library, reader.Library)
		}
	}
	return nil
}

// LoadPolicy returns why runtimes don't load a policy.json: the image library's word, or, for transports that this
// program's library lacks, that of a finding.
func LoadPolicy(data []byte, name string) error {
	if err := library.LoadPolicy(data, name); err != nil {
		return err
	}
	l := linter{}
	p := l.policy(file{path: name, data: data})
	if i := slices.IndexFunc(l.findings, func(f Finding) bool { return f.Severity == Error }); p.broken && i >= 0 {
		return fmt.Errorf("invalid policy in %q: line %d: %s", name, l.findings[i].Line, l.findings[i].Message)
	}
	return nil
}

// LoadRegistries returns why runtimes don't load the registries.d files of a set.
func LoadRegistries(files trust.FileSet) error { return loadRegistries(registriesOf(files)) }

func (l loadable) seenBy(reader string) bool {
	return l.readers == nil || slices.Contains(l.readers, reader)
}

// load asks the library about the same bytes that were linted.
func (l loadable) load() error {
	if l.policy != nil {
		if err := library.LoadPolicy(l.policy.data, l.policy.path); err != nil {
			return err
		}
		if l.policy.broken {
			return fmt.Errorf("invalid policy in %q: a transport that this program lacks and runtimes have rejects a scope",
				l.policy.path)
		}
	}
	if l.registries == nil {
		return nil
	}
	if err := loadRegistries(l.registries.files); err != nil {
		return err
	}
	if l.registries.broken {
		return errors.New("a registries.d file was too large to be looked at")
	}
	return nil
}

// silent finds what older readers load and then ignore. Of a trust.yaml nothing of that is rendered for them.
func (r *runner) silent() {
	for i, reader := range r.readers {
		for _, l := range r.loadables {
			if l.config != nil || !l.seenBy(r.Readers[i]) {
				continue
			}
			if l.policy != nil && !reader.Supports(trust.FeatureWildcard) {
				if line, used := l.policy.features[trust.FeatureWildcard]; used {
					r.add("reader-ignores", place{file: l.name, line: line}, "%s loads wildcard scopes and never matches them",
						r.Readers[i])
				}
			}
			if l.registries != nil && !reader.Supports(trust.FeatureLookaside) {
				r.silentLookasides(l.registries, r.Readers[i])
			}
		}
	}
}

func (r *runner) silentLookasides(regs *registries, reader string) {
	for _, scope := range regs.Scopes() {
		e := regs.Docker[scope]
		at := place{file: e.File, line: regs.lineOf(e.File, scope)}
		r.addIf(e.Lookaside != "" && e.SigStore == "", "reader-ignores", at,
			"docker[%q]: %s ignores lookaside: and looks for signatures in /var/lib/containers/sigstore", scope,
			reader).Hint = "write sigstore: with the same URL beside it"
	}
}

// problemText is the first of several problems, without its place.
func problemText(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}
