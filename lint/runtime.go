package lint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/nodetrust/nodetrust/verify"
)

// unitDirs hold systemd units and, below NAME.d, their drop-ins.
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// environmentFiles set variables for whole systems or for CRI-O without a unit that says so.
var environmentFiles = []string{"/etc/environment", "/etc/sysconfig/crio", "/etc/default/crio", "/etc/sysconfig/crio-network", "/etc/sysconfig/crio-storage"}

// maskingVariables make a reader take its files from elsewhere. The last two count only for the runtimes' own units: others
// may have a home of their own.
var maskingVariables = []string{"CONTAINERS_POLICY_JSON", "XDG_CONFIG_HOME", "HOME"}

const maxUnit = 256 << 10

// environment finds what makes the runtime read another policy.json than the host's.
func (r *runner) environment() {
	seen := map[string]bool{} // /lib is often a link to /usr/lib
	for _, dir := range unitDirs {
		entries, err := verify.ReadHostDir(r.Root, dir)
		if err != nil {
			r.skipped(dir, err)
			continue
		}
		for i, e := range entries {
			name, p := e.Name(), path.Join(dir, e.Name())
			switch {
			case i >= maxFiles:
			case strings.HasSuffix(name, ".service"):
				r.unit(p, name, seen)
			case strings.HasSuffix(name, ".service.d"):
				r.dropIns(p, strings.TrimSuffix(name, ".d"), seen)
			}
		}
	}
	for _, p := range environmentFiles {
		data, err := verify.ReadHostFile(r.Root, p, maxUnit)
		if err != nil {
			r.skipped(p, err)
			continue
		}
		for i, line := range strings.Split(string(data), "\n") {
			r.assignment(p, i+1, line, strings.HasSuffix(p, "/crio"))
		}
	}
}

// skipped says that something could not be looked at. What isn't there sets no variable.
func (r *runner) skipped(p string, err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		r.add(Finding{Severity: Warning, Code: "unit-unreadable", File: p, Message: fmt.Sprintf("whether it makes the runtime read another policy.json can't be told: %v", err)})
	}
}

func (r *runner) dropIns(dir, unit string, seen map[string]bool) {
	entries, err := verify.ReadHostDir(r.Root, dir)
	if err != nil {
		r.skipped(dir, err)
		return
	}
	for i, e := range entries {
		if i < maxFiles && strings.HasSuffix(e.Name(), ".conf") {
			r.unit(path.Join(dir, e.Name()), unit, seen)
		}
	}
}

