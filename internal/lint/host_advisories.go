package lint

import (
	"debug/buildinfo"
	"fmt"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Where the programs of a host lie that read policies, and by which name the table of readers knows them; "" is none.
var (
	programDirs = []string{"/usr/bin", "/usr/local/bin"}
	programs    = []struct{ file, product string }{
		{"crio", "cri-o"},
		{"podman", "podman"},
		{"skopeo", "skopeo"},
		{"buildah", ""},
	}
)

const (
	dpkgStatus = "/var/lib/dpkg/status"
	maxStatus  = 64 << 20
)

// advisories warns of known holes in the verifiers of the readers, and of the programs that a host has.
func (r *runner) advisories(host bool) {
	seen := map[string]bool{}
	for i, reader := range r.readers {
		if seen[r.Readers[i]] {
			continue
		}
		seen[r.Readers[i]] = true
		r.holes(reader.Advisories(), "", fmt.Sprintf("%s reads with containers-image %s", r.Readers[i], reader.Library), "")
	}
	if host {
		r.programs()
	}
}

// holes adds one finding for all holes that somebody has.
func (r *runner) holes(of []trust.Advisory, file, who, more string) {
	if len(of) == 0 {
		return
	}
	var names []string
	for _, a := range of {
		names = append(names, fmt.Sprintf("%s (fixed in %s)", a.ID,
			strings.Join(append([]string{a.Fixed}, a.Backports...), ", ")))
	}
	r.add("reader-advisory", place{file: file}, "%s, whose verifier has known holes: %s", who,
		strings.Join(names, ", ")).Hint = "nodetrust readers --advisories tells what they let through" + more
}

// programs looks at what is built into the host's programs. Of one that doesn't say so (Debian's don't) the version
// of its package counts; where there is none either, nothing is said of it.
func (r *runner) programs() {
	installed := r.installed()
	for _, p := range programs {
		packaged := true
		for _, dir := range programDirs {
			file := path.Join(dir, p.file)
			info := r.buildInfo(file)
			if info == nil {
				continue
			}
			library, ok := libraryOf(info)
			if !ok {
				continue
			}
			packaged = packaged && dir != "/usr/bin"
			r.holes(slices.DeleteFunc(trust.Advisories(), func(a trust.Advisory) bool {
				return !a.In(library) || a.Build != "" && !builtWith(info, a.Build)
			}), file, fmt.Sprintf("is built with containers-image %s", library), "")
		}
		if version := installed[p.product]; packaged && version != "" {
			r.packaged(p.product, version)
		}
	}
}

// packaged goes by the version of a distribution's package, which may have a fix that its version doesn't show.
func (r *runner) packaged(product, version string) {
	reader, err := trust.LookupReader(product + "-" + upstream(version))
	if err != nil {
		return
	}
	r.holes(reader.Advisories(), dpkgStatus, fmt.Sprintf("%s %s has containers-image %s", product, version,
		reader.Library),
		"; a distribution may have mended its package and kept the number, which its changelog tells")
}

// buildInfo returns nil if there is no such program, or none of Go's.
func (r *runner) buildInfo(file string) *debug.BuildInfo {
	f, err := hostfs.Root(r.Root).Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := buildinfo.Read(f)
	if err != nil {
		return nil
	}
	return info
}

// libraryOf returns the version of the image library that a program was built with, if it tells.
func libraryOf(info *debug.BuildInfo) (trust.Version, bool) {
	for _, m := range info.Deps {
		if !trust.IsLibrary(m.Path) {
			continue
		}
		if m.Replace != nil {
			m = m.Replace
		}
		return trust.ParseLibrary(m.Version)
	}
	return trust.Version{}, false
}

func builtWith(info *debug.BuildInfo, tag string) bool {
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return slices.Contains(strings.Split(s.Value, ","), tag)
		}
	}
	return false
}

// installed returns the versions of Debian packages by their names.
func (r *runner) installed() map[string]string {
	out := map[string]string{}
	data, err := hostfs.Root(r.Root).ReadFile(dpkgStatus, maxStatus)
	if err != nil {
		return out
	}
	for stanza := range strings.SplitSeq(string(data), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(stanza) {
			if name, value, ok := strings.Cut(line, ":"); ok {
				fields[name] = strings.TrimSpace(value)
			}
		}
		if strings.HasSuffix(fields["Status"], " installed") {
			out[fields["Package"]] = fields["Version"]
		}
	}
	return out
}

// upstream is 4.3.1 of 2:4.3.1+ds1-8+deb12u1.
func upstream(version string) string {
	if _, rest, ok := strings.Cut(version, ":"); ok {
		version = rest
	}
	if end := strings.IndexFunc(version, func(c rune) bool { return c != '.' && (c < '0' || c > '9') }); end >= 0 {
		version = version[:end]
	}
	return strings.TrimSuffix(version, ".")
}
