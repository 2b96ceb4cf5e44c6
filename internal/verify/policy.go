package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/BurntSushi/toml"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// Where a root process of a host finds its configuration, as paths of that host.
const (
	etcPolicy       = "/etc/containers/policy.json"
	homePolicy      = policy.HomeFile // below root's home, as homeRegistriesD
	vendorPolicy    = "/usr/share/containers/policy.json"
	etcRegistriesD  = "/etc/containers/registries.d"
	homeRegistriesD = registriesd.HomeDir
)

// InvalidError says that a policy.json, a registries.d directory or a registries.conf doesn't load: a runtime that
// reads it can pull nothing.
type InvalidError struct {
	// Reason is PolicyInvalid or RegistriesDInvalid.
	Reason verdict.Reason
	Err    error
}

func (e *InvalidError) Error() string { return e.Err.Error() }
func (e *InvalidError) Unwrap() error { return e.Err }

// ErrNoTemp says that a policy can't be opened for want of a temporary directory; it is not the policy's fault.
var ErrNoTemp = errors.New("making a temporary directory")

// Source says where a policy is: of Policy, Files and AcceptAll at most one is given. The zero value is the policy
// that a root process of this machine works under.
type Source struct {
	// Root is the root directory of the host whose policy is judged: key files, file: lookasides and certs.d are read
	// below it. Empty or "/" is this machine.
	Root string
	// Policy is a policy.json of this machine that replaces the host's. RegistriesD are the registries.d directories of
	// this machine that go with it, the first of the highest priority. Without any, those of the host below Root are
	// read; without Root no lookaside is configured.
	Policy      string
	RegistriesD []string
	// Files are policy.json and registries.d of a file set, which may be on no host yet.
	Files trust.FileSet
	// AcceptAll is a policy for reading images that are judged by something else than a policy.json: it accepts
	// everything and configures no lookaside.
	AcceptAll bool
	// RegistriesConf is a registries.conf of this machine that replaces the host's. Without it, the host's is read
	// (with registries.conf.d) but for Policy and Files without Root.
	RegistriesConf string
	// Keys maps paths of key files, as written in policy.json, to files of this machine that are read instead.
	Keys map[string]string
	// HiddenHome goes on where root's home may not be looked into, as if nothing were there: for a caller that learns
	// from somebody else whether a file there masks the host's. Else that is PolicyInvalid.
	HiddenHome bool
}

// hostRegistries is true if registries.conf and certs.d of the host count.
func (s Source) hostRegistries() bool {
	return s.Root != "" || s.AcceptAll || s.Policy == "" && s.Files == nil
}

// maxConfigFile bounds policy.json, registries.conf and a key file, in bytes.
const maxConfigFile = 4 << 20

// Masked is a file that isn't read because of another, or of a directory.
type Masked struct {
	Path string `json:"path"`
	By   string `json:"by"`
}

// Policy is a policy.json that the image library accepts, with the registries.d files, registries.conf and keys that
// belong to it. It is read once: later changes of the files are not seen. It may be used by several goroutines. Close
// it after use.
type Policy struct {
	// File is where policy.json was read, as the host sees it.
	File string
	// Masked are files that the host has in places which File or RegistriesD hide. Notes say where runtimes of another
	// version than nodetrust goes by read other files than these. Both are for explaining only.
	Masked []Masked
	Notes  []string
	// RegistriesD are the effective files, and RegistriesConf the registries.conf; "" if there is none.
	RegistriesD    []string
	RegistriesConf string

	source     Source
	host       hostfs.Root
	home       string // root's on the host
	library    *signature.Policy
	doc        *policy.Document[policy.Requirement]
	registries registriesd.Config
	// registriesFiles are what registries was made of, and registriesDirs where they were read, for explaining.
	registriesFiles []registriesd.File
	registriesDirs  []string
	registriesHost  hostfs.Root
	confCopies      []string // of drop-ins of registries.conf, each with its path on the host
	tmp             string   // holds the copies that the library reads; untmp removes it
	untmp           func() error
	sys             types.SystemContext
	keyrings        string // where the library makes its gpg keyrings, if the process has a directory for them
	keys            *mechanism.Keyrings
	warm            chan struct{} // closed when gpgme has found its engines
	restoreTempDir  func()
	late            atomic.Bool // something goes on that was not waited for

	mu       sync.Mutex
	sections map[string]*section // by transport and scope

	keyFilesMu sync.Mutex
	keyFiles   map[string]keyFile // by path as policy.json has it
}

