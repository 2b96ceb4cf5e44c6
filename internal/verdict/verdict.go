// Package verdict holds the answers nodetrust gives about images, as they appear in JSON.
// It is pure data: it links neither the image library nor any client.
package verdict

import (
	"fmt"
	"slices"
	"time"
)

// Answer is one of three: accept, refuse, unknown. Unknown means "could not tell" and is neither of the others.
type Answer string

// The three answers.
const (
	Accept  Answer = "accept"
	Refuse  Answer = "refuse"
	Unknown Answer = "unknown"
)

// Compare orders answers, the best first: accept, unknown, refuse.
func (a Answer) Compare(b Answer) int {
	order := []Answer{Accept, Unknown, Refuse}
	return slices.Index(order, a) - slices.Index(order, b)
}

// Worst returns the index of the first whose answer is the worst of all, -1 if there are none: where all must accept,
// it decides.
func Worst[T any](all []T, answer func(T) Answer) int {
	worst := -1
	for i, one := range all {
		if worst < 0 || answer(one).Compare(answer(all[worst])) > 0 {
			worst = i
		}
	}
	return worst
}

// Reason says why an answer was given. The set is closed: Reasons. An accept has the empty reason, unless it rests on
// something else than the image's own signature: TrustedByRelease. The table reasons says what each means.
type Reason string

// Reasons of a refusal: manifest, policy, keys and signatures could all be read, and the evaluation said no.
const (
	NoSignature       Reason = "NoSignature"
	WrongKey          Reason = "WrongKey"
	WrongIdentity     Reason = "WrongIdentity"
	WrongDigest       Reason = "WrongDigest"
	KeyExpired        Reason = "KeyExpired"
	SignatureExpired  Reason = "SignatureExpired"
	KeyRevoked        Reason = "KeyRevoked"
	KeyUnreadable     Reason = "KeyUnreadable"
	WeakOrUnsupported Reason = "WeakOrUnsupported"
	RejectedByPolicy  Reason = "RejectedByPolicy"
	ManifestForged    Reason = "ManifestForged"
	NotSignedFor      Reason = "NotSignedFor"
)

// Reasons of an unknown: something could not be read, or the OpenPGP mechanism can't judge it.
const (
	KeyMissing            Reason = "KeyMissing"
	MechanismCannotTell   Reason = "MechanismCannotTell"
	LookasideUnreachable  Reason = "LookasideUnreachable"
	LookasideForbidden    Reason = "LookasideForbidden"
	LookasideNotSignature Reason = "LookasideNotSignature"
	RegistryUnreachable   Reason = "RegistryUnreachable"
	RegistryRefused       Reason = "RegistryRefused"
	AttachmentsUnreadable Reason = "AttachmentsUnreadable"
	ManifestUnreadable    Reason = "ManifestUnreadable"
	Disagreement          Reason = "Disagreement"
	NotAsked              Reason = "NotAsked"
	ImageNotFound         Reason = "ImageNotFound"
	Unauthorized          Reason = "Unauthorized"
	RateLimited           Reason = "RateLimited"
	PolicyInvalid         Reason = "PolicyInvalid"
	RegistriesDInvalid    Reason = "RegistriesDInvalid"
	Timeout               Reason = "Timeout"
	RuntimeFailed         Reason = "RuntimeFailed"
	FileMissing           Reason = "FileMissing"
)

// TrustedByRelease is the one reason of an accept: the policy alone would not accept the image, or says nothing of
// it, but a verified OpenShift release names its digest.
const TrustedByRelease Reason = "TrustedByRelease"

// Cause says why there is no signature, as far as that can be told: it splits the reason NoSignature. The set is
// closed: Causes. The first that holds, in that order, is reported. The table causes says what each means.
type Cause string

// Causes of NoSignature.
const (
	NotInLayout        Cause = "NotInLayout"
	OnlyIndexSigned    Cause = "OnlyIndexSigned"
	WrongRegistriesKey Cause = "WrongRegistriesKey"
	AttachmentsOff     Cause = "AttachmentsOff"
	MirrorUnsigned     Cause = "MirrorUnsigned"
	BundleFormat       Cause = "BundleFormat"
	OtherKind          Cause = "OtherKind"
	RegistryServesNone Cause = "RegistryServesNone"
	NoLookaside        Cause = "NoLookaside"
	NotSigned          Cause = "NotSigned"
)

