// Package secondlook looks at an accepted image once more: at the same bytes, by rules that are written down here a
// second time. The package shares no parsing with the image library: the readers of JSON, OpenPGP messages, references
// and manifests are its own. An accept by both rests on no fault of a single reader.
//
// The image library up to 5.42.0 shows why: it took the digest of a schema-1 manifest from a payload that the
// manifest holds encoded, so a server could serve any body under a digest that somebody had signed.
//
// The second look never makes an accept. It is pure: it reads no file, asks no server, and knows no clock.
package secondlook

import (
	"cmp"
	"fmt"
	"slices"
)

// Kind says what the second look found.
type Kind int

// The kinds of findings, each worse for the image than the one before.
const (
	// Unusable: the manifest is one that no runtime can take for an image, whoever signed it.
	Unusable Kind = iota + 1
	// Differs: digest, claim, identity or signer are not what the accept says that they are.
	Differs
	// Outdated: the manifest is of schema 1, and the policy demands a signature.
	Outdated
	// Forged: the manifest carries a signature of its own, and the policy demands one of its signers.
	Forged
)

// Finding is what keeps an accept from standing.
type Finding struct {
	Kind    Kind
	Message string
}

func (f *Finding) Error() string { return f.Message }

func finding(k Kind, format string, args ...any) *Finding {
	return &Finding{k, fmt.Sprintf(format, args...)}
}

// Image is an accepted image, as it was read.
type Image struct {
	// Manifest is the manifest of the image, or of the instance that was chosen from Index; MediaType is what it was
	// served as.
	Manifest  []byte
	MediaType string
	// Digest names the manifest in the verdict, for example "sha256:…".
	Digest string
	// Index is the index that names the manifest; nil if there is none.
	Index []byte
	// Asked is the docker reference that was asked for; "" for local content that is judged as itself.
	Asked string
	// Demands are the requirements of the policy that want a signature, each with what was accepted for it.
	Demands []Demand
}

// Demand is a requirement that wants a signature.
type Demand struct {
	Identity Identity
	// Keys maps every fingerprint and key ID of the requirement's keys to something; for sigstore it is unused.
	Keys map[string]string
	// Verifiers are the public keys that a sigstore signature may be made with: PEM. Empty for one whose key comes in a
	// certificate.
	Verifiers [][]byte
	// Accepted are the signatures that the library accepts for the requirement.
	Accepted []Signature
}

// Signature is one accepted signature: an OpenPGP message, or what sigstore signed.
type Signature struct {
	// Message is the whole simple signature; nil for one of sigstore.
	Message []byte
	// Payload, Signature (base64) and Certificate (PEM, "" if there is none) are those of a sigstore signature.
	Payload                []byte
	Signature, Certificate string
}

// At returns what keeps the image from being accepted; nil says that the second look comes to the same answer.
func At(im Image) *Finding {
	if f := CheckForm(im.Manifest, len(im.Demands) > 0); f != nil {
		return f
	}
	if err := usable(im.Manifest, im.MediaType, len(im.Demands) == 0); err != nil {
		return finding(Unusable, "no runtime can use the manifest: %v", err)
	}
	if f := im.digests(); f != nil {
		return f
	}
	for _, d := range im.Demands {
		if f := d.met(im); f != nil {
			return f
		}
	}
	return nil
}

// CheckForm returns why a manifest can't be the one that was signed, before anything else is known of the manifest: the
// manifest is of schema 1, and a signature is demanded.
func CheckForm(manifest []byte, demanded bool) *Finding {
	if !demanded {
		return nil
	}
	switch FormOf(manifest) {
	case SelfSigned:
		return finding(Forged, "the manifest carries a signature of its own (schema 1), so its digest says nothing of its content: it can be forged")
	case Schema1:
		return finding(Outdated, "the manifest is of schema 1, which is no form to be signed")
	}
	return nil
}

// digests compares the bytes with the digests that name them.
func (im Image) digests() *Finding {
	asked := ""
	if im.Asked != "" {
		n, err := parseName(im.Asked)
		if err != nil {
			return finding(Differs, "asked for: %v", err)
		}
		asked = n.digest
	}
	// Docker's own signatures of schema 1 count as part of no digest, so without a demand nothing is compared with them.
	if FormOf(im.Manifest) == SelfSigned && asked == "" && im.Index == nil {
		return nil
	}
	if !has(im.Manifest, im.Digest) {
		return finding(Differs, "the manifest's bytes don't have the digest %s", im.Digest)
	}
	switch {
	case im.Index == nil:
		if asked != "" && !has(im.Manifest, asked) {
			return finding(Differs, "the manifest's bytes don't have the digest asked for, %s", asked)
		}
	case FormOf(im.Index) != List:
		return finding(Unusable, "no runtime can use the index: it is no index, or several kinds at once")
	case !lists(im.Index, im.Digest):
		return finding(Differs, "the index doesn't name %s", im.Digest)
	case asked != "" && asked != im.Digest && !has(im.Index, asked):
		return finding(Differs, "the index's bytes don't have the digest asked for, %s", asked)
	}
	return nil
}

// met reports why none of the accepted signatures meets the demand.
func (d Demand) met(im Image) *Finding {
	err := fmt.Errorf("no signature was accepted for it")
	for _, s := range d.Accepted {
		one := d.meets(im, s)
		if one == nil {
			return nil
		}
		err = one
	}
	return finding(Differs, "the image library accepts a signature, and a second look at it doesn't: %v", err)
}

func (d Demand) meets(im Image, s Signature) error {
	payload, kind := s.Payload, cosignType
	if s.Message != nil {
		m, err := readMessage(s.Message)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(m.signers, func(id string) bool { return d.Keys[id] != "" }) {
			return fmt.Errorf("its signer %s is none of the policy's", cmp.Or(m.signers[0], "(not said)"))
		}
		payload, kind = m.payload, simpleType
	} else if err := d.verify(s); err != nil {
		return err
	}
	c, err := readClaim(payload, kind)
	if err != nil {
		return err
	}
	if !has(im.Manifest, c.digest) {
		return fmt.Errorf("it is for other bytes, those of %.150q", c.digest)
	}
	if !d.Identity.Accepts(im.Asked, c.reference) {
		return fmt.Errorf("it is for %.300q, which %s doesn't accept", c.reference, d.Identity.Type)
	}
	return nil
}
