package probe

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Prefixes by which CRI-O distinguishes failures. Only they are stable over gRPC: no error types cross the socket, and
// the code is always Unknown.
const (
	criSignatureInvalid    = "SignatureValidationFailed"
	criRegistryUnavailable = "RegistryUnavailable"
)

// classifyCRI judges the message of a failed PullImage. The prefix alone makes it a refusal by policy. The rest of the
// text gives the reason, and makes it unknown if it names something unreadable.
func classifyCRI(message string) verdict.Verdict {
	if tail, ok := strings.CutPrefix(message, criSignatureInvalid); ok {
		// Of a multi-arch image: "copying system image from manifest list: Source image rejected: …".
		if _, after, ok := strings.Cut(tail, "Source image rejected: "); ok {
			tail = after
		}
		return refused(strings.TrimPrefix(tail, ": "))
	}
	tail, unavailable := strings.CutPrefix(message, criRegistryUnavailable)
	switch {
	case unavailable && lookasideURL().MatchString(tail):
		return answer(verdict.Unknown, verdict.LookasideUnreachable, message)
	case unavailable:
		return answer(verdict.Unknown, verdict.RegistryUnreachable, message)
	}
	return answer(verdict.Unknown, unknownReason(message), message)
}

// answer returns a verdict that a runtime's words stand for.
func answer(a verdict.Answer, reason verdict.Reason, message string) verdict.Verdict {
	return verdict.Verdict{Outcome: verdict.Outcome{Answer: a, Reason: reason, Message: outside.Text(message)}}
}

// A registry chooses parts of the text: the marker counts only in front of them.
var podmanRejected = lazily(`^Error: (?:unable to copy from source \S+: )?` +
	`(?:copying (?:system image|image \d+/\d+) from manifest list: )?Source image rejected: `)

// classifyPodman judges the stderr of a failed podman pull. Podman has one exit status and no classes of text, so only
// known refusals by policy count as such.
func classifyPodman(stderr string) verdict.Verdict {
	text := errorLine(stderr)
	message := strings.TrimPrefix(text, "Error: ")
	if at := podmanRejected().FindStringIndex(text); at != nil {
		tail := text[at[1]:]
		if _, known := refusalReason(tail); known {
			return refused(tail)
		}
		if reason, known := match(inFact, tail); known {
			return answer(verdict.Refuse, reason, message)
		}
	}
	return answer(verdict.Unknown, unknownReason(text), message)
}

