package trust

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// Runtime is a container runtime by the name and version that it gives itself, and what is known of its verifier.
type Runtime struct {
	// Name is for example cri-o, podman or containerd; empty if the runtime gave no name that could be one.
	Name string
	// Version is the runtime's own, a vendor's suffix included; empty if it gave nothing that could be one.
	Version string
	// Advisories are the IDs of the known holes. An empty list says that none is known, also of a runtime that this
	// program does not know. A vendor may have mended a hole and kept the number.
	Advisories []string
	// Fixed is the first version of the image library that has none of the holes; empty without holes.
	Fixed string
}

var (
	runtimeName    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`) })
	runtimeVersion = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}$`)
	})
	versionNumber = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^v?([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:[-+~](.*))?$`)
	})
)

// LookupRuntime says what is known of a runtime. Name and version may be anything: what could not be one is left out.
func LookupRuntime(name, version string) Runtime {
	r := Runtime{Advisories: []string{}}
	if runtimeName().MatchString(name) {
		r.Name = name
	}
	if runtimeVersion().MatchString(version) {
		r.Version = version
	}
	reader, ok := r.reader()
	if !ok {
		return r
	}
	var fixed Version
	for _, a := range reader.Advisories() {
		r.Advisories = append(r.Advisories, a.ID)
		if v, _, ok := parseVersion(a.Fixed); ok && fixed.Less(v) {
			fixed, r.Fixed = v, a.Fixed
		}
	}
	return r
}

// reader is the reader that the runtime is, if the table knows the runtime and the version is a number. The suffix of a
// vendor does not count: 1.29.5-7.rhaos4.16.git7db4ada.el9 is 1.29.5, 4.9.4-rhel is 4.9.4. A version that is not
// finished (1.34.0-dev, 5.0.0-rc1) counts as the one before it.
func (r Runtime) reader() (Reader, bool) {
	if r.Name != "cri-o" && r.Name != "podman" {
		return Reader{}, false
	}
	m := versionNumber().FindStringSubmatch(r.Version)
	if m == nil {
		return Reader{}, false
	}
	v, _, ok := parseVersion(strings.TrimSuffix(m[1]+"."+m[2]+"."+m[3], "."))
	if ok && unfinished(m[4]) {
		v, ok = before(v)
	}
	if !ok {
		return Reader{}, false
	}
	reader, err := LookupReader(fmt.Sprintf("%s-%s", r.Name, v))
	return reader, err == nil
}

// unfinished reports whether the suffix of a version is one that leads to it.
func unfinished(suffix string) bool {
	for _, s := range []string{"dev", "rc", "alpha", "beta"} {
		if strings.HasPrefix(strings.ToLower(suffix), s) {
			return true
		}
	}
	return false
}

// before returns a version that is older than v and newer than all releases before v.
func before(v Version) (Version, bool) {
	const last = 9999
	for i := len(v) - 1; i >= 0; i-- {
		if v[i] > 0 {
			v[i]--
			for j := i + 1; j < len(v); j++ {
				v[j] = last
			}
			return v, true
		}
	}
	return v, false
}
