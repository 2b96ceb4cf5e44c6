package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// The types of requirements.
const (
	InsecureAcceptAnything = "insecureAcceptAnything"
	Reject                 = "reject"
	SignedBy               = "signedBy"
	SigstoreSigned         = "sigstoreSigned"
	SignedBaseLayer        = "signedBaseLayer"
)

// GPGKeys is the only key type of signedBy that was ever implemented.
const GPGKeys = "GPGKeys"

// Members of objects in policy.json.
const (
	FieldDefault           = "default"
	FieldTransports        = "transports"
	FieldType              = "type"
	FieldKeyType           = "keyType"
	FieldKeyPath           = "keyPath"
	FieldKeyPaths          = "keyPaths"
	FieldKeyData           = "keyData"
	FieldFulcio            = "fulcio"
	FieldPKI               = "pki"
	FieldSignedIdentity    = "signedIdentity"
	FieldBaseLayerIdentity = "baseLayerIdentity"
	FieldDockerReference   = "dockerReference"
	FieldDockerRepository  = "dockerRepository"
	FieldPrefix            = "prefix"
	FieldSignedPrefix      = "signedPrefix"
)

// RequirementTypes lists the types of requirements, the ones in use first.
func RequirementTypes() []string {
	return []string{InsecureAcceptAnything, Reject, SignedBy, SigstoreSigned, SignedBaseLayer}
}

// KeyTypes lists the key types with which a signedBy requirement loads.
func KeyTypes() []string {
	return []string{GPGKeys, "signedByGPGKeys", "X509Certificates", "signedByX509CAs"}
}

// KeyFields lists the members of a requirement type that name its keys. A requirement has just one of them.
func KeyFields(requirement string) []string {
	switch requirement {
	case SignedBy:
		return []string{FieldKeyPath, FieldKeyPaths, FieldKeyData}
	case SigstoreSigned:
		return []string{FieldKeyPath, FieldKeyPaths, FieldKeyData, "keyDatas", FieldFulcio, FieldPKI}
	}
	return nil
}

// RekorFields lists the members of a sigstoreSigned requirement that name the keys of a transparency log.
func RekorFields() []string {
	return []string{"rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"}
}

// RequirementFields lists the members that a requirement of a type may have.
func RequirementFields(requirement string) []string {
	switch requirement {
	case SignedBy:
		return slices.Concat([]string{FieldType, FieldKeyType}, KeyFields(requirement), []string{FieldSignedIdentity})
	case SigstoreSigned:
		return slices.Concat([]string{FieldType}, KeyFields(requirement), RekorFields(), []string{FieldSignedIdentity})
	case SignedBaseLayer:
		return []string{FieldType, FieldBaseLayerIdentity}
	}
	return []string{FieldType}
}

// CertificateFields lists the members of fulcio or pki.
func CertificateFields(field string) []string {
	if field == FieldFulcio {
		return []string{"caPath", "caData", "oidcIssuer", "subjectEmail"}
	}
	return []string{
		"caRootsPath", "caRootsData", "caIntermediatesPath", "caIntermediatesData", "subjectEmail", "subjectHostname",
	}
}

// Requirement is one demand of a policy. It distinguishes empty members ("keyData": "") from missing ones, as the
// image library does.
type Requirement struct {
	Type string `json:"type"`

	KeyType  string   `json:"keyType,omitzero"`
	KeyPath  string   `json:"keyPath,omitzero"`
	KeyPaths []string `json:"keyPaths,omitzero"`
	KeyData  []byte   `json:"keyData,omitzero"`
	KeyDatas [][]byte `json:"keyDatas,omitzero"`

	Fulcio *Fulcio `json:"fulcio,omitzero"`
	PKI    *PKI    `json:"pki,omitzero"`

	RekorPublicKeyPath  string   `json:"rekorPublicKeyPath,omitzero"`
	RekorPublicKeyPaths []string `json:"rekorPublicKeyPaths,omitzero"`
	RekorPublicKeyData  []byte   `json:"rekorPublicKeyData,omitzero"`
	RekorPublicKeyDatas [][]byte `json:"rekorPublicKeyDatas,omitzero"`

	SignedIdentity    *Identity `json:"signedIdentity,omitzero"`
	BaseLayerIdentity *Identity `json:"baseLayerIdentity,omitzero"`
}

// Fulcio demands a short-lived certificate of a certificate authority.
type Fulcio struct {
	CAPath       string `json:"caPath,omitzero"`
	CAData       []byte `json:"caData,omitzero"`
	OIDCIssuer   string `json:"oidcIssuer"`
	SubjectEmail string `json:"subjectEmail"`
}

// PKI demands a certificate of a private authority.
type PKI struct {
	CARootsPath         string `json:"caRootsPath,omitzero"`
	CARootsData         []byte `json:"caRootsData,omitzero"`
	CAIntermediatesPath string `json:"caIntermediatesPath,omitzero"`
	CAIntermediatesData []byte `json:"caIntermediatesData,omitzero"`
	SubjectEmail        string `json:"subjectEmail,omitzero"`
	SubjectHostname     string `json:"subjectHostname,omitzero"`
}

// VerifiesSignatures reports whether a requirement of the type asks for a signature.
func VerifiesSignatures(requirement string) bool {
	return requirement == SignedBy || requirement == SigstoreSigned
}

// Identity returns the identity that signatures must carry, or the zero Identity if the requirement asks for no
// signature.
func (r *Requirement) Identity() Identity {
	switch {
	case r.SignedIdentity != nil:
		return *r.SignedIdentity
	case VerifiesSignatures(r.Type):
		return Identity{Type: MatchRepoDigestOrExact}
	}
	return Identity{}
}