// errorLine returns everything from the first line with "Error: " at its start: the rest may be the registry's words.
// Podman writes progress and (quoted) warnings before it.
func errorLine(stderr string) string {
	text := strings.TrimSpace(stderr)
	if !strings.HasPrefix(text, "Error: ") {
		if i := strings.Index(text, "\nError: "); i >= 0 {
			text = text[i+1:]
		}
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// refused returns the verdict for a text of the policy evaluation. The library reports a missing key or an unreachable
// lookaside as a refusal if there are two signatures: it is unknown all the same.
func refused(tail string) verdict.Verdict {
	if reason, known := refusalReason(tail); known {
		return answer(verdict.Refuse, reason, tail)
	}
	switch r := unknownReason(tail); r {
	case verdict.KeyMissing, verdict.LookasideUnreachable, verdict.RegistryUnreachable, verdict.MechanismCannotTell:
		return answer(verdict.Unknown, r, tail)
	}
	return answer(verdict.Refuse, verdict.WeakOrUnsupported, tail) // a refusal in words that are not in the table
}

// lazily compiles a regular expression at its first use: most commands never judge a runtime's text.
func lazily(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

type pattern struct {
	re     func() *regexp.Regexp
	reason verdict.Reason
}

// refusals are the texts of the policy evaluation's own errors (PolicyRequirementError and InvalidSignatureError),
// measured with both OpenPGP mechanisms. Each must match from the start: identities and URLs follow.
var refusals = []pattern{
	{lazily(`^A signature was required, but no signature exists`), verdict.NoSignature},
	{lazily(`^Running image .* is rejected by policy\.?`), verdict.RejectedByPolicy},
	{lazily(`^Signature for identity .* is not accepted`), verdict.WrongIdentity},
	{lazily(`^Signature for digest .* does not match`), verdict.WrongDigest},
	{lazily(`^Key not found for key ID `), verdict.WrongKey},
	{lazily(`^Invalid GPG signature: .*err:0x9\b`), verdict.WrongKey},
	{lazily(`^Invalid GPG signature: .*err:0x7000099\b`), verdict.KeyExpired},
	{lazily(`^Invalid GPG signature: .*err:0x700009a\b`), verdict.SignatureExpired},
	{lazily(`^Invalid GPG signature: .*err:0x700005e\b`), verdict.KeyRevoked},
	{lazily(`^Invalid GPG signature: `), verdict.WeakOrUnsupported},
	{lazily(`^No public keys imported`), verdict.KeyUnreadable},
}

// inFact are refusals among other errors: the pure-Go mechanism has no type for them.
var inFact = []pattern{
	{lazily(`signature error: openpgp: key expired`), verdict.KeyExpired},
	{lazily(`signature error: openpgp: signature expired`), verdict.SignatureExpired},
	{lazily(`signature error: openpgp: signature made by revoked key`), verdict.KeyRevoked},
	{lazily(`tag byte does not have MSB set`), verdict.KeyUnreadable},
	{lazily(`^not signed$`), verdict.WeakOrUnsupported},
}

const severalSignatures = "None of the signatures were accepted, reasons: "

// refusalReason returns why the policy evaluation refused. Of several signatures the one that passed most checks
// counts: a known signer with another identity says more than a foreign key. It returns false if one could not be
// judged.
func refusalReason(tail string) (verdict.Reason, bool) {
	reasons, several := strings.CutPrefix(tail, severalSignatures)
	if !several {
		return match(refusals, tail)
	}
	found := map[verdict.Reason]bool{}
	for part := range strings.SplitSeq(reasons, "; ") {
		reason, ok := match(slices.Concat(refusals, inFact), part)
		if !ok {
			return "", false
		}
		found[reason] = true
	}
	for _, reason := range []verdict.Reason{
		verdict.WrongIdentity, verdict.WrongDigest, verdict.KeyRevoked, verdict.KeyExpired, verdict.SignatureExpired,
		verdict.WrongKey, verdict.KeyUnreadable, verdict.WeakOrUnsupported, verdict.NoSignature,
	} {
		if found[reason] {
			return reason, true
		}
	}
	return "", false
}

func match(ps []pattern, text string) (verdict.Reason, bool) {
	for _, p := range ps {
		if p.re().MatchString(text) {
			return p.reason, true
		}
	}
	return "", false
}

var lookasideURL = lazily(`@sha256=[0-9a-f]{64}/signature-\d+`)

// attachments matches where the image library looked for an image's sigstore signatures.
const attachments = `(?:manifest|manifest body) sha256-[0-9a-f]{64}\.sig in `

// unknowns name obstacles, in this order. They never make a refusal.
var unknowns = []pattern{
	{
		lazily(`invalid policy in "|no policy\.json file found|open \S*policy\.json: |no policy\.json file`),
		verdict.PolicyInvalid,
	},
	{
		lazily(`Error parsing signature storage configuration: |parsing \S*/registries\.(?:d|rootful\.d|rootless\.d)/\S+: `),
		verdict.RegistriesDInvalid,
	},
	{
		lazily(`unrecognized signature format|Parsing signature failed|server provided \d+ signatures`),
		verdict.LookasideNotSignature,
	},
	{lazily(attachments + `.*(?:toomanyrequests|too many requests|429 )`), verdict.RateLimited},
	{
		lazily(attachments + `.*(?:context deadline exceeded|Client\.Timeout|i/o timeout|TLS handshake timeout)`),
		verdict.Timeout,
	},
	{lazily(attachments), verdict.AttachmentsUnreadable},
	{lazily(`reading signatures? from .*(?:401|403)`), verdict.LookasideForbidden},
	{lazily(`reading signatures?(?: from|:) |@sha256=[0-9a-f]{64}/signature-\d+`), verdict.LookasideUnreachable},
	{lazily(`(?:^|: )open \S+: (?:no such file or directory|permission denied)`), verdict.KeyMissing},
	{
		lazily(`LiteralData not followed by signature|sigstore disabled|Unimplemented "keyType"`),
		verdict.MechanismCannotTell,
	},
	{lazily(`toomanyrequests|429 Too Many|Too Many Requests`), verdict.RateLimited},
	{lazily(`unauthorized|authentication required|denied: |401 |403 `), verdict.Unauthorized},
	{lazily(`name unknown|manifest unknown|404 `), verdict.ImageNotFound},
	{lazily(`context deadline exceeded|Client\.Timeout|i/o timeout|TLS handshake timeout`), verdict.Timeout},
	{lazily(`pinging container registry|is blocked in |connection refused|no such host|x509: |connection reset|server gave HTTP response|EOF|received unexpected HTTP status: 5`), verdict.RegistryUnreachable},
}

func unknownReason(text string) verdict.Reason {
	if reason, ok := match(slices.Concat(unknowns, inFact), text); ok {
		return reason
	}
	return verdict.RuntimeFailed
}
