package lint

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// unitDirs hold systemd units and, below NAME.d, their drop-ins.
var unitDirs = []string{
	"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
	"/usr/lib/systemd/system", "/lib/systemd/system",
}

// environmentFiles set variables for whole systems or for CRI-O without a unit that says so.
var environmentFiles = []string{
	"/etc/environment", "/etc/sysconfig/crio", "/etc/default/crio",
	"/etc/sysconfig/crio-network", "/etc/sysconfig/crio-storage",
}

// maskingVariables make a reader take its files from elsewhere. All but the first count only for the runtimes' own
// units: others may have a home of their own, and no other program knows CRI-O's.
var maskingVariables = []string{
	"CONTAINERS_POLICY_JSON", "XDG_CONFIG_HOME", "HOME", "CONTAINER_SIGNATURE_POLICY",
	"CONTAINER_SIGNATURE_POLICY_DIR",
}

const maxUnit = 256 << 10

// environment finds what makes the runtime read another policy.json than the host's.
func (r *runner) environment() {
	seen := map[string]bool{} // /lib is often a link to /usr/lib
	for _, dir := range unitDirs {
		entries, err := hostfs.Root(r.Root).ReadDir(dir)
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
		data, err := hostfs.Root(r.Root).ReadFile(p, maxUnit)
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
		r.add("unit-unreadable", place{file: p}, "whether it makes the runtime read another policy.json can't be told: %v",
			err)
	}
}

func (r *runner) dropIns(dir, unit string, seen map[string]bool) {
	entries, err := hostfs.Root(r.Root).ReadDir(dir)
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
	if nulled(r.Root, p) {
		return // masked
	}
	data, err := hostfs.Root(r.Root).ReadFile(p, maxUnit)
	if err != nil {
		r.skipped(p, err)
		return
	}
	r.unitText(p, unit, data)
}

// unitText looks at what a unit or a drop-in of it says; file is named in findings.
func (r *runner) unitText(file, unit string, data []byte) {
	runtime := unit == "crio.service" || unit == "podman.service"
	continued := false
	for i, line := range strings.Split(string(data), "\n") {
		text := strings.TrimSpace(line)
		value, ok := strings.CutPrefix(text, "Environment=")
		if ok || continued {
			if !ok {
				value = text
			}
			for _, word := range strings.Fields(strings.TrimSuffix(value, `\`)) {
				r.assignment(file, i+1, strings.Trim(word, `"'`), runtime)
			}
			continued = strings.HasSuffix(text, `\`)
		}
		if unit == "crio.service" && !strings.HasPrefix(text, "#") && !strings.HasPrefix(text, ";") {
			r.flags(file, i+1, text)
		}
	}
}

// flags looks for CRI-O's flags that do what signature_policy and signature_policy_dir do.
func (r *runner) flags(file string, line int, text string) {
	for _, word := range strings.Fields(text) {
		name := strings.TrimLeft(word, "-")
		if name, _, _ = strings.Cut(name, "="); name == word {
			continue
		}
		if name == "signature-policy" || name == "signature-policy-dir" {
			r.add("policy-environment", place{file: file, line: line},
				"starts CRI-O with --%s: it does not read %s and %s but what is named there", name, trust.PolicyPath, policy.NamespacedDir)
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
	r.add("policy-environment", place{file: file, line: line},
		"sets %s: who runs with it does not read %s but what it points to", name, trust.PolicyPath)
}
