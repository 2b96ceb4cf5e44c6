package differential

import (
	"strings"

	"github.com/nodetrust/nodetrust/verdict"
)

// known are the differences that are explained, by their headings in docs/differences.md.
var known = []struct {
	name string
	// holds is true if the difference is this one.
	holds func(c Case, a Answers, difference string) bool
}{
	{"Signatures by a subkey", func(c Case, a Answers, d string) bool {
		return bySubkey(a) && (strings.HasPrefix(d, "CRI-O") && strings.Contains(a.CRIO, "Signature by key") || strings.HasPrefix(d, "podman") && strings.Contains(a.Podman, "Signature by key"))
	}},
	{"A missing key file", func(c Case, a Answers, d string) bool {
		return a.Verify.Reason == verdict.KeyMissing && d == "CRI-O refuse, verify unknown" && strings.Contains(a.CRIO, "A signature was required, but no signature exists")
	}},
	{"A key file without a key", func(c Case, a Answers, d string) bool {
		return a.Verify.Reason == verdict.KeyUnreadable && d == "CRI-O unknown, verify refuse"
	}},
	{"Refusals that CRI-O doesn't call so", func(c Case, a Answers, d string) bool {
		return d == "CRI-O unknown, verify refuse" && a.Verify.Reason == verdict.WeakOrUnsupported && strings.HasSuffix(a.CRIO, "Source image rejected: No data")
	}},
}

// bySubkey is true if verify accepted, and one of the signatures by a subkey.
func bySubkey(a Answers) bool {
	return a.Verify.Verdict == verdict.Accept
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