// unit looks at the Environment= lines of one file.
func (r *runner) unit(p, unit string, seen map[string]bool) {
	id := strings.TrimPrefix(p, "/usr")
	if seen[id] {
		return
	}
	seen[id] = true
	if to, err := os.Readlink(filepath.Join(r.Root, p)); err == nil && to == os.DevNull {
		return // masked
	}
	data, err := verify.ReadHostFile(r.Root, p, maxUnit)
	if err != nil {
		r.skipped(p, err)
		return
	}
	runtime := slices.Contains([]string{"crio.service", "podman.service", "kubelet.service"}, unit)
	continued := false
	for i, line := range strings.Split(string(data), "\n") {
		text := strings.TrimSpace(line)
		value, ok := strings.CutPrefix(text, "Environment=")
		if ok || continued {
			if !ok {
				value = text
			}
			for _, word := range strings.Fields(strings.TrimSuffix(value, `\`)) {
				r.assignment(p, i+1, strings.Trim(word, `"'`), runtime)
			}
			continued = strings.HasSuffix(text, `\`)
		}
	}
}

// assignment looks at NAME=VALUE.
func (r *runner) assignment(file string, line int, text string, runtime bool) {
	text = strings.TrimPrefix(strings.TrimSpace(text), "export ")
	name, _, ok := strings.Cut(text, "=")
	if !ok || !slices.Contains(maskingVariables, name) || name != maskingVariables[0] && !runtime {
		return
	}
	r.add(Finding{
		Severity: Error, Code: "policy-environment", File: file, Line: line,
		Message: "sets " + name + ": who runs with it does not read " + policyPaths[1] + " but what it points to",
		Hint:    "remove it, or lint the file it names",
	})
}

// Where registries.conf lies on a host, first found, and its drop-ins.
var (
	registriesConfs    = []string{"/etc/containers/registries.conf", "/usr/share/containers/registries.conf"}
	registriesConfDirs = []string{"/usr/share/containers/registries.conf.d", "/etc/containers/registries.conf.d"}
)

// registryMirrors is an entry of registries.conf.
type registryMirrors struct {
	Prefix   string `toml:"prefix"`
	Location string `toml:"location"`
	Mirror   []struct {
		Location string `toml:"location"`
	} `toml:"mirror"`

	file string
	data string
}

// mirrors finds signed scopes of the host whose images come from mirrors that no registries.d file knows: signatures are looked
// for where an image really comes from.
func (r *runner) mirrors(p *policy, regs *registries) {
	withURL := regs.above(func(e registryEntry) bool { return e.url() != "" })
	withAttachments := regs.above(func(e registryEntry) bool { return e.Attachments != nil && *e.Attachments })
	entries := r.registriesConf()
	for _, prefix := range sortedKeys(entries) {
		e := entries[prefix]
		for _, s := range p.scopes {
			if s.name == "" || !s.signed() {
				continue
			}
			rest, below := strings.CutPrefix(s.name, prefix)
			below = below && (rest == "" || strings.ContainsAny(rest[:1], "/:@"))
			above := slices.Contains(parents(prefix), s.name)
			if !below && !above {
				continue
			}
			if above {
				rest = ""
			}
			for _, m := range e.Mirror {
				r.mirror(e, s, m.Location, rest, regs, withURL, withAttachments)
			}
		}
	}
}

func (r *runner) mirror(e registryMirrors, s policyScope, location, rest string, regs *registries, withURL, withAttachments map[string]bool) {
	if location == "" {
		return
	}
	physical := location + rest
	lookaside, attachments := regs.lookup(physical)
	warn := func(code, lacks string) {
		r.add(Finding{
			Severity: Warning, Code: code, File: e.file, Line: lineOf(e.data, location),
			Message: fmt.Sprintf("mirror %s of the signed scope %q: no registries.d file %s for it: what is pulled from it is refused", physical, s.name, lacks),
			Hint:    "signatures are looked for at the mirror, never at the registry that it mirrors",
		})
	}
	if s.has("signedBy") && !lookaside && !withURL[physical] {
		warn("mirror-no-lookaside", "names a lookaside")
	}
	if s.has("sigstoreSigned") && !attachments && !withAttachments[physical] {
		warn("mirror-no-attachments", "has use-sigstore-attachments: true")
	}
}

// lineOf is the line of the quoted text, 0 if it isn't there as such.
func lineOf(data, text string) int {
	for i, line := range strings.Split(data, "\n") {
		if strings.Contains(line, `"`+text+`"`) || strings.Contains(line, "'"+text+"'") {
			return i + 1
		}
	}
	return 0
}

// registriesConf returns the entries of the host's registries.conf by prefix: those of a later file replace those before.
func (r *runner) registriesConf() map[string]registryMirrors {
	var files []string
	for _, p := range registriesConfs {
		if _, err := verify.ReadHostFile(r.Root, p, maxRegistries); !errors.Is(err, fs.ErrNotExist) {
			files = append(files, p)
			break
		}
	}
	for _, dir := range registriesConfDirs {
		entries, err := verify.ReadHostDir(r.Root, dir)
		if err != nil {
			continue
		}
		for i, e := range entries {
			if i < maxFiles && strings.HasSuffix(e.Name(), ".conf") {
				files = append(files, path.Join(dir, e.Name()))
			}
		}
	}
	out := map[string]registryMirrors{}
	for _, p := range files {
		data, err := verify.ReadHostFile(r.Root, p, maxRegistries)
		var conf struct {
			Registry []registryMirrors `toml:"registry"`
		}
		if err == nil {
			err = toml.Unmarshal(data, &conf)
		}
		if err != nil {
			r.add(Finding{Severity: Warning, Code: "registries-conf", File: p, Message: fmt.Sprintf("which mirrors it names can't be told: %v", err)})
			continue
		}
		for _, e := range conf.Registry {
			prefix := e.Prefix
			if prefix == "" {
				prefix = e.Location
			}
			if prefix != "" {
				e.file, e.data = p, string(data)
				out[prefix] = e
			}
		}
	}
	return out
}