// keyFile is what a key file held when it was read first.
type keyFile struct {
	data []byte
	err  error
}

// Open reads a policy with all that belongs to it. An *InvalidError says that it doesn't load; ErrNoTemp that there is
// no room for it here. With an Env of TakeEnv it clears variables of the process that would change what the image
// library reads, and gives the process a temporary directory of its own until Close: of such policies only one may be
// open at a time.
func Open(s Source, env Env) (*Policy, error) {
	isolate()
	if s.RegistriesConf == "" {
		s.RegistriesConf = env.RegistriesConf
	}
	p := &Policy{source: s, host: hostfs.Root(s.Root)}
	data, err := p.readPolicy()
	if err != nil {
		return nil, &InvalidError{verdict.PolicyInvalid, err}
	}
	files, err := p.readRegistriesD()
	if err != nil {
		return nil, &InvalidError{verdict.RegistriesDInvalid, err}
	}
	if err := p.open(data, files); err != nil {
		return nil, err
	}
	if env.taken {
		if err := p.usePrivateTempDir(); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// readPolicy reads policy.json.
func (p *Policy) readPolicy() ([]byte, error) {
	switch {
	case p.source.AcceptAll:
		p.File = "(none)"
		accept := policy.Document[policy.Requirement]{Default: []policy.Requirement{{Type: policy.InsecureAcceptAnything}}}
		return json.Marshal(accept)
	case p.source.Files != nil:
		for _, f := range p.source.Files {
			if f.Path == etcPolicy {
				p.File = f.Path
				return f.Data, nil
			}
		}
		return nil, fmt.Errorf("the files hold no %s", etcPolicy)
	case p.source.Policy != "":
		p.File = p.source.Policy
		data, err := bounded.ReadFile(p.File, maxConfigFile)
		if err != nil {
			return nil, fmt.Errorf("reading policy: %w", err)
		}
		return data, nil
	}
	return p.readHostPolicy()
}

// readHostPolicy reads ~root's policy.json if there is one, which masks /etc/containers/policy.json, which masks the
// vendor's.
func (p *Policy) readHostPolicy() (data []byte, err error) {
	homes, err := p.homes()
	if err != nil {
		return nil, err
	}
	userPolicy := filepath.Join(p.home, homePolicy)
	for _, path := range []string{userPolicy, etcPolicy, vendorPolicy} {
		b, err := p.host.ReadFile(path, maxConfigFile)
		switch {
		case p.File != "":
			if err == nil {
				p.Masked = append(p.Masked, Masked{path, p.File})
			}
		case err == nil:
			p.File, data = path, b
		case path == userPolicy && p.source.HiddenHome && errors.Is(err, fs.ErrPermission):
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("reading policy: %w", err)
		}
	}
	if p.File == "" {
		return nil, fmt.Errorf("no policy.json found at any of %s, %s, %s", userPolicy, etcPolicy, vendorPolicy)
	}
	for _, home := range homes[1:] {
		path := filepath.Join(home, homePolicy)
		if _, err := p.host.ReadFile(path, maxConfigFile); !errors.Is(err, fs.ErrNotExist) {
			p.Notes = append(p.Notes, fmt.Sprintf("a process that is started with HOME=%s reads %s instead", home, path))
		}
	}
	return data, nil
}

// homes are those that root's processes may have; the first becomes home.
func (p *Policy) homes() ([]string, error) {
	homes, err := p.host.Homes()
	if err != nil && (!p.source.HiddenHome || !errors.Is(err, fs.ErrPermission)) {
		return nil, fmt.Errorf("finding root's home: %w", err)
	}
	p.home = homes[0]
	return homes, nil
}

// readRegistriesD reads the registries.d files that go with the policy.
func (p *Policy) readRegistriesD() (files []registriesd.File, err error) {
	switch {
	case p.source.AcceptAll:
		return nil, nil
	case p.source.Files != nil:
		for _, f := range p.source.Files {
			if filepath.Dir(f.Path) == etcRegistriesD && filepath.Ext(f.Path) == ".yaml" {
				files = append(files, registriesd.File{Path: f.Path, Data: f.Data})
			}
		}
		return files, nil
	case p.source.hostRegistries() && len(p.source.RegistriesD) == 0:
		return p.hostRegistriesD()
	}
	for _, dir := range p.source.RegistriesD {
		if st, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("reading registries.d: %w", err)
		} else if !st.IsDir() {
			return nil, fmt.Errorf("reading registries.d: %s is no directory", dir)
		}
	}
	p.registriesDirs = p.source.RegistriesD
	return hostfs.ThisMachine.RegistriesD(p.source.RegistriesD)
}

// hostRegistriesD reads the host's effective registries.d files. ~root's registries.d replaces the others as a whole,
// as it does for readers before image library 5.40, which all CRI-O up to 1.35 are; without it the directories below
// /etc and /usr/share are merged, a file hiding that of the same base name in a later one.
func (p *Policy) hostRegistriesD() ([]registriesd.File, error) {
	if _, err := p.homes(); err != nil {
		return nil, err
	}
	userRegistriesD := filepath.Join(p.home, homeRegistriesD)
	dirs := registriesd.Dirs()
	if _, err := p.host.ReadDir(userRegistriesD); err == nil {
		for _, dir := range dirs {
			if files, err := p.host.RegistriesD([]string{dir}); err == nil {
				for _, f := range files {
					p.Masked = append(p.Masked, Masked{f.Path, userRegistriesD})
				}
			}
		}
		dirs = []string{userRegistriesD}
	}
	p.registriesDirs, p.registriesHost = dirs, p.host
	files, err := p.host.RegistriesD(dirs)
	if err != nil {
		return nil, err
	}
	p.noteRegistriesD(files)
	return files, nil
}

// noteRegistriesD says which files are hidden by those of the same base name, and what runtimes with an image library
// before 5.40, or from it on, read otherwise.
func (p *Policy) noteRegistriesD(files []registriesd.File) {
	for _, dir := range p.registriesDirs {
		entries, _ := p.host.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			i := slices.IndexFunc(files, func(f registriesd.File) bool { return filepath.Base(f.Path) == e.Name() })
			if i >= 0 && files[i].Path != path {
				p.Masked = append(p.Masked, Masked{path, files[i].Path})
			}
		}
	}
	userRegistriesD := filepath.Join(p.home, homeRegistriesD)
	const older, newer = "runtimes with an image library before 5.40 (CRI-O up to 1.35, podman up to 5)",
		"those from 5.40 on (podman 6)"
	if p.registriesDirs[0] == userRegistriesD {
		p.Notes = append(p.Notes, fmt.Sprintf("%s read %s alone, which is told here; %s merge it with the files that it masks", older, userRegistriesD, newer))
	}
	if p.File == vendorPolicy {
		p.Notes = append(p.Notes, fmt.Sprintf("%s don't read %s: they find no policy and pull nothing", older, vendorPolicy))
	}
	for _, f := range files {
		if dir := filepath.Dir(f.Path); dir != etcRegistriesD && dir != userRegistriesD {
			p.Notes = append(p.Notes, fmt.Sprintf("%s don't read %s", older, f.Path))
		}
	}
}

