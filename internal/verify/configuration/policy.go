package configuration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
)

// Where a root process of a host finds its configuration, beside trust.PolicyPath and trust.RegistriesDir, as paths of
// that host.
const (
	vendorPolicy = "/usr/share/containers/policy.json"
)

// readPolicy reads policy.json.
func (c *Configuration) readPolicy() (err error) {
	switch {
	case c.source.AcceptAll:
		c.File = "(none)"
		accept := policy.Document[policy.Requirement]{Default: []policy.Requirement{{Type: policy.InsecureAcceptAnything}}}
		c.Text, err = json.Marshal(accept)
		return err
	case c.source.Files != nil:
		for _, f := range c.source.Files {
			if f.Path == trust.PolicyPath {
				c.File, c.Text = f.Path, f.Data
				return nil
			}
		}
		return fmt.Errorf("the files hold no %s", trust.PolicyPath)
	case c.source.Policy != "":
		c.File = c.source.Policy
		if c.Text, err = bounded.ReadFile(c.File, MaxFile); err != nil {
			return fmt.Errorf("reading policy: %w", err)
		}
		return nil
	}
	return c.readHostPolicy()
}

// readHostPolicy reads ~root's policy.json if there is one, which masks /etc/containers/policy.json, which masks the
// vendor's.
func (c *Configuration) readHostPolicy() error {
	homes, err := c.homes()
	if err != nil {
		return err
	}
	userPolicy := filepath.Join(c.home, policy.HomeFile)
	for _, path := range []string{userPolicy, trust.PolicyPath, vendorPolicy} {
		b, err := c.Host.ReadFile(path, MaxFile)
		switch {
		case c.File != "":
			if err == nil {
				c.Masked = append(c.Masked, Masked{path, c.File})
			}
		case err == nil:
			c.File, c.Text = path, b
		case path == userPolicy && c.source.HiddenHome && errors.Is(err, fs.ErrPermission):
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("reading policy: %w", err)
		}
	}
	if c.File == "" {
		return fmt.Errorf("no policy.json found at any of %s, %s, %s", userPolicy, trust.PolicyPath, vendorPolicy)
	}
	for _, home := range homes[1:] {
		path := filepath.Join(home, policy.HomeFile)
		if _, err := c.Host.ReadFile(path, MaxFile); !errors.Is(err, fs.ErrNotExist) {
			c.Notes = append(c.Notes, fmt.Sprintf("a process that is started with HOME=%s reads %s instead", home, path))
		}
	}
	return nil
}

// homes returns the homes that root's processes may have; the first becomes home.
func (c *Configuration) homes() ([]string, error) {
	homes, err := c.Host.Homes()
	if err != nil && (!c.source.HiddenHome || !errors.Is(err, fs.ErrPermission)) {
		return nil, fmt.Errorf("finding root's home: %w", err)
	}
	c.home = homes[0]
	return homes, nil
}

// keyFile is what a key file held when it was read first.
type keyFile struct {
	data []byte
	err  error
}

// ReadKey reads a key file, once: what a fingerprint was made of is what judges. A *failure.Error says why the file
// can't be used: KeyMissing (not there, or this process may not read it) or KeyUnreadable (no runtime can read it).
func (c *Configuration) ReadKey(path string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.keys[path]
	if !ok {
		k.data, k.err = c.readKeyFile(path)
		c.keys[path] = k
	}
	return k.data, k.err
}

func (c *Configuration) readKeyFile(path string) ([]byte, error) {
	host, name := c.Host, path
	if other, ok := c.source.Keys[path]; ok {
		host, name = hostfs.ThisMachine, other
	}
	data, err := host.ReadFile(name, MaxFile)
	switch {
	case err == nil:
		return key.Public(data), nil
	case errors.Is(err, fs.ErrNotExist):
		err = &failure.Error{Reason: verdict.KeyMissing, Err: fmt.Errorf("key file %s does not exist", name)}
	case errors.Is(err, fs.ErrPermission):
		err = &failure.Error{
			Reason: verdict.KeyMissing, Err: fmt.Errorf("key file %s cannot be read by this process: %w", name, err),
		}
	default:
		err = &failure.Error{Reason: verdict.KeyUnreadable, Err: fmt.Errorf("key file: %w", err)}
	}
	return nil, err
}
