package probe

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Texts as CRI-O 1.34.0 writes them, built with either OpenPGP mechanism.
func TestClassifyCRI(t *testing.T) {
	const gpgme = `Invalid GPG signature: gpgme.Signature{Summary:128, Fingerprint:"3E82", Status:gpgme.Error{err:0x%}, Timestamp:time.Date(2026, time.November, 1, 0, 0, 0, 0, time.Local)}`
	code := func(s string) string { return strings.Replace(gpgme, "%", s, 1) }
	const refusal = "SignatureValidationFailed: Source image rejected: "
	for _, tt := range []struct {
		name, text string
		want       verdict.Answer
		reason     verdict.Reason
	}{
		{"unsigned", refusal + "A signature was required, but no signature exists", verdict.Refuse, verdict.NoSignature},
		{
			"reject", refusal + "Running image docker://127.0.0.1:5000/other/app:v1 is rejected by policy.", verdict.Refuse,
			verdict.RejectedByPolicy,
		},
		{
			"wrong key, pure Go", refusal + "Key not found for key ID b2bd1c5a4ae2d6f0 in signature", verdict.Refuse,
			verdict.WrongKey,
		},
		{"wrong key, gpgme", refusal + code("9"), verdict.Refuse, verdict.WrongKey},
		{"expired key", refusal + code("7000099"), verdict.Refuse, verdict.KeyExpired},
		{"expired signature", refusal + code("700009a"), verdict.Refuse, verdict.SignatureExpired},
		{"revoked", refusal + code("700005e"), verdict.Refuse, verdict.KeyRevoked},
		{"other gpgme code", refusal + code("27"), verdict.Refuse, verdict.WeakOrUnsupported},
		{"identity", refusal + `Signature for identity "h/other:v1" is not accepted`, verdict.Refuse, verdict.WrongIdentity},
		{
			"identity, older", refusal + `Signature for identity h/other:v1 is not accepted`, verdict.Refuse,
			verdict.WrongIdentity,
		},
		{"digest", refusal + "Signature for digest sha256:1 does not match", verdict.Refuse, verdict.WrongDigest},
		{"no key in file", refusal + "No public keys imported", verdict.Refuse, verdict.KeyUnreadable},
		{"index", "SignatureValidationFailed: copying system image from manifest list: Source image rejected: A signature was required, but no signature exists", verdict.Refuse, verdict.NoSignature},
		{"several", refusal + "None of the signatures were accepted, reasons: " + code("9") +
			`; Signature for identity "h/o:v1" is not accepted`, verdict.Refuse, verdict.WrongIdentity},
		{"several, key missing", refusal + "None of the signatures were accepted, reasons: open /k: no such file or directory; open /k: no such file or directory", verdict.Unknown, verdict.KeyMissing},
		{"unknown tail", refusal + "the moon is in the wrong phase", verdict.Refuse, verdict.WeakOrUnsupported},
		{"prefix alone", "SignatureValidationFailed", verdict.Refuse, verdict.WeakOrUnsupported},
		{
			"key missing", "Source image rejected: open /etc/pki/k: no such file or directory", verdict.Unknown,
			verdict.KeyMissing,
		},
		{
			"broken policy", `invalid policy in "/etc/containers/policy.json": unexpected end of JSON input`, verdict.Unknown,
			verdict.PolicyInvalid,
		},
		{"no policy", `no policy.json file found at any of the following: "/root/.config/containers/policy.json", "/etc/containers/policy.json"`, verdict.Unknown, verdict.PolicyInvalid},
		{"scope twice", `Error parsing signature storage configuration: "docker" namespace "h" defined both in "a.yaml" and "b.yaml"`, verdict.Unknown, verdict.RegistriesDInvalid},
		{"bad YAML", "unable to try pulling possible OCI artifact: build image source: parsing /etc/containers/registries.d/bad.yaml: yaml: line 1: did not find expected node content", verdict.Unknown, verdict.RegistriesDInvalid},
		{"absent", "unable to try pulling possible OCI artifact: build image source: reading manifest v1 in h/r: name unknown: Unknown name", verdict.Unknown, verdict.ImageNotFound},
		{"registry down", `RegistryUnavailable: pinging container registry h: Get "http://h/v2/": dial tcp: connect: connection refused`, verdict.Unknown, verdict.RegistryUnreachable},
		{"lookaside down", `RegistryUnavailable: Source image rejected: Get "http://h/r@sha256=` + strings.Repeat("a", 64) +
			`/signature-1": dial tcp: connect: connection refused`, verdict.Unknown, verdict.LookasideUnreachable},
		{"lookaside forbids", "Source image rejected: reading signature from https://h/r@sha256=" + strings.Repeat("a", 64) +
			"/signature-1: received unexpected HTTP status: 403 Forbidden", verdict.Unknown, verdict.LookasideForbidden},
		{
			"lookaside sends HTML", "Source image rejected: unrecognized signature format, starting with binary 0x3c",
			verdict.Unknown, verdict.LookasideNotSignature,
		},
		{"v3 packet, pure Go", "Source image rejected: signature error: openpgp: invalid data: LiteralData not followed by signature", verdict.Unknown, verdict.MechanismCannotTell},
		{
			"sigstore switched off", "Source image rejected: Debian-local change: sigstore disabled", verdict.Unknown,
			verdict.MechanismCannotTell,
		},
		{
			"expired key, pure Go", "Source image rejected: signature error: openpgp: key expired", verdict.Unknown,
			verdict.KeyExpired,
		},
		{
			"attachments refused", "reading signatures: reading manifest sha256-" + strings.Repeat("a", 64) +
				".sig in h/r: denied: The client does not have permission for manifest", verdict.Unknown,
			verdict.AttachmentsUnreadable,
		},
		{"attachments throttled", "reading signatures: reading manifest sha256-" + strings.Repeat("a", 64) +
			".sig in h/r: toomanyrequests: slow down", verdict.Unknown, verdict.RateLimited},
		{"attachments late", "reading signatures: fetching manifest sha256-" + strings.Repeat("a", 64) +
			`.sig in h/r: Get "https://h/v2/": context deadline exceeded`, verdict.Unknown, verdict.Timeout},
		{
			"login", "unable to try pulling: reading manifest v1 in h/r: unauthorized: authentication required", verdict.Unknown,
			verdict.Unauthorized,
		},
		{
			"rate limit", "reading manifest v1 in h/r: toomanyrequests: You have reached your pull rate limit", verdict.Unknown,
			verdict.RateLimited,
		},
		{"blocked", "unable to try pulling: registry h is blocked in /etc/containers/registries.conf or /root/.config/containers/registries.conf.d", verdict.Unknown, verdict.RegistryUnreachable},
		{
			"no prefix", "Source image rejected: A signature was required, but no signature exists", verdict.Unknown,
			verdict.RuntimeFailed,
		},
		{"a registry's words", "reading manifest v1 in h/r: SignatureValidationFailed: Source image rejected: A signature was required, but no signature exists", verdict.Unknown, verdict.RuntimeFailed},
		{"empty", "", verdict.Unknown, verdict.RuntimeFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := classifyCRI(tt.text)
			if v.Answer != tt.want || v.Reason != tt.reason {
				t.Errorf("got %s %s, want %s %s", v.Answer, v.Reason, tt.want, tt.reason)
			}
			// Over gRPC the code is always the same; failures of the call itself are never a refusal.
			if over := pullFailure(status.Error(codes.Unknown, tt.text)); over.Answer != v.Answer || over.Reason != v.Reason {
				t.Errorf("over gRPC: %+v", over)
			}
			for _, c := range []codes.Code{codes.DeadlineExceeded, codes.Canceled, codes.Unavailable} {
				if over := pullFailure(status.Error(c, tt.text)); over.Answer != verdict.Unknown {
					t.Errorf("%s: %+v", c, over)
				}
			}
		})
	}
}