// Close removes the temporary copies. What is under way with them may take a moment to end, and is left alone then.
func (p *Policy) Close() error {
	select {
	case <-p.warm:
	case <-time.After(mechanism.CloseTimeout):
		p.late.Store(true)
	}
	if ended := p.keys.Close(); !ended || p.late.Load() {
		mechanism.EndStragglers(p.keyrings)
	}
	if p.restoreTempDir != nil {
		p.restoreTempDir()
	}
	return p.untmp()
}

func (p *Policy) open(data []byte, files []registriesd.File) (err error) {
	p.library, err = signature.NewPolicyFromBytes(data)
	if err != nil {
		return &InvalidError{verdict.PolicyInvalid, fmt.Errorf("invalid policy in %q: %w", p.File, err)}
	}
	// The library has accepted it, so it is strict JSON without duplicates.
	if p.doc, err = policy.Read(data); err != nil {
		return &InvalidError{verdict.PolicyInvalid, fmt.Errorf("invalid policy in %q: %w", p.File, err)}
	}
	p.sections, p.keyFiles = map[string]*section{}, map[string]keyFile{}
	p.keys = mechanism.NewKeyrings(func() (stop func()) { return mechanism.WithoutAgents(p.keyrings) })
	p.warm = make(chan struct{})
	go func() {
		defer close(p.warm)
		if bytes.Contains(data, []byte(policy.SignedBy)) {
			mechanism.WarmUp()
		}
	}()
	defer func() {
		if err != nil {
			<-p.warm
		}
	}()

	if p.tmp, p.untmp, err = scratch(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoTemp, err)
	}
	defer func() {
		if err != nil {
			_ = p.untmp()
		}
	}()
	for _, dir := range []string{"registries.d", "merged.d", "registries.conf.d", "certs.d"} {
		if err := os.Mkdir(filepath.Join(p.tmp, dir), 0o700); err != nil {
			return err
		}
	}
	if err := library.LoadIn(filepath.Join(p.tmp, "registries.d"), files); err != nil {
		return &InvalidError{verdict.RegistriesDInvalid, err}
	}
	if p.registries, err = registriesd.Merge(files); err != nil {
		return &InvalidError{verdict.RegistriesDInvalid, err}
	}
	p.registriesFiles = files
	for _, f := range files {
		p.RegistriesD = append(p.RegistriesD, f.Path)
	}
	merged, err := below(p.host, p.registries).YAML()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.tmp, "merged.d", "merged.yaml"), merged, 0o600); err != nil {
		return err
	}
	if err := p.copyRegistriesConf(); err != nil {
		return &InvalidError{verdict.RegistriesDInvalid, err}
	}
	if err := os.WriteFile(filepath.Join(p.tmp, "auth.json"), []byte("{}"), 0o600); err != nil {
		return err
	}
	p.sys = types.SystemContext{
		SignaturePolicyPath:         "/dev/null", // never read: policies are passed as values
		RegistriesDirPath:           filepath.Join(p.tmp, "merged.d"),
		SystemRegistriesConfPath:    filepath.Join(p.tmp, "registries.conf"),
		SystemRegistriesConfDirPath: filepath.Join(p.tmp, "registries.conf.d"),
		AuthFilePath:                filepath.Join(p.tmp, "auth.json"),
		DockerPerHostCertDirPath:    filepath.Join(p.tmp, "certs.d"),
		DockerRegistryUserAgent:     "nodetrust",
	}
	if _, err := sysregistriesv2.TryUpdatingCache(&p.sys); err != nil {
		err = fmt.Errorf("loading registries.conf: %w", err)
		return &InvalidError{verdict.RegistriesDInvalid, registriesd.Replace(err,
			append(p.confCopies, p.sys.SystemRegistriesConfPath, p.RegistriesConf)...)}
	}
	return p.linkCerts()
}

