// Package configuration reads the policy.json that a root process of a host works under, with registries.d,
// registries.conf, certificates and keys, and copies them to where the image library reads nothing else.
package configuration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/library"
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

// ErrNoTemp says that a policy can't be opened for want of a temporary directory; the policy is not at fault.
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

// hostRegistries reports whether registries.conf and certs.d of the host count.
func (s Source) hostRegistries() bool {
	return s.Root != "" || s.AcceptAll || s.Policy == "" && s.Files == nil
}

// MaxFile bounds policy.json, registries.conf and a key file, in bytes.
const MaxFile = 4 << 20

// Masked is a file that isn't read because of another, or of a directory.
type Masked struct {
	Path string `json:"path"`
	By   string `json:"by"`
}

// Configuration is a policy.json that the image library accepts, with the registries.d files, registries.conf and keys
// that belong to it. The files are read once: later changes are not seen. A Configuration may be used by several
// goroutines. Close it after use.
type Configuration struct {
	// File is where policy.json was read, as the host sees it.
	File string
	// Masked are files that the host has in places which File or RegistriesD hide. Notes say where runtimes of another
	// version than nodetrust goes by read other files than these. Both are for explaining only.
	Masked []Masked
	Notes  []string
	// RegistriesD are the effective files, and RegistriesConf the registries.conf; "" if there is none.
	RegistriesD    []string
	RegistriesConf string

	// Host is the root directory of the host.
	Host hostfs.Root
	// Text is policy.json, Library the library's form of it, and Document the one that the library keeps to itself.
	Text     []byte
	Library  *signature.Policy
	Document *policy.Document[policy.Requirement]
	// Registries is what the effective registries.d files, Files, say together.
	Registries registriesd.Config
	Files      []registriesd.File
	// Temp is a directory for copies, and System has the library read these copies.
	Temp   string
	System types.SystemContext

	source Source
	home   string // root's, on the host
	dirs   []string
	in     hostfs.Root // where dirs are
	copies []string    // of drop-ins of registries.conf, each with its path on the host
	remove func() error

	mu   sync.Mutex
	keys map[string]keyFile // by path as policy.json has it
}

// Open reads a policy with all that belongs to it. An *InvalidError says that something doesn't load; ErrNoTemp that
// there is no room here.
func Open(s Source) (*Configuration, error) {
	c := &Configuration{source: s, Host: hostfs.Root(s.Root), keys: map[string]keyFile{}}
	if err := c.readPolicy(); err != nil {
		return nil, &InvalidError{verdict.PolicyInvalid, err}
	}
	if err := c.readRegistriesD(); err != nil {
		return nil, &InvalidError{verdict.RegistriesDInvalid, err}
	}
	var err error
	if c.Library, err = library.ParsePolicy(c.Text, c.File); err != nil {
		return nil, &InvalidError{verdict.PolicyInvalid, err}
	}
	// The library has accepted the text, so it is strict JSON without duplicates.
	if c.Document, err = policy.Read(c.Text); err != nil {
		return nil, &InvalidError{verdict.PolicyInvalid, fmt.Errorf("invalid policy in %q: %w", c.File, err)}
	}
	if c.Temp, c.remove, err = scratch(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTemp, err)
	}
	if err := c.copy(); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Close removes the copies.
func (c *Configuration) Close() error { return c.remove() }

// copy makes the files below Temp, and has the library load them.
func (c *Configuration) copy() (err error) {
	at := func(name string) string { return filepath.Join(c.Temp, name) }
	for _, dir := range []string{"registries.d", "merged.d", "registries.conf.d", "certs.d"} {
		if err := os.Mkdir(at(dir), 0o700); err != nil {
			return err
		}
	}
	if err := library.LoadIn(at("registries.d"), c.Files); err != nil {
		return &InvalidError{verdict.RegistriesDInvalid, err}
	}
	if c.Registries, err = registriesd.Merge(c.Files); err != nil {
		return &InvalidError{verdict.RegistriesDInvalid, err}
	}
	for _, f := range c.Files {
		c.RegistriesD = append(c.RegistriesD, f.Path)
	}
	merged, err := below(c.Host, c.Registries).YAML()
	if err != nil {
		return err
	}
	if err := os.WriteFile(at("merged.d/merged.yaml"), merged, 0o600); err != nil {
		return err
	}
	if err := c.copyRegistriesConf(); err != nil {
		return &InvalidError{verdict.RegistriesDInvalid, err}
	}
	if err := os.WriteFile(at("auth.json"), []byte("{}"), 0o600); err != nil {
		return err
	}
	c.System = types.SystemContext{
		SignaturePolicyPath:         "/dev/null", // never read: policies are passed as values
		RegistriesDirPath:           at("merged.d"),
		SystemRegistriesConfPath:    at("registries.conf"),
		SystemRegistriesConfDirPath: at("registries.conf.d"),
		AuthFilePath:                at("auth.json"),
		DockerPerHostCertDirPath:    at("certs.d"),
		DockerRegistryUserAgent:     "nodetrust",
	}
	if _, err := sysregistriesv2.TryUpdatingCache(&c.System); err != nil {
		err = fmt.Errorf("loading registries.conf: %w", err)
		return &InvalidError{verdict.RegistriesDInvalid, registriesd.Replace(err,
			append(c.copies, c.System.SystemRegistriesConfPath, c.RegistriesConf)...)}
	}
	return c.linkCerts()
}