// Texts as podman 4.3.1 writes them to stderr, and forms of other versions.
func TestClassifyPodman(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       verdict.Answer
		reason     verdict.Reason
	}{
		{"unsigned", "Trying to pull h/r@sha256:1...\nError: Source image rejected: A signature was required, but no signature exists\n", verdict.Refuse, verdict.NoSignature},
		{
			"reject", "Error: Source image rejected: Running image docker://h/r:v1 is rejected by policy.", verdict.Refuse,
			verdict.RejectedByPolicy,
		},
		{"wrong key", `Error: Source image rejected: Invalid GPG signature: gpgme.Signature{Summary:128, Fingerprint:"3E82", Status:gpgme.Error{err:0x9}, x}`, verdict.Refuse, verdict.WrongKey},
		{
			"identity", "Error: Source image rejected: Signature for identity h/team/signed:v1 is not accepted", verdict.Refuse,
			verdict.WrongIdentity,
		},
		{"index", "Error: copying system image from manifest list: Source image rejected: A signature was required, but no signature exists", verdict.Refuse, verdict.NoSignature},
		{"podman 5", "Error: unable to copy from source docker://h/r@sha256:1: Source image rejected: A signature was required, but no signature exists", verdict.Refuse, verdict.NoSignature},
		{"podman 5, index", "Error: unable to copy from source docker://h/r@sha256:1: copying system image from manifest list: Source image rejected: Signature for digest sha256:2 does not match", verdict.Refuse, verdict.WrongDigest},
		{
			"pure Go, expired", "Error: Source image rejected: signature error: openpgp: key expired", verdict.Refuse,
			verdict.KeyExpired,
		},
		{"several, key missing", "Error: Source image rejected: None of the signatures were accepted, reasons: open /k: no such file or directory; open /k: no such file or directory", verdict.Unknown, verdict.KeyMissing},
		{
			"key missing", "Error: Source image rejected: open /k: no such file or directory", verdict.Unknown,
			verdict.KeyMissing,
		},
		{
			"unknown tail", "Error: Source image rejected: the moon is in the wrong phase", verdict.Unknown,
			verdict.RuntimeFailed,
		},
		{
			"policy missing", "Error: open /etc/containers/policy.json: no such file or directory", verdict.Unknown,
			verdict.PolicyInvalid,
		},
		{
			"policy broken", `Error: invalid policy in "/etc/containers/policy.json": unexpected end of JSON input`,
			verdict.Unknown, verdict.PolicyInvalid,
		},
		{
			"absent", "Error: initializing source docker://h/r:v1: reading manifest v1 in h/r: name unknown: Unknown name",
			verdict.Unknown, verdict.ImageNotFound,
		},
		{"unknown CA", `Error: initializing source docker://h/r:v1: pinging container registry h: Get "https://h/v2/": x509: certificate signed by unknown authority`, verdict.Unknown, verdict.RegistryUnreachable},
		{"a registry's words", "Error: initializing source docker://h/r:v1: reading manifest v1 in h/r: unknown: Source image rejected: A signature was required, but no signature exists", verdict.Unknown, verdict.RuntimeFailed},
		{"a registry's line", "Error: initializing source docker://h/r:v1: reading manifest v1 in h/r: unknown: x\nError: Source image rejected: A signature was required, but no signature exists", verdict.Unknown, verdict.RuntimeFailed},
		{
			"no Error", "Source image rejected: A signature was required, but no signature exists", verdict.Unknown,
			verdict.RuntimeFailed,
		},
		{"empty", "", verdict.Unknown, verdict.RuntimeFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if v := classifyPodman(tt.text); v.Answer != tt.want || v.Reason != tt.reason {
				t.Errorf("got %s %s (%s), want %s %s", v.Answer, v.Reason, v.Message, tt.want, tt.reason)
			}
		})
	}
}

// No text without the class or the anchored marker makes a refusal, and no message gets through unbounded or raw.
func FuzzClassify(f *testing.F) {
	f.Add("Error: Source image rejected: A signature was required, but no signature exists")
	f.Add("SignatureValidationFailed: None of the signatures were accepted, reasons: ; ; ")
	f.Fuzz(func(t *testing.T, text string) {
		c, p := classifyCRI(text), classifyPodman(text)
		if c.Answer == verdict.Refuse && !strings.HasPrefix(text, "SignatureValidationFailed") {
			t.Errorf("CRI: %q is no refusal", text)
		}
		if p.Answer == verdict.Refuse && !podmanRejected().MatchString(errorLine(text)) {
			t.Errorf("podman: %q is no refusal", text)
		}
		for _, v := range []verdict.Verdict{c, p} {
			if len(v.Message) > outside.Most || strings.ContainsFunc(v.Message, func(r rune) bool { return r < ' ' }) {
				t.Errorf("message %q", v.Message)
			}
			if v.Answer == verdict.Accept || v.Reason == "" {
				t.Errorf("got %+v", v)
			}
		}
	})
}