// below returns a copy for the library in which the host's file: lookasides, the built-in default among them, are
// where they lie on this machine. The default is spelled out always, because the library would take another one for
// users that are not root, and nodes pull as root.
func below(host hostfs.Root, c registriesd.Config) registriesd.Config {
	move := func(e registriesd.Entry) registriesd.Entry {
		return registriesd.Entry{
			Lookaside: host.URL(e.Lookaside), SigStore: host.URL(e.SigStore), Attachments: e.Attachments,
		}
	}
	out := registriesd.Config{Docker: make(map[string]registriesd.Entry, len(c.Docker))}
	for scope, e := range c.Docker {
		out.Docker[scope] = move(e)
	}
	var def registriesd.Entry
	if c.Default != nil {
		def = *c.Default
	}
	if def.URL() == "" {
		def.Lookaside = registriesd.DefaultLookaside
	}
	def = move(def)
	out.Default = &def
	return out
}

// copyRegistriesConf makes the library's registries.conf: the one that was asked for, or the host's with its drop-ins.
func (p *Policy) copyRegistriesConf() error {
	to := filepath.Join(p.tmp, "registries.conf")
	switch {
	case p.source.RegistriesConf != "":
		data, err := bounded.ReadFile(p.source.RegistriesConf, maxConfigFile)
		if err != nil {
			return fmt.Errorf("reading registries.conf: %w", err)
		}
		p.RegistriesConf = p.source.RegistriesConf
		return writeRegistriesConf(to, data)
	case !p.source.hostRegistries():
		return os.WriteFile(to, nil, 0o600)
	}
	if _, err := p.homes(); err != nil {
		return err
	}
	main, dropIns := p.host.RegistriesConf(p.home)
	if main.Err != nil {
		return main.Err
	}
	p.RegistriesConf = main.Path
	if err := writeRegistriesConf(to, main.Data); err != nil {
		return err
	}
	for _, f := range dropIns {
		if f.Err != nil {
			return f.Err
		}
		copied := filepath.Join(p.tmp, "registries.conf.d", filepath.Base(f.Path))
		if err := writeRegistriesConf(copied, f.Data); err != nil {
			return err
		}
		p.confCopies = append(p.confCopies, copied, f.Path)
	}
	return nil
}

