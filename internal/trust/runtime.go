package trust

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Runtime is a container runtime by its own name and version, and what is known of its verifier.
type Runtime struct {
	// Name is for example cri-o, podman or containerd, or "" without a plausible name.
	Name string
	// Version is the runtime's own with a vendor's suffix, or "" without a plausible version.
	Version string
	// Advisories are the IDs of the known holes; empty also for an unknown runtime. A vendor may have fixed a hole
	// under the same number.
	Advisories []string
	// Fixed is the first version of the image library without these holes, or "".
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

// LookupRuntime returns what is known of a runtime. It drops an implausible name or version.
func LookupRuntime(name, release string) Runtime {
	r := Runtime{Advisories: []string{}}
	if runtimeName().MatchString(name) {
		r.Name = name
	}
	if runtimeVersion().MatchString(release) {
		r.Version = release
	}
	reader, ok := r.reader()
	if !ok {
		return r
	}
	for _, a := range reader.Advisories() {
		r.Advisories = append(r.Advisories, a.ID)
		if version(r.Fixed).Less(version(a.Fixed)) {
			r.Fixed = a.Fixed
		}
	}
	return r
}

// reader returns the reader of a known runtime with a numeric version. A vendor's suffix does not count:
// 1.29.5-7.rhaos4.16.git7db4ada.el9 is 1.29.5, 4.9.4-rhel is 4.9.4. A pre-release (1.34.0-dev, 5.0.0-rc1) counts as
// the version before it.
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

// unfinished reports whether the suffix is that of a pre-release.
func unfinished(suffix string) bool {
	return slices.ContainsFunc([]string{"dev", "rc", "alpha", "beta"},
		func(s string) bool { return strings.HasPrefix(strings.ToLower(suffix), s) })
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