// KeySource is one set of keys or certificates of a requirement. Its members point into the requirement; a member that
// the grammar lacks is nil.
type KeySource struct {
	Path  *string
	Paths *[]string
	Data  *[]byte
	Datas *[][]byte
}

// Keys returns the keys that verify signatures, without certificates.
func (r *Requirement) Keys() KeySource {
	return KeySource{&r.KeyPath, &r.KeyPaths, &r.KeyData, &r.KeyDatas}
}

// Rekor returns the keys of the transparency log that signatures must be in.
func (r *Requirement) Rekor() KeySource {
	return KeySource{
		&r.RekorPublicKeyPath, &r.RekorPublicKeyPaths, &r.RekorPublicKeyData, &r.RekorPublicKeyDatas,
	}
}

// CA returns the certificates of the authority.
func (f *Fulcio) CA() KeySource { return KeySource{Path: &f.CAPath, Data: &f.CAData} }

// Roots returns the certificates of the authority.
func (p *PKI) Roots() KeySource { return KeySource{Path: &p.CARootsPath, Data: &p.CARootsData} }

// Intermediates returns the certificates between the authority's and those of signers.
func (p *PKI) Intermediates() KeySource {
	return KeySource{Path: &p.CAIntermediatesPath, Data: &p.CAIntermediatesData}
}

// KeySources returns all places where the requirement names keys or certificates.
func (r *Requirement) KeySources() []KeySource {
	out := []KeySource{r.Keys(), r.Rekor()}
	if r.Fulcio != nil {
		out = append(out, r.Fulcio.CA())
	}
	if r.PKI != nil {
		out = append(out, r.PKI.Roots(), r.PKI.Intermediates())
	}
	return out
}

// Given reports whether the requirement names keys here.
func (s KeySource) Given() bool {
	return *s.Path != "" || *s.Data != nil || s.Paths != nil && *s.Paths != nil || s.Datas != nil && *s.Datas != nil
}

// Files returns the paths of the source.
func (s KeySource) Files() (out []string) {
	if s.Paths != nil {
		out = append(out, *s.Paths...)
	}
	if *s.Path != "" {
		out = append(out, *s.Path)
	}
	return out
}

// Inline returns the source's key material in policy.json.
func (s KeySource) Inline() (out [][]byte) {
	if s.Datas != nil {
		out = append(out, *s.Datas...)
	}
	if len(*s.Data) > 0 {
		out = append(out, *s.Data)
	}
	return out
}

// IsPath reports whether a member of policy.json names files of keys.
func IsPath(field string) bool { return strings.HasSuffix(strings.TrimSuffix(field, "s"), "Path") }

// IsData reports whether a member of policy.json holds keys.
func IsData(field string) bool { return strings.HasSuffix(strings.TrimSuffix(field, "s"), "Data") }

// Document is a policy.json with requirements of type R: Requirement, or json.RawMessage to keep their text.
type Document[R any] struct {
	Default    []R                       `json:"default"`
	Transports map[string]map[string][]R `json:"transports,omitempty"`
}

// Read reads a policy.json. The result need not load: Read has no rules on which members go together, and takes the
// last of two members of one name. An unknown member is an error, since it may demand something.
func Read(data []byte) (*Document[Requirement], error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	d := &Document[Requirement]{}
	if err := dec.Decode(d); err != nil {
		return nil, fmt.Errorf("parsing policy.json: %w", err)
	}
	if dec.More() {
		return nil, fmt.Errorf("parsing policy.json: more follows behind its end")
	}
	if len(d.Default) == 0 {
		return nil, fmt.Errorf("parsing policy.json: it has no default")
	}
	for r := range d.Requirements() {
		if !slices.Contains(RequirementTypes(), r.Type) {
			return nil, fmt.Errorf("parsing policy.json: requirement of unknown type %q", r.Type)
		}
	}
	return d, nil
}

// At returns what the document demands at a place, and the most specific place that says so, which alone counts.
func (d *Document[R]) At(p Place) ([]R, Place) {
	if p.Transport == "" {
		return d.Default, Place{}
	}
	for _, scope := range Chain(p.Transport, p.Scope) {
		if r, ok := d.Transports[p.Transport][scope]; ok {
			return r, Place{p.Transport, scope}
		}
	}
	return d.Default, Place{}
}

// Set sets what the document demands at a place.
func (d *Document[R]) Set(p Place, requirements []R) {
	if p.Transport == "" {
		d.Default = requirements
		return
	}
	if d.Transports == nil {
		d.Transports = map[string]map[string][]R{}
	}
	if d.Transports[p.Transport] == nil {
		d.Transports[p.Transport] = map[string][]R{}
	}
	d.Transports[p.Transport][p.Scope] = requirements
}

// Places lists the places where the document demands something, sorted, the default first.
func (d *Document[R]) Places() []Place {
	out := []Place{{}}
	for _, transport := range slices.Sorted(maps.Keys(d.Transports)) {
		for _, scope := range slices.Sorted(maps.Keys(d.Transports[transport])) {
			out = append(out, Place{transport, scope})
		}
	}
	return out
}

// AllPlaces lists the places of two documents, each once, sorted, the default first.
func AllPlaces[R any](a, b *Document[R]) []Place {
	out := append(a.Places(), b.Places()...)
	slices.SortFunc(out, func(x, y Place) int {
		return cmp.Or(strings.Compare(x.Transport, y.Transport), strings.Compare(x.Scope, y.Scope))
	})
	return slices.Compact(out)
}

// Requirements returns all requirements, in a fixed order.
func (d *Document[R]) Requirements() iter.Seq[*R] {
	return func(yield func(*R) bool) {
		for _, p := range d.Places() {
			list, _ := d.At(p)
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}