// writeRegistriesConf copies a registries.conf without the keys that make the library run programs: judging a host must
// not execute what its files name, and credentials come from the caller's file only. What doesn't parse is copied as it
// is, for the library to complain about.
func writeRegistriesConf(to string, data []byte) error {
	const layerStore, credentials = "additional-layer-store-auth-helper", "credential-helpers"
	if bytes.Contains(data, []byte(layerStore)) || bytes.Contains(data, []byte(credentials)) {
		var doc map[string]any
		if toml.Unmarshal(data, &doc) == nil {
			delete(doc, layerStore)
			delete(doc, credentials)
			var out bytes.Buffer
			if err := toml.NewEncoder(&out).Encode(doc); err != nil {
				return err
			}
			data = out.Bytes()
		}
	}
	return os.WriteFile(to, data, 0o600)
}

// linkCerts makes one certs.d directory out of the host's two, the first one that has a directory for a registry.
func (p *Policy) linkCerts() error {
	if !p.source.hostRegistries() && p.host.IsThisMachine() {
		return nil
	}
	for _, dir := range []string{"/etc/containers/certs.d", "/etc/docker/certs.d"} {
		entries, err := p.host.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			real, err := p.host.Real(filepath.Join(dir, e.Name()))
			if err != nil {
				continue
			}
			if real, err = filepath.Abs(real); err != nil {
				return err
			}
			if err := os.Symlink(real, filepath.Join(p.tmp, "certs.d", e.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// Invalid is the verdict on an image under a policy that doesn't load.
func Invalid(image string, err *InvalidError) verdict.Verdict {
	return verdict.Verdict{
		Image:     strings.TrimPrefix(image, "docker://"),
		Outcome:   verdict.Outcome{Answer: verdict.Unknown, Reason: err.Reason, Message: err.Error(), Hint: hint(err.Reason)},
		Mechanism: mechanism.Name,
	}
}

// LoadPolicy asks the image library whether a policy.json with this content loads. Nil means that a runtime with this
// library reads the file; it says nothing of the keys that the policy names. file is named in the error.
func LoadPolicy(data []byte, file string) error {
	if _, err := signature.NewPolicyFromBytes(data); err != nil {
		return fmt.Errorf("invalid policy in %q: %w", file, err)
	}
	return nil
}
