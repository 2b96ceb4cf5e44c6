package configuration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/BurntSushi/toml"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// readRegistriesD reads the registries.d files that go with the policy.
func (c *Configuration) readRegistriesD() (err error) {
	switch {
	case c.source.AcceptAll:
		return nil
	case c.source.Files != nil:
		for _, f := range c.source.Files {
			if registriesd.Is(f.Path, trust.RegistriesDir) {
				c.Files = append(c.Files, registriesd.File{Path: f.Path, Data: f.Data})
			}
		}
		return nil
	case c.source.hostRegistries() && len(c.source.RegistriesD) == 0:
		return c.hostRegistriesD()
	}
	for _, dir := range c.source.RegistriesD {
		if st, err := os.Stat(dir); err != nil {
			return fmt.Errorf("reading registries.d: %w", err)
		} else if !st.IsDir() {
			return fmt.Errorf("reading registries.d: %s is no directory", dir)
		}
	}
	c.dirs = c.source.RegistriesD
	c.Files, err = hostfs.ThisMachine.RegistriesD(c.source.RegistriesD)
	return err
}

// hostRegistriesD reads the host's effective registries.d files. ~root's registries.d replaces the others as a whole,
// as it does for readers before image library 5.40, which all CRI-O up to 1.35 are; without it the directories below
// /etc and /usr/share are merged, a file hiding that of the same base name in a later one.
func (c *Configuration) hostRegistriesD() (err error) {
	if _, err := c.homes(); err != nil {
		return err
	}
	userRegistriesD := filepath.Join(c.home, registriesd.HomeDir)
	dirs := registriesd.Dirs()
	if _, err := c.Host.ReadDir(userRegistriesD); err == nil {
		for _, dir := range dirs {
			if files, err := c.Host.RegistriesD([]string{dir}); err == nil {
				for _, f := range files {
					c.Masked = append(c.Masked, Masked{f.Path, userRegistriesD})
				}
			}
		}
		dirs = []string{userRegistriesD}
	}
	c.dirs, c.in = dirs, c.Host
	if c.Files, err = c.Host.RegistriesD(dirs); err != nil {
		return err
	}
	c.noteRegistriesD()
	return nil
}

// noteRegistriesD says which files are hidden by those of the same base name, and what runtimes with an image library
// before 5.40, or from it on, read otherwise.
func (c *Configuration) noteRegistriesD() {
	for _, dir := range c.dirs {
		entries, _ := c.Host.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			i := slices.IndexFunc(c.Files, func(f registriesd.File) bool { return filepath.Base(f.Path) == e.Name() })
			if i >= 0 && c.Files[i].Path != path {
				c.Masked = append(c.Masked, Masked{path, c.Files[i].Path})
			}
		}
	}
	userRegistriesD := filepath.Join(c.home, registriesd.HomeDir)
	const older, newer = "runtimes with an image library before 5.40 (CRI-O up to 1.35, podman up to 5)",
		"those from 5.40 on (podman 6)"
	if c.dirs[0] == userRegistriesD {
		c.Notes = append(c.Notes, fmt.Sprintf("%s read %s alone, which is told here; %s merge it with the files that it masks", older, userRegistriesD, newer))
	}
	if c.File == vendorPolicy {
		c.Notes = append(c.Notes, fmt.Sprintf("%s don't read %s: they find no policy and pull nothing", older, vendorPolicy))
	}
	for _, f := range c.Files {
		if dir := filepath.Dir(f.Path); dir != trust.RegistriesDir && dir != userRegistriesD {
			c.Notes = append(c.Notes, fmt.Sprintf("%s don't read %s", older, f.Path))
		}
	}
}

// Ignored returns the files in the directories of registries.d whose names end in .yml: nothing reads them.
func (c *Configuration) Ignored() (files []registriesd.File) {
	for _, dir := range c.dirs {
		entries, _ := c.in.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if e.IsDir() || filepath.Ext(path) != ".yml" {
				continue
			}
			if data, err := c.in.ReadFile(path, MaxFile); err == nil {
				files = append(files, registriesd.File{Path: path, Data: data})
			}
		}
	}
	return files
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
	out := registriesd.Config{Default: &registriesd.Entry{}, Docker: make(map[string]registriesd.Entry, len(c.Docker))}
	for scope, e := range c.Docker {
		out.Docker[scope] = move(e)
	}
	if c.Default != nil {
		*out.Default = *c.Default
	}
	if out.Default.URL() == "" {
		out.Default.Lookaside = registriesd.DefaultLookaside
	}
	*out.Default = move(*out.Default)
	return out
}

// copyRegistriesConf makes the library's registries.conf: the one that was asked for, or the host's with its drop-ins.
func (c *Configuration) copyRegistriesConf() error {
	to := filepath.Join(c.Temp, "registries.conf")
	switch {
	case c.source.RegistriesConf != "":
		data, err := bounded.ReadFile(c.source.RegistriesConf, MaxFile)
		if err != nil {
			return fmt.Errorf("reading registries.conf: %w", err)
		}
		c.RegistriesConf = c.source.RegistriesConf
		return writeRegistriesConf(to, data)
	case !c.source.hostRegistries():
		return os.WriteFile(to, nil, 0o600)
	}
	if _, err := c.homes(); err != nil {
		return err
	}
	main, dropIns := c.Host.RegistriesConf(c.home)
	if main.Err != nil {
		return main.Err
	}
	c.RegistriesConf = main.Path
	if err := writeRegistriesConf(to, main.Data); err != nil {
		return err
	}
	for _, f := range dropIns {
		if f.Err != nil {
			return f.Err
		}
		copied := filepath.Join(c.Temp, "registries.conf.d", filepath.Base(f.Path))
		if err := writeRegistriesConf(copied, f.Data); err != nil {
			return err
		}
		c.copies = append(c.copies, copied, f.Path)
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
func (c *Configuration) linkCerts() error {
	if !c.source.hostRegistries() && c.Host.IsThisMachine() {
		return nil
	}
	for _, dir := range []string{"/etc/containers/certs.d", "/etc/docker/certs.d"} {
		entries, err := c.Host.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			real, err := c.Host.Real(filepath.Join(dir, e.Name()))
			if err != nil {
				continue
			}
			if real, err = filepath.Abs(real); err != nil {
				return err
			}
			if err := os.Symlink(real, filepath.Join(c.Temp, "certs.d", e.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}
