package verdict

import "strings"

// reasons is the closed set, in the order of docs/reasons.md, whose tables are made from it.
var reasons = []struct {
	reason Reason
	answer Answer // the answer that the reason goes with
	means  string // for the page
	hint   string // the next step for an admin; "" if the message says it
	next   string // the next step for the page, where there is no hint
}{
	{
		reason: TrustedByRelease, answer: Accept,
		means: "the policy accepts, but asked for no signature of the image's own: a verified OpenShift release names its digest. `audit --release` only; a refusal stays one, and the hint says who vouches",
		next:  "the policy of the nodes must say so too: `nodetrust release verify --to-policy` writes it",
	},
	{
		reason: NoSignature, answer: Refuse,
		means: "the lookaside (or the registry's attachments) has no signature of this manifest",
		hint:  "check that the lookaside URL is the signer's and that this image was signed; runtimes check the instance of a multi-arch image, not its index",
	},
	{
		reason: WrongKey, answer: Refuse,
		means: "no accepted key made the signature, or the signature doesn't verify because it was altered",
		hint:  "compare the signer's fingerprint with the keys of the scope; another signer may need a scope of its own",
	},
	{
		reason: WrongIdentity, answer: Refuse,
		means: "well signed, but for another reference than `signedIdentity` accepts",
		hint:  "pull by the signed reference or by digest, or say matchRepository, exactReference or remapIdentity in signedIdentity",
	},
	{
		reason: WrongDigest, answer: Refuse,
		means: "well signed, but for another manifest",
		hint:  "the signature belongs to another manifest: the lookaside holds a misplaced file, or the image was changed after signing",
	},
	{
		reason: KeyExpired, answer: Refuse,
		means: "the signer's key has expired; signatures made before that don't count either",
		hint:  "get the signer's extended or new public key",
	},
	{
		reason: SignatureExpired, answer: Refuse,
		means: "the signature itself was made with an expiry that is over (`expires` beside it; an accepted one has it too)",
		hint:  "the image must be signed again",
	},
	{
		reason: KeyRevoked, answer: Refuse,
		means: "the signer's key was revoked",
		hint:  "the signer's key must no longer be trusted; the image must be signed with another key",
	},
	{
		reason: KeyUnreadable, answer: Refuse,
		means: "a key file is there but no public key is inside it that the mechanism can use; a post-quantum key (OpenPGP v6) alone in a file is named with its algorithm, as gpg 2.2 reads nothing of it",
		hint:  "replace the key file by an exported OpenPGP public key",
	},
	{
		reason: WeakOrUnsupported, answer: Refuse,
		means: "no usable container signature: MD5, cut off, bytes after it, two signatures in one file, other content, a sigstore attachment of another media type or with another payload; or a requirement that the image library never implemented (`signedBaseLayer`, `keyType` other than `GPGKeys`): mend the policy then",
		hint:  "the image must be signed again, in a form and with an algorithm that runtimes take",
	},
	{
		reason: RejectedByPolicy, answer: Refuse,
		means: "the scope is `reject`",
		hint:  "a more specific scope of policy.json can make an exception: the first one of the image's reference, its repository, the parents of that and its host is used alone",
	},
	{
		reason: ManifestForged, answer: Refuse,
		means: "the manifest carries a signature of its own (schema 1), and the scope demands one of its signers: image libraries up to 5.42.0 take the digest of such a manifest from a payload that the server chooses",
		hint:  "push the image again as OCI or Docker schema 2 and sign that; a manifest of schema 1 that nobody of yours made is a forgery",
	},
	{
		reason: NotSignedFor, answer: Refuse,
		means: "with `--require-signed` of `verify`, `explain` or `audit`: the policy accepts the image, and no signature stands behind the accept (`audit`: nor that of a release)",
		hint:  "sign the image, and demand the signature in policy.json",
	},
	{
		reason: KeyMissing, answer: Unknown,
		means: "a key file that the policy names is not there, or this process may not read it. Said with or without signatures: runtimes notice only with one",
		hint:  "install the key file on the host, or give the key inline",
	},
	{
		reason: MechanismCannotTell, answer: Unknown,
		means: "only the mechanism stands in the way: the pure-Go build and OpenPGP v3 packets (genuine Red Hat signatures until 2022 are), or gpg is missing or didn't work, which the hint says then",
		hint:  "judge with a build of nodetrust that has gpgme (see nodetrust version)",
	},
	{
		reason: LookasideUnreachable, answer: Unknown,
		means: "refused, not found by name, bad TLS, 5xx, an unknown URL scheme",
		hint:  "check the lookaside URL, its TLS and the way to it: runtimes need it for every pull of this scope",
	},
	{
		reason: LookasideForbidden, answer: Unknown,
		means: "401 or 403 where a signature or its end is looked for",
		hint:  "the lookaside must answer 404 where no signature is; 403 stops the pull",
	},
	{
		reason: LookasideNotSignature, answer: Unknown,
		means: "it answered something else: a web page, an armored file, 128 signatures or more, with which runtimes give up, or more than `--max-signatures`, one larger than 64 KiB (`--max-signature-size`, at most 4 MiB as for runtimes), or one that unpacks to more than 1 MiB",
		hint:  "the lookaside must serve the binary signature files, not a web page, and at most 128 of 64 KiB each",
	},
	{
		reason: RegistryUnreachable, answer: Unknown,
		means: "no manifest from the registry or its mirrors: refused, bad TLS, 5xx, blocked in registries.conf",
		hint:  "check the registry's name, TLS and the way to it; mirrors come from registries.conf",
	},
	{
		reason: RegistryRefused, answer: Unknown,
		means: "the registry answered, and the answer was no: a 4xx that is neither a login, nor absence, nor too many requests (Harbor's 412, for example). Status and words are in the message, the words up to 500 bytes",
		hint:  "the registry is up and says no: ask who runs it, its words are in the message",
	},
	{
		reason: AttachmentsUnreadable, answer: Unknown,
		means: "the image could be read, its sigstore attachments could not: runtimes read them before they pull, also where the policy demands none. Artifactory answers 403 for a tag that isn't there, others 404 with the code `NAME_UNKNOWN`: to runtimes neither is \"nothing attached\"",
		hint:  "say use-sigstore-attachments: false for the scope in registries.d, or give the right to read the signature's tag: runtimes read it before they pull",
	},
	{
		reason: ManifestUnreadable, answer: Unknown,
		means: "no runtime can use the manifest: its type is unknown or none was sent, it is an index inside an index, or it is two kinds at once",
		hint:  "push the image again; a mirror must send each manifest's own Content-Type",
	},
	{
		reason: Disagreement, answer: Unknown,
		means: "the image library accepts, and nodetrust's own look at the same bytes does not: digest, claim, identity or signer differ",
		hint:  "don't pull the image, and report this with the output of nodetrust explain -o json",
	},
	{
		reason: NotAsked, answer: Unknown,
		means: "`explain --offline`: registry and lookaside were not asked",
		hint:  "without --offline they are asked",
	},
	{
		reason: ImageNotFound, answer: Unknown,
		means: "the registry has no such image, none for the platform, or answered with another manifest than the digest asked for; an `oci:` layout has several images and none is named",
		hint:  "check the reference and the platform",
	},
	{
		reason: Unauthorized, answer: Unknown,
		means: "401 or 403 from the registry",
		hint:  "give credentials with --authfile",
	},
	{
		reason: RateLimited, answer: Unknown,
		means: "429",
		hint:  "try again later, or log in with --authfile",
	},
	{
		reason: PolicyInvalid, answer: Unknown,
		means: "policy.json is missing or doesn't load: runtimes can pull nothing",
		hint:  "see nodetrust lint; as it is, a runtime can pull nothing",
	},
	{
		reason: RegistriesDInvalid, answer: Unknown,
		means: "a file of registries.d, or registries.conf, doesn't load: runtimes can pull nothing; or the lookaside of the image is no URL: nothing of its scope, whoever is asked",
		hint:  "see nodetrust lint; as it is, a runtime can pull nothing",
	},
	{
		reason: Timeout, answer: Unknown,
		means: "no end within `--timeout`, or interrupted",
		hint:  "try again with a longer --timeout",
	},
	{
		reason: FileMissing, answer: Unknown,
		means: "`verify-checksums` only: a file of the signed list is not there, or can't be read",
		next:  "get the file, or `--ignore-missing`",
	},
	{
		reason: RuntimeFailed, answer: Unknown,
		means: "`probe` only: the runtime can't be asked, or failed in words that name nothing of the above",
		next:  "see the message, and the runtime's log",
	},
}

