package audit

import (
	"fmt"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// need says what images need, "needs …", or what they are, "is …". In of and text {scope} and the like stand for what
// is said of an image; of tells needs of one kind apart.
type need struct{ kind, of, text string }

// needs are those of images by the reason of their verdict.
var needs = map[verdict.Reason]need{
	verdict.WrongKey: {
		"key", "{signer} {scope}", "is signed by key {signer}, which is none of scope {scope}",
	},
	verdict.KeyExpired:            {"key", "{signer}", "is signed by key {signer}, which has expired"},
	verdict.KeyRevoked:            {"key", "{signer}", "is signed by key {signer}, which was revoked"},
	verdict.WrongIdentity:         {"identity", "{scope} {place}", "is signed under another name than the identity of scope {scope} accepts for {place}"},
	verdict.WrongDigest:           {"signature", "{place}", "needs a new signature for {place}"},
	verdict.SignatureExpired:      {"signature", "{place}", "needs a new signature for {place}"},
	verdict.WeakOrUnsupported:     {"signature", "{place}", "needs a new signature for {place}"},
	verdict.RejectedByPolicy:      {"rejected", "{scope}", "is rejected by scope {scope}"},
	verdict.KeyMissing:            {"key", "{message}", "needs a key of scope {scope}: {message}"},
	verdict.KeyUnreadable:         {"key", "{message}", "needs a key of scope {scope}: {message}"},
	verdict.LookasideUnreachable:  {"lookaside", "{lookaside}", "needs the lookaside {lookaside} to work"},
	verdict.LookasideForbidden:    {"lookaside", "{lookaside}", "needs the lookaside {lookaside} to work"},
	verdict.LookasideNotSignature: {"lookaside", "{lookaside}", "needs the lookaside {lookaside} to work"},
	verdict.RegistryUnreachable:   {"registry", "{host}", "needs an answer of {host}"},
	verdict.RateLimited:           {"registry", "{host}", "needs an answer of {host}"},
	verdict.Timeout:               {"registry", "{host}", "needs an answer of {host}"},
	verdict.RegistryRefused:       {"permission", "{host}", "needs the permission of {host}, which answers and says no"},
	verdict.AttachmentsUnreadable: {"attachments", "{host}", "needs sigstore attachments that {host} lets be read, or none configured"},
	verdict.ManifestForged:        {"forged", "{place}", "is of schema 1, which can be forged: push anew and sign {place}"},
	verdict.ManifestUnreadable:    {"manifest", "{place}", "needs a manifest that runtimes can use, for {place}"},
	verdict.Disagreement:          {"disagreement", "{place}", "is accepted by the image library and not by a second look: report {place}"},
	verdict.NotSignedFor:          {"signer", "{scope} {place}", "needs a signature, which nobody asks for: {policy} accepts {place} without one"},
	verdict.NotAsked:              {"asked", "", "is not looked at: nothing was asked"},
	verdict.Unauthorized:          {"login", "{host}", "needs a login for {host}"},
	verdict.ImageNotFound:         {"absent", "{host}", "is not to be had from {host}"},
	verdict.PolicyInvalid:         {"policy", "", "needs a policy that loads: {message}"},
	verdict.RegistriesDInvalid:    {"policy", "", "needs a policy that loads: {message}"},
	verdict.MechanismCannotTell:   {"mechanism", "", "needs another OpenPGP mechanism to be judged"},
}

// needsOfUnsigned are those of images without a signature, by the cause.
var needsOfUnsigned = map[verdict.Cause]need{
	verdict.OnlyIndexSigned:    {"instance", "{place}", "needs signatures of the instances, not only of the image index, for {place}"},
	verdict.WrongRegistriesKey: {"registriesd", "{place}", "needs a key of registries.d that nodes read for {place}"},
	verdict.AttachmentsOff:     {"attachments", "{place}", "needs use-sigstore-attachments in registries.d for {place}"},
	verdict.MirrorUnsigned:     {"mirror", "{lookaside}", "needs signatures in the mirror's lookaside {lookaside}"},
	verdict.BundleFormat:       {"format", "{place}", "needs signatures in the format that nodes read (not sigstore bundles) for {place}"},
	verdict.OtherKind:          {"kind", "{place}", "needs the other kind of signature (GPG or sigstore), or a policy that takes what there is, for {place}"},
	verdict.RegistryServesNone: {"signature", "{host}", "needs a signature that {host} serves"},
	verdict.NoLookaside:        {"lookaside", "{place}", "needs a lookaside for {place}"},
}

func needOf(m *Image) need {
	byReason, known := needs[m.Reason]
	byCause, explained := needsOfUnsigned[m.Cause]
	unsigned := m.Reason == verdict.NoSignature
	switch {
	case m.Answer == verdict.Accept:
		return need{"subkey", "{scope}", "is signed by a subkey only, which older runtimes refuse"}
	case m.Interrupted:
		return need{"interrupted", "", "is not judged: the audit was interrupted"}
	case m.Canary:
		return need{"canary", "", "is the refuse-canary of the policy and in use: choose another image as the canary"}
	case m.VouchedBy != "" && m.Answer == verdict.Refuse:
		return need{"release", "{release}", "needs a scope of its own: the verified release {release} vouches for it"}
	case unsigned && explained:
		return byCause
	case unsigned && refusing(m).Type == policy.SigstoreSigned:
		return need{"signature", "{place}", "needs a sigstore signature for {place}"}
	case unsigned && (m.Lookaside == nil || m.Lookaside.File == ""):
		return needsOfUnsigned[verdict.NoLookaside]
	case unsigned:
		return need{"signature", "{lookaside} {place}", "needs a signature in {lookaside} for {place}"}
	case m.Reason == verdict.RejectedByPolicy && scope(m) == "default":
		return need{"entry", "{place}", "needs an entry for {place}: the policy's default is to reject"}
	case known:
		return byReason
	}
	return need{"other", string(m.Reason), "is " + string(m.Answer) + ": " + string(m.Reason)}
}

// fixOf returns the Fix of images that need what an image needs which is not accepted by every runtime. Its title is
// that of one image, without the number.
func fixOf(m *Image) Fix {
	n := needOf(m)
	fill := strings.NewReplacer("{place}", place(m), "{scope}", scope(m), "{policy}", m.Scope.String(),
		"{host}", ref.Host(m.name), "{lookaside}", base(m), "{signer}", signers(m), "{release}", m.VouchedBy,
		"{message}", m.Message)
	id := strings.Join([]string{string(m.Answer), string(m.Reason), n.kind, fill.Replace(n.of)}, ":")
	return Fix{ID: id, Answer: m.Answer, Reason: m.Reason, Hint: m.Hint, Title: fill.Replace(n.text)}
}

// title returns the sentence on a number of images: "14 images need a signature" for "needs a signature".
func title(images int, text string) string {
	if images == 1 {
		return "1 image " + text
	}
	verb, rest, _ := strings.Cut(text, " ")
	return fmt.Sprintf("%d images %s %s", images, map[string]string{"needs": "need", "is": "are"}[verb], rest)
}

// place returns where one entry of the policy or one lookaside helps: the scope if it is a repository or a namespace,
// else the first namespace of the image.
func place(m *Image) string {
	if m.Scope != nil && (m.Scope.Matched == "repository" || m.Scope.Matched == "namespace") {
		return m.Scope.Name
	}
	parts := strings.Split(ref.Name(m.name), "/")
	if len(parts) < 3 {
		return parts[0]
	}
	return parts[0] + "/" + parts[1]
}

func scope(m *Image) string {
	switch {
	case m.Scope == nil:
		return "?"
	case m.Scope.Matched == "default" || m.Scope.Matched == "transport-default":
		return "default"
	}
	return m.Scope.Name
}

// base returns the lookaside of an image without its repository.
func base(m *Image) string {
	if m.Lookaside == nil {
		return "of " + ref.Host(m.name)
	}
	_, path, _ := strings.Cut(ref.Name(m.name), "/")
	return strings.TrimSuffix(m.Lookaside.URL, "/"+path)
}

func refusing(m *Image) verdict.Requirement {
	for _, r := range m.Requirements {
		if r.Answer == m.Answer && r.Reason == m.Reason {
			return r
		}
	}
	return verdict.Requirement{}
}

func signers(m *Image) string {
	for _, s := range refusing(m).Signatures {
		if s.Reason == m.Reason && s.Signer != "" {
			return s.Signer
		}
	}
	return "unknown"
}
