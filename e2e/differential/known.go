package differential

import (
	"strings"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// known are the differences that are explained, by their headings in docs/differences.md.
var known = []struct {
	name string
	// holds is true if the difference is this one.
	holds func(c Case, a Answers, difference string) bool
}{
	{"Signatures by a subkey", func(_ Case, a Answers, d string) bool {
		return a.Verify.Answer == verdict.Accept &&
			(strings.HasPrefix(d, "CRI-O") && strings.Contains(a.CRIO, "Signature by key") || strings.HasPrefix(d, "podman") &&
				strings.Contains(a.Podman, "Signature by key"))
	}},
	{"Sigstore on Debian", func(_ Case, a Answers, d string) bool {
		return strings.HasPrefix(d, "podman pulled: false") &&
			strings.Contains(a.Podman, "Debian-local change: sigstore disabled")
	}},
	{"A missing key file", func(_ Case, a Answers, d string) bool {
		return a.Verify.Reason == verdict.KeyMissing && d == "CRI-O refuse, verify unknown" &&
			(strings.Contains(a.CRIO, "A signature was required, but no signature exists") ||
				strings.Contains(a.CRIO, "reasons: open /etc/pki"))
	}},
	{"A key file without a key", func(_ Case, a Answers, d string) bool {
		return a.Verify.Reason == verdict.KeyUnreadable && d == "CRI-O unknown, verify refuse"
	}},
	{"Refusals that CRI-O doesn't call so", func(_ Case, a Answers, d string) bool {
		return d == "CRI-O unknown, verify refuse" && a.Verify.Reason == verdict.WeakOrUnsupported &&
			(strings.HasSuffix(a.CRIO, "Source image rejected: No data") ||
				strings.HasSuffix(a.CRIO, "Source image rejected: Bad data"))
	}},
	{"The first of several requirements", func(_ Case, a Answers, d string) bool {
		return d == "CRI-O unknown, verify refuse" && len(a.Verify.Requirements) > 1 &&
			a.Verify.Requirements[0].Answer == verdict.Unknown
	}},
	{"Images that the policy rejects", func(_ Case, a Answers, d string) bool {
		return d == "CRI-O unknown, verify refuse" && a.Verify.Reason == verdict.RejectedByPolicy
	}},
	{"Manifests of the wrong type", func(c Case, a Answers, d string) bool {
		return d == "CRI-O unknown, verify refuse" && strings.Contains(c.Registry, "/") &&
			(strings.Contains(a.CRIO, "parse manifest from blob") ||
				strings.Contains(a.CRIO, "Unexpectedly received a manifest list"))
	}},
	{"Images whose content is missing", func(c Case, a Answers, _ string) bool {
		return a.Verify.Answer == verdict.Accept && c.Registry == "other manifest" &&
			strings.Contains(a.CRIO, "fetching blob") && strings.Contains(a.Podman, "fetching blob")
	}},
	{"Signatures above 64 KiB", func(c Case, a Answers, _ string) bool {
		return a.Verify.Reason == verdict.LookasideNotSignature && strings.Contains(a.Verify.Message, "more than 65536") &&
			c.mentions(": large,")
	}},
}

// explain names the known difference that this one is; "" if it is none.
func explain(c Case, a Answers, difference string) string {
	for _, k := range known {
		if k.holds(c, a, difference) {
			return k.name
		}
	}
	return ""
}
