package trust_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// The hole of every version up to image library 5.42.1.
const forged = "forged-schema1"

func TestLookupRuntime(t *testing.T) {
	for _, tt := range []struct {
		name, runtime, version string
		hole                   bool
		gotName, gotVersion    string
	}{
		{"cri-o", "cri-o", "1.34.0", true, "cri-o", "1.34.0"},
		{"podman", "podman", "4.3.1", true, "podman", "4.3.1"},
		{"two numbers", "cri-o", "1.34", true, "cri-o", "1.34"},
		{"OpenShift's", "cri-o", "1.29.5-7.rhaos4.16.git7db4ada.el9", true, "cri-o", "1.29.5-7.rhaos4.16.git7db4ada.el9"},
		{"RHEL's", "podman", "4.9.4-rhel", true, "podman", "4.9.4-rhel"},
		{"Debian's", "podman", "4.3.1+ds1-8+deb12u1+b1", true, "podman", "4.3.1+ds1-8+deb12u1+b1"},
		{"of a branch", "cri-o", "1.34.0-dev", true, "cri-o", "1.34.0-dev"},
		{"before the first known", "cri-o", "1.21.0-rc1", false, "cri-o", "1.21.0-rc1"},
		{"v in front", "cri-o", "v1.34.0", true, "cri-o", "v1.34.0"},
		{"too old for the table", "podman", "1.0.0", false, "podman", "1.0.0"},
		{"no number", "cri-o", "unknown", false, "cri-o", "unknown"},
		{"one number", "cri-o", "1", false, "cri-o", "1"},
		{"four numbers", "cri-o", "1.34.0.1", false, "cri-o", "1.34.0.1"},
		{"a number that is none", "cri-o", "1.99999999999999999999.0", false, "cri-o", "1.99999999999999999999.0"},
		{"signed", "cri-o", "1.-34.0", false, "cri-o", "1.-34.0"},
		{"empty", "cri-o", "", false, "cri-o", ""},
		{"containerd", "containerd", "1.7.0", false, "containerd", "1.7.0"},
		{"a reader that is no runtime", "skopeo", "1.9.3", false, "skopeo", "1.9.3"},
		{"an escape sequence", "cri-o", "1.34.0\x1b[31m", false, "cri-o", ""},
		{"a line", "cri-o", "1.34.0\n", false, "cri-o", ""},
		{"a quote", `cri-o"`, "1.34.0", false, "", "1.34.0"},
		{"upper case", "CRI-O", "1.34.0", false, "", "1.34.0"},
		{"a long version", "cri-o", "1.34.0-" + strings.Repeat("x", 80), false, "cri-o", ""},
		{"a long name", strings.Repeat("x", 80), "1.34.0", false, "", "1.34.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := trust.LookupRuntime(tt.runtime, tt.version)
			if got.Name != tt.gotName || got.Version != tt.gotVersion || slices.Contains(got.Advisories, forged) != tt.hole {
				t.Errorf("got %+v", got)
			}
			if got.Advisories == nil || (got.Fixed == "") != (len(got.Advisories) == 0) {
				t.Errorf("got %+v: want a list, and where it is fixed", got)
			}
		})
	}
}

// TestRuntimeAdvisoriesAreTheReaders: a runtime has the holes that the table says of the reader, and no other.
func TestRuntimeAdvisoriesAreTheReaders(t *testing.T) {
	for _, r := range trust.Readers() {
		product, version, _ := strings.Cut(r.Name, "-")
		if strings.HasPrefix(r.Name, "cri-o-") {
			product, version = "cri-o", strings.TrimPrefix(r.Name, "cri-o-")
		}
		if product != "cri-o" && product != "podman" {
			continue
		}
		if !strings.Contains(version, ".") {
			version += ".0"
		}
		var want []string
		for _, a := range r.Advisories() {
			want = append(want, a.ID)
		}
		if got := trust.LookupRuntime(product, version).Advisories; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", r.Name, got, want)
		}
	}
}