// Outcome is an answer, and why it was given.
type Outcome struct {
	Answer Answer `json:"verdict"`
	Reason Reason `json:"reason"`
	// Cause is there with reason NoSignature only.
	Cause Cause `json:"cause,omitempty"`
	// Message is a sentence for people; its words may change.
	Message string `json:"message"`
	// Hint is the next step for an admin, when there is one.
	Hint string `json:"hint,omitempty"`
}

// Why is the reason and the message in one line.
func (o Outcome) Why() string {
	if o.Reason == "" {
		return o.Message
	}
	return fmt.Sprintf("%s: %s", o.Reason, o.Message)
}

// Verdict is the outcome for one image under one policy.
type Verdict struct {
	// Image is the reference as asked for, without the docker:// prefix.
	Image string `json:"image"`
	// Judged says what was judged in its place, where that isn't Image itself: an image of the node's storage is judged
	// there with its stored signatures ("containers-storage:ID"), or by its digest in the registry ("docker://REFERENCE").
	Judged string `json:"judged,omitempty"`
	// Digest is the manifest digest that was judged (the instance's, for a multi-arch image). Empty if none was fetched.
	Digest string `json:"digest,omitempty"`
	// Index is the digest of the manifest list the instance was chosen from; empty for a single-arch image.
	Index string `json:"index,omitempty"`
	Outcome
	// Mechanism is the OpenPGP mechanism that judged: "gpgme" or "openpgp" (pure Go).
	Mechanism    string        `json:"mechanism,omitempty"`
	Scope        *Scope        `json:"scope,omitempty"`
	Lookaside    *Lookaside    `json:"lookaside,omitempty"`
	Requirements []Requirement `json:"requirements,omitempty"`
}

// Scope is the section of policy.json that was used alone.
type Scope struct {
	Transport string `json:"transport"`
	// Name is the scope as written in policy.json; "" for a transport's or the top-level default.
	Name string `json:"name"`
	// Matched says how: "exact", "repository", "namespace", "host", "wildcard", "transport-default" or "default".
	Matched string `json:"matched"`
}

// Lookaside is where detached signatures of the image are looked up.
type Lookaside struct {
	URL string `json:"url"`
	// File is the registries.d file that names the URL; empty for the built-in default.
	File string `json:"file,omitempty"`
}

// Requirement is one entry of the scope's list; all must accept.
type Requirement struct {
	// Type is policy.json's: signedBy, sigstoreSigned, insecureAcceptAnything, reject, signedBaseLayer.
	Type string `json:"type"`
	// Keys are full fingerprints (upper-case hex) for signedBy where the key could be parsed, else paths.
	Keys []string `json:"keys,omitempty"`
	// Identity is the type of signedIdentity.
	Identity   string      `json:"identity,omitempty"`
	Answer     Answer      `json:"verdict"`
	Reason     Reason      `json:"reason,omitempty"`
	Signatures []Signature `json:"signatures,omitempty"`
}

// Signature is one signature judged against one requirement.
type Signature struct {
	// Source is the URL or file it was read from.
	Source string `json:"source"`
	Answer Answer `json:"verdict"`
	// Signer is the full fingerprint (upper-case hex), or the 16-digit key ID where only that is known. It is
	// proven only when Verdict is accept; else it is what the signature claims.
	Signer string `json:"signer,omitempty"`
	// Packet is the version of the OpenPGP signature packet (3, 4 or 6); 0 if there is none.
	Packet int `json:"packet,omitempty"`
	// Digest and Reference are what the signature says it is for. Claims only, unless Verdict is accept.
	Digest    string `json:"digest,omitempty"`
	Reference string `json:"reference,omitempty"`
	// Expires is when the signature, or the certificate that it was made with, ends; absent if neither does.
	Expires time.Time `json:"expires,omitzero"`
	Reason  Reason    `json:"reason"`
	Message string    `json:"message,omitempty"`
}
