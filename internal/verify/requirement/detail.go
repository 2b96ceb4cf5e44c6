package requirement

import (
	"fmt"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verify/explain"
)

// Detail puts the requirement into words.
func (r *Requirement) Detail() explain.Detail {
	d := explain.Detail{Problem: r.Message, Identity: r.Identity().String()}
	for _, name := range r.KeyNames() {
		if kind := r.GPG.Kinds[name]; kind != "" {
			name += "  " + kind + ", in " + r.keySource()
		}
		d.Keys = append(d.Keys, name)
	}
	if r.Type != policy.SigstoreSigned {
		return d
	}
	if n := len(r.KeyDatas); n > 0 {
		d.Keys = append(d.Keys, fmt.Sprintf("%d inline keys", n))
	} else if len(r.KeyData) > 0 {
		d.Keys = append(d.Keys, "inline key")
	}
	if f := r.Fulcio; f != nil {
		d.Keys = append(d.Keys, fmt.Sprintf("certificate of Fulcio for %s, known to %s", f.SubjectEmail, f.OIDCIssuer))
	}
	if p := r.PKI; p != nil {
		d.Keys = append(d.Keys, "certificate for "+strings.Trim(p.SubjectEmail+" "+p.SubjectHostname, " "))
	}
	if r.Rekor().Given() {
		d.Keys = append(d.Keys, "logged in Rekor")
	}
	return d
}