// causes is the closed set, in the order of docs/reasons.md. The columns are those of reasons. A hint may have HOST in
// place of the registry.
var causes = []struct {
	cause             Cause
	means, hint, next string
}{
	{
		cause: NotInLayout,
		means: "an `oci:` layout holds no signatures that runtimes read",
		hint:  "judge the image in its registry, or a dir: copy, which keeps signatures",
	},
	{
		cause: OnlyIndexSigned,
		means: "the index of a multi-arch image is signed, with GPG or cosign as the policy demands; runtimes check the instance that they pull",
		hint:  "sign every instance of the image index too (skopeo and podman: copy --all with --sign-by)",
		next:  "sign every instance too: `skopeo copy --all --sign-by`, `cosign sign --recursive`",
	},
	{
		cause: RegistryServesNone,
		means: "the registry sends `X-Registry-Supports-Signatures: 1` and has no signature; the lookaside is not asked then",
		hint:  "the registry must not send X-Registry-Supports-Signatures: 1 unless it keeps the signatures",
	},
	{
		cause: WrongRegistriesKey,
		means: "a key of registries.d that nothing reads was meant for the image: misspelt, at the wrong place, only `lookaside-staging`, or in a file that doesn't end in `.yaml`; file and line are in the message",
		hint:  "nodetrust lint names all such keys; the ones that are read are lookaside (sigstore for readers before 5.22) and use-sigstore-attachments",
	},
	{
		cause: AttachmentsOff,
		means: "the policy wants a sigstore signature and registries.d doesn't set `use-sigstore-attachments`; the message says whether the registry holds any",
		hint:  "add to registries.d: docker: {HOST: {use-sigstore-attachments: true}}",
	},
	{
		cause: BundleFormat,
		means: "the signature is a sigstore bundle (cosign's new format, a referrer of the image), which the image library doesn't read",
		hint:  "sign with cosign sign --new-bundle-format=false --use-signing-config=false, which makes the tag",
	},
	{
		cause: MirrorUnsigned,
		means: "a mirror served the manifest, and has no signatures, or no lookaside of its own in registries.d",
		hint:  "mirror the signatures too, and give the mirror its own lookaside in registries.d (its scope is the mirror's name)",
	},
	{
		cause: NoLookaside,
		means: "registries.d names no lookaside for the image; scopes are compared with their port",
		hint:  "add to a .yaml file of registries.d: docker: {HOST: {lookaside: URL of the signatures}}",
	},
	{
		cause: OtherKind,
		means: "it is signed, but with sigstore where the policy says `signedBy`, or with GPG where it says `sigstoreSigned`",
		hint:  "ask for sigstoreSigned with the signer's key, or have the image signed with GPG too",
		next:  "another requirement, or another signature",
	},
	{
		cause: NotSigned,
		means: "it was looked up in the right place and isn't there",
		next:  "sign it, or correct the URL",
	},
}

// Reasons is the closed set, in the order in which docs/reasons.md describes it.
func Reasons() []Reason {
	var out []Reason
	for _, r := range reasons {
		out = append(out, r.reason)
	}
	return out
}

// Hint returns the next step for an admin, "" if none is known that holds for every image.
func (r Reason) Hint() string {
	for _, row := range reasons {
		if row.reason == r {
			return row.hint
		}
	}
	return ""
}

// Causes is the closed set, in order.
func Causes() []Cause {
	var out []Cause
	for _, c := range causes {
		out = append(out, c.cause)
	}
	return out
}

// Hint returns the next step for an admin, where the registry that the signatures are looked up for is host.
func (c Cause) Hint(host string) string {
	for _, row := range causes {
		if row.cause == c {
			return strings.ReplaceAll(row.hint, "HOST", host)
		}
	}
	return ""
}
