package compare

import (
	"fmt"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/policy"
)

// kind of a requirement. Signatures of one kind never satisfy another.
type kind int

const (
	never    kind = iota // refuses everything
	signedBy             // GPG
	byKey                // sigstore, with keys
	byFulcio             // sigstore, with a certificate of Fulcio
	byPKI                // sigstore, with a certificate of a private authority
)

// requirement demands a signature by one of keys with an identity. An accept is no requirement.
type requirement struct {
	kind     kind
	keys     keySet // or the certificates of authorities
	more     keySet // intermediate certificates
	rekor    keySet // empty: no log is required
	issuer   string
	email    string
	hostname string
	identity policy.Identity
}

// keys reads each key file once, and judges OpenPGP keys at a time.
type keys struct {
	read  ReadKey
	at    time.Time
	files map[string]source
}

func (k keys) requirements(list []policy.Requirement) (out requirements) {
	for _, r := range list {
		if r.Type != policy.InsecureAcceptAnything {
			out = append(out, k.requirement(r))
		}
	}
	return out
}

func (k keys) requirement(r policy.Requirement) requirement {
	q := requirement{kind: signedBy, identity: r.Identity()}
	switch {
	case r.Type == policy.SigstoreSigned:
		q.kind = byKey
	case r.Type != policy.SignedBy, r.KeyType != policy.GPGKeys: // the other key types parse, but were never implemented
		return requirement{}
	}
	q.keys = k.set(r.Keys())
	if q.kind == signedBy {
		q.keys.judge(k.at)
	} else {
		q.rekor = k.set(r.Rekor())
	}
	if f := r.Fulcio; f != nil {
		q.kind, q.issuer, q.email = byFulcio, f.OIDCIssuer, f.SubjectEmail
		q.keys = k.set(f.CA())
	}
	if p := r.PKI; p != nil {
		q.kind, q.email, q.hostname = byPKI, p.SubjectEmail, p.SubjectHostname
		q.keys, q.more = k.set(p.Roots()), k.set(p.Intermediates())
	}
	if len(q.keys.sources) == 0 {
		return requirement{}
	}
	return q
}

// none reports whether no signature satisfies the requirement.
func (r requirement) none() bool { return r.kind == never || r.keys.empty() }

func (r requirement) String() string {
	switch r.kind {
	case never:
		return policy.Reject
	case signedBy:
		return fmt.Sprintf("%s(%s; %s)", policy.SignedBy, r.keys, r.identity)
	}
	parts := []string{r.keys.String()}
	for _, p := range []struct{ name, value string }{
		{"issuer", r.issuer},
		{"email", r.email},
		{"hostname", r.hostname},
		{"intermediates", r.more.String()},
		{"rekor", r.rekor.String()},
	} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	name := policy.SigstoreSigned + map[kind]string{byFulcio: " by fulcio", byPKI: " by pki"}[r.kind]
	return fmt.Sprintf("%s(%s; %s)", name, strings.Join(parts, ", "), r.identity)
}

func (r requirements) String() string {
	if len(r) == 0 {
		return "accept"
	}
	var out []string
	for _, q := range r {
		if q.kind == never {
			return policy.Reject
		}
		out = append(out, q.String())
	}
	return strings.Join(out, " and ")
}

// normal gives all requirements the simplest identity that means the same at the place.
func (r requirements) normal(at policy.Place) requirements {
	out := make(requirements, len(r))
	for i, q := range r {
		q.identity = q.identity.At(at)
		out[i] = q
	}
	return out
}
