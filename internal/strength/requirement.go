package strength

import (
	"fmt"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// rawRequirement is a requirement as it stands in policy.json.
type rawRequirement struct {
	Type     string   `json:"type"`
	KeyType  string   `json:"keyType"`
	KeyPath  string   `json:"keyPath"`
	KeyPaths []string `json:"keyPaths"`
	KeyData  []byte   `json:"keyData"`
	KeyDatas [][]byte `json:"keyDatas"`
	Fulcio   *struct {
		CAPath       string `json:"caPath"`
		CAData       []byte `json:"caData"`
		OIDCIssuer   string `json:"oidcIssuer"`
		SubjectEmail string `json:"subjectEmail"`
	} `json:"fulcio"`
	PKI *struct {
		CARootsPath         string `json:"caRootsPath"`
		CARootsData         []byte `json:"caRootsData"`
		CAIntermediatesPath string `json:"caIntermediatesPath"`
		CAIntermediatesData []byte `json:"caIntermediatesData"`
		SubjectEmail        string `json:"subjectEmail"`
		SubjectHostname     string `json:"subjectHostname"`
	} `json:"pki"`
	RekorPublicKeyPath  string   `json:"rekorPublicKeyPath"`
	RekorPublicKeyPaths []string `json:"rekorPublicKeyPaths"`
	RekorPublicKeyData  []byte   `json:"rekorPublicKeyData"`
	RekorPublicKeyDatas [][]byte `json:"rekorPublicKeyDatas"`

	SignedIdentity *identity `json:"signedIdentity"`
}

// identity is a signedIdentity.
type identity struct {
	Type             string `json:"type"`
	DockerReference  string `json:"dockerReference"`
	DockerRepository string `json:"dockerRepository"`
	Prefix           string `json:"prefix"`
	SignedPrefix     string `json:"signedPrefix"`
}

// kind of a requirement. Signatures of one kind never satisfy another.
type kind int

const (
	never    kind = iota // refuses everything
	signedBy             // GPG
	byKey                // sigstore, with keys
	byFulcio             // sigstore, with a certificate of Fulcio
	byPKI                // sigstore, with a certificate of one's own authority
)

// requirement demands that there is a signature by one of keys that carries an identity. What accepts everything is no
// requirement at all.
type requirement struct {
	kind     kind
	keys     keySet // or the certificates of authorities
	more     keySet // intermediate certificates
	rekor    keySet // empty: no log is asked
	issuer   string
	email    string
	hostname string
	identity identity
}

// keys reads key files once, and judges OpenPGP keys as they are at a time.
type keys struct {
	read  ReadKey
	at    time.Time
	files map[string]source
}

func (k keys) requirements(raw []rawRequirement) (requirements, error) {
	if len(raw) > maxRequirements {
		return nil, fmt.Errorf("has more than %d requirements", maxRequirements)
	}
	var out requirements
	for _, r := range raw {
		q, ok, err := k.requirement(r)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, q)
		}
	}
	return out, nil
}

// requirement is false for one that always holds.
func (k keys) requirement(r rawRequirement) (requirement, bool, error) {
	q := requirement{identity: identity{Type: trust.MatchRepoDigestOrExact}}
	if r.SignedIdentity != nil {
		q.identity = *r.SignedIdentity
	}
	switch r.Type {
	case "insecureAcceptAnything":
		return q, false, nil
	case "reject", "signedBaseLayer":
		return requirement{}, true, nil
	case "signedBy":
		if r.KeyType != "GPGKeys" { // parses, and was never implemented
			return requirement{}, true, nil
		}
		q.kind = signedBy
	case "sigstoreSigned":
		q.kind = byKey
	default:
		return q, false, fmt.Errorf("requirement of unknown type %q", r.Type)
	}
	q.keys = k.set(append(r.KeyPaths, r.KeyPath), append(r.KeyDatas, r.KeyData))
	if q.kind == signedBy {
		q.keys.judge(k.at)
	} else {
		q.rekor = k.set(append(r.RekorPublicKeyPaths, r.RekorPublicKeyPath),
			append(r.RekorPublicKeyDatas, r.RekorPublicKeyData))
	}
	if f := r.Fulcio; f != nil {
		q.kind, q.issuer, q.email = byFulcio, f.OIDCIssuer, f.SubjectEmail
		q.keys = k.set([]string{f.CAPath}, [][]byte{f.CAData})
	}
	if p := r.PKI; p != nil {
		q.kind, q.email, q.hostname = byPKI, p.SubjectEmail, p.SubjectHostname
		q.keys = k.set([]string{p.CARootsPath}, [][]byte{p.CARootsData})
		q.more = k.set([]string{p.CAIntermediatesPath}, [][]byte{p.CAIntermediatesData})
	}
	if len(q.keys.sources) == 0 {
		return requirement{}, true, nil
	}
	return q, true, nil
}

// none reports whether no signature satisfies the requirement.
func (r requirement) none() bool { return r.kind == never || r.keys.empty() }

func (r requirement) String() string {
	switch r.kind {
	case never:
		return "reject"
	case signedBy:
		return fmt.Sprintf("signedBy(%s; %s)", r.keys, r.identity)
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
	name := map[kind]string{
		byKey: "sigstoreSigned", byFulcio: "sigstoreSigned by fulcio",
		byPKI: "sigstoreSigned by pki",
	}[r.kind]
	return fmt.Sprintf("%s(%s; %s)", name, strings.Join(parts, ", "), r.identity)
}

func (i identity) String() string {
	var out []string
	for _, s := range []string{i.Type, i.DockerReference, i.DockerRepository, i.Prefix} {
		if s != "" {
			out = append(out, s)
		}
	}
	if i.Prefix != "" {
		out = append(out, "to", i.SignedPrefix)
	}
	return strings.Join(out, " ")
}

func (r requirements) String() string {
	if len(r) == 0 {
		return "accept"
	}
	var out []string
	for _, q := range r {
		if q.kind == never {
			return "reject"
		}
		out = append(out, q.String())
	}
	return strings.Join(out, " and ")
}
