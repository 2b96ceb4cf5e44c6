package lint

// Code is the stable name of a kind of finding. No other than those of the table can be added.
type Code string

// page is the part of docs/lint.md that explains a code.
type page string

const (
	pagePolicy     page = "### policy.json"
	pageRegistries page = "### registries.d"
	pageKeys       page = "### Keys"
	pageHosts      page = "### Hosts and other files"
)

// weight is what a code's severity leaves open.
type weight uint8

const (
	always     weight = iota // it is the severity of all its findings
	milder                   // the finding may be a warning as well
	unloadable               // in a policy.json, the library doesn't load the file
)

// codeRow is what the findings of a code have in common.
type codeRow struct {
	code     Code
	severity Severity
	weight   weight
	page     page
	// means is the explanation for the page.
	means string
	// hint is the next step, for findings that come without one of their own.
	hint string
}

// codes are all kinds of findings, in the order of docs/lint.md, whose tables are made from it.
var codes = []codeRow{
	{"bad-json", Error, unloadable, pagePolicy, "no JSON: also an empty file, comments, a byte order mark, text after the end", ""},
	{"wrong-type", Error, unloadable, pagePolicy, "an object, list or string stands where another kind of value belongs", ""},
	{"missing-default", Error, unloadable, pagePolicy, "there is no `default`", ""},
	{"unknown-key", Error, unloadable, pagePolicy, "a key that readers don't know. Those of registries.d drop it without a word", ""},
	{"duplicate-key", Error, unloadable, pagePolicy, "the same key or scope twice in one object", ""},
	{"missing-key", Error, unloadable, pagePolicy, "a requirement or identity lacks a member that it needs", ""},
	{"empty-requirements", Error, unloadable, pagePolicy, "a scope with an empty list", ""},
	{"unknown-requirement", Error, unloadable, pagePolicy, "a type of requirement that no reader knows", ""},
	{"unknown-identity", Error, unloadable, pagePolicy, "a type of signedIdentity that no reader knows", ""},
	{"several-key-sources", Error, unloadable, pagePolicy, "two of `keyPath`, `keyPaths`, `keyData`, … in one requirement", "several signers that all must sign are several requirements; any of several keys is keyPaths, or concatenated keyData"},
	{"conflicting-keys", Error, unloadable, pagePolicy, "members that exclude each other", ""},
	{"bad-key-type", Error, unloadable, pagePolicy, "a `keyType` that no reader knows", ""},
	{"bad-requirement", Error, unloadable, pagePolicy, "the library rejects the requirement for another reason, which is quoted", ""},
	{"bad-scope", Error, unloadable, pagePolicy, "a scope that the transport doesn't allow, for example a relative path for `dir`", ""},
	{"policy-rejected", Error, unloadable, pagePolicy, "the library rejects the file for another reason, which is quoted", ""},
	{"unknown-transport", Error, always, pagePolicy, "a transport that no reader knows: what is below it is never used", ""},
	{"dead-scope", Error, always, pagePolicy, "a scope that no image has, by the grammar of the image library: a URL, `example.com/*`, a short name. Never matches. Also in registries.d", ""},
	{"upper-case-host", Warning, always, pagePolicy, "a scope's host has upper case: it is compared as written, while DNS ignores case, so an image pulled by another spelling has another scope. Also in registries.d and trust.yaml", "write the host in lower case, unless images are really pulled by this spelling"},
	{"unimplemented-key-type", Error, always, pagePolicy, "X.509 key types parse and were never implemented: every signature is refused", ""},
	{"signed-base-layer", Error, always, pagePolicy, "parses and was never implemented: every image is refused", ""},
	{"empty-key-paths", Error, always, pagePolicy, "`keyPaths: []` parses: every image is refused", ""},
	{
		"relative-key-path", Error, always, pagePolicy,
		"looked up in the working directory of whoever pulls", "use an absolute path",
	},
	{"library-missing", Warning, always, pagePolicy, "`docker.io/nginx` is a namespace; the image is `docker.io/library/nginx`. Also in trust.yaml", ""},
	{"release-payload", Error, always, pagePolicy, "GPG signatures are asked for OpenShift's own images (`quay.io`, `quay.io/openshift-release-dev`, …`/ocp-v4.0-art-dev`), which have none: nodes break at the next update. Also in trust.yaml", "only the release image has a GPG signature; leave quay.io/openshift-release-dev out, or give ocp-v4.0-art-dev a scope of its own that accepts or is sigstoreSigned"},
	{"no-attachments", Error, always, pagePolicy, "`sigstoreSigned`, and registries.d has no `use-sigstore-attachments: true` for the scope: every image is refused", ""},
	{"no-lookaside", Warning, always, pagePolicy, "`signedBy`, and no registries.d file names a lookaside for the scope. Also in trust.yaml", ""},
	{"hole-below-signed", Warning, always, pagePolicy, "images are accepted without signature below a signed scope: the most specific scope is used alone. In trust.yaml, `because:` says that it is meant", ""},
	{
		"tag-scope", Warning, always, pagePolicy,
		"a scope with a tag never matches a pull by digest", "name the repository, without the tag",
	},
	{"default-reject-moot", Warning, always, pagePolicy, "the default rejects, and the scope `\"\"` of `docker` accepts every image of every registry", ""},
	{"accepts-everything", Warning, always, pagePolicy, "no registry needs a signature and none is rejected. In trust.yaml refuse-canaries don't count: they are no images in use", ""},
	{"both-signatures", Warning, always, pagePolicy, "asks for a GPG and a sigstore signature: all entries of a list must hold", ""},
	{"all-must-sign", Warning, always, pagePolicy, "two entries of one kind with different keys: an image needs a signature by each of them. Any one of several keys is `keyPaths`, or one `keyData`", "if any of the keys will do, name them in one entry: keyPaths, or keyData with the keys one after the other"},
	{"remap-is-idle", Warning, always, pagePolicy, "trust.yaml: the prefix of a `remapIdentity` has nothing to do with the entry's scope, so that nothing is remapped", "a mirror of registries.conf is judged by the name that it stands for; one that is pulled by its own name needs an entry of its own"},
	{"accept-is-idle", Warning, always, pagePolicy, "`insecureAcceptAnything` beside other requirements has no effect", ""},
	{"reject-wins", Warning, always, pagePolicy, "`reject` beside other requirements refuses everything", ""},
	{"bad-yaml", Error, milder, pageRegistries, "the library can't parse the file: every pull on the node fails", ""},
	{
		"duplicate-scope", Error, always, pageRegistries,
		"a scope in two files: every pull on the node fails", "every pull of every image fails: keep one",
	},
	{"duplicate-default-docker", Error, always, pageRegistries, "`default-docker` in two files: every pull on the node fails", "every pull of every image fails: keep one"},
	{"registries-d-rejected", Error, always, pageRegistries, "the library rejects the files for another reason, which is quoted", ""},
	{"ignored-file", Error, always, pageRegistries, "a name that ends in `.yml`: never read", "rename it"},
	{
		"several-documents", Error, always, pageRegistries,
		"only the first YAML document of a file is read", "make it a file of its own",
	},
	{"bad-url", Error, milder, pageRegistries, "no scheme, a scheme that readers don't have, blanks: loads, and fails when it is fetched. A query or fragment is a warning", ""},
	{"insecure-lookaside", Warning, always, pageRegistries, "plain http: signatures can't be forged on the way, but hidden, or replaced by old ones", "use https"},
	{
		"credentials-in-url", Warning, always, pageRegistries,
		"every process on the node can read them", "every process on the node can read this file",
	},
	{"lookaside-differs", Warning, always, pageRegistries, "`lookaside` and `sigstore` are two names of one setting and differ: old readers take the second", "write the same URL in both"},
	{"masked-file", Warning, always, pageRegistries, "a directory of higher priority has a file of the same name, which is read instead", ""},
	{"key-missing", Error, always, pageKeys, "the policy names a file that isn't there: pulls fail as soon as an image has a signature", "pulls fail as soon as an image has a signature; without one the error is misleading"},
	{"key-unreadable", Error, always, pageKeys, "the file holds no public key, or is damaged", ""},
	{"key-secret", Error, always, pageKeys, "private key material has no place on a node: readers import the public half and accept, and who can read the file can sign", ""},
	{"wrong-kind-of-key", Error, always, pageKeys, "a PEM key where OpenPGP is needed, or the other way round", ""},
	{"key-expired", Error, milder, pageKeys, "a warning if the file has other keys that are good", ""},
	{"key-revoked", Error, milder, pageKeys, "a warning if the file has other keys that are good", ""},
	{"key-expires-soon", Warning, always, pageKeys, "within 30 days", ""},
	{"key-weak", Error, milder, pageKeys, "RSA or DSA below 3072 bits; below 2048 an error if the file has no better key", ""},
	{"key-sha1", Warning, always, pageKeys, "the key vouches for itself with SHA-1 or MD5 only: strict readers may not take it. Red Hat's release key of RHEL 7 to 9 does", "ask its owner for the key with a newer self-signature"},
	{"key-not-pinned", Warning, always, pageKeys, "trust.yaml: a `path` key without `fingerprints`, or (with `--root`) a file with more keys than are pinned: what the OS puts there is trusted", ""},
	{"key-pin-missing", Error, always, pageKeys, "with `--root`: the host's file lacks a key that trust.yaml pins", "images signed with it are refused on this host"},
	{"key-v6", Error, milder, pageKeys, "an OpenPGP v6 key: GnuPG 2.2 drops it, the key before it, and all that follow. An error if nothing is left. A key that trust.yaml ships has it left out", ""},
	{"key-pqc", Warning, always, pageKeys, "a post-quantum key: nothing that reads policies today verifies with it", "images need a signature by another key as well"},
	{"key-v3", Warning, always, pageKeys, "an OpenPGP v3 key, which readers ignore", ""},
	{"key-packed", Warning, always, pageKeys, "the keys are in a compressed packet: readers without gpgme find none", "write it anew: gpg --export"},
	{
		"key-several-blocks", Warning, always, pageKeys,
		"readers without gpgme take the first armor block only", "write the keys into one block: gpg --export --armor",
	},
	{
		"key-preamble", Warning, always, pageKeys,
		"text before the key, which readers skip so far", "readers skip it so far",
	},
	{"missing-policy", Error, always, pageHosts, "there is no policy.json at any of the places: every pull fails", "every pull on the node fails"},
	{"masked-policy", Error, always, pageHosts, "root's own `~/.config/containers/policy.json` is read instead of the one in /etc, by CRI-O too", ""},
	{"masked-registries-d", Warning, always, pageHosts, "root's own registries.d replaces the others for readers before containers-image 5.40, all CRI-O up to 1.35 among them; later ones merge the directories", ""},
	{"policy-environment", Error, always, pageHosts, "a unit, a drop-in or an environment file sets `CONTAINERS_POLICY_JSON` (of a runtime's unit also `HOME`, `XDG_CONFIG_HOME` and CRI-O's own variables and flags): another policy.json is read. Also in units of MachineConfigs", "remove it, or lint the file it names"},
	{"unit-unreadable", Warning, always, pageHosts, "whether a unit does so can't be told", ""},
	{"crio-policy", Error, always, pageHosts, "`signature_policy` of CRI-O's configuration names another file: CRI-O and Podman follow different policies", "remove it, or lint the file it names"},
	{"crio-policies", Warning, always, pageHosts, "`signature_policy_dir` names another directory for the policies of namespaces", ""},
	{"crio-conf", Warning, always, pageHosts, "a file of CRI-O's configuration that can't be read: what it says of policies is not known", ""},
	{"mirror-no-lookaside", Warning, always, pageHosts, "a mirror of a scope with GPG signatures, from registries.conf of the host or from trust.yaml, for which no lookaside is named: signatures are looked for at the mirror", "signatures are looked for at the mirror, never at the registry that it mirrors"},
	{"mirror-no-attachments", Warning, always, pageHosts, "the same for sigstore signatures and `use-sigstore-attachments`", "signatures are looked for at the mirror, never at the registry that it mirrors"},
	{"registries-conf", Warning, always, pageHosts, "a registries.conf that can't be read: its mirrors are not known", ""},
	{"registry-insecure", Warning, always, pageHosts, "a signed scope comes from a place that registries.conf calls insecure: signatures can be hidden on their way, also those of a lookaside", ""},
	{"registry-blocked", Warning, always, pageHosts, "registries.conf blocks what a signed scope is about: the scope has no effect", ""},
	{"sigstore-disabled", Warning, always, pageHosts, "a host with Debian 12, and a policy that asks for sigstore signatures: its own podman and skopeo refuse every such image", "CRI-O judges them, as does a podman that is not Debian's"},
	{"namespaced-policy", Warning, always, pageHosts, "`/etc/crio/policies/NAMESPACE.json` is used alone for that namespace", ""},
	{"namespaced-weaker", Warning, always, pageHosts, "it accepts images of some scope that the system's policy refuses", "write it as strict as the system's policy, or remove the file"},
	{"dangling-link", Error, milder, pageHosts, "a link to nothing in registries.d: readers skip it, those before containers-image 5.34 fail at every pull", ""},
	{"unreadable", Error, always, pageHosts, "a file or directory that decides can't be read. In registries.d also a pipe or a link to a directory with the name of a file, and, for readers before containers-image 5.40, a directory", ""},
	{"trust-config", Error, always, pageHosts, "trust.yaml is not valid; the message names the field", ""},
	{"canary-proves-nothing", Warning, always, pageHosts, "with `default: accept`, an accept-canary that no entry covers: every node accepts it, enforcing or not", "take an image that an entry of spec.registries covers"},
	{"canary-side-missing", Warning, always, pageHosts, "trust.yaml has no accept-canary or no refuse-canary: nodes will say `Unknown`/`NoCanary`", ""},
	{"bad-desired", Error, always, pageHosts, "a MachineConfig, Ignition config or desired directory that can't be read as one", ""},
	{"merged-outdated", Error, milder, pageHosts, "a list of MachineConfigs has one that `render --merge` made, and what was merged into it has changed since: what the Machine Config Operator demands now reaches no node", "render it again with --cluster and --merge, and apply it"},
	{"nothing-to-judge", Warning, always, pageHosts, "it has no policy.json and no registries.d files", ""},
	{"reader-advisory", Warning, always, pageHosts, "the verifier of a reader has a [known hole](advisories.md): it accepts what it must not, whatever the policy. See below", ""},
	{"reader-ignores", Error, always, pageHosts, "a reader loads this and never uses it: a wildcard scope, or `lookaside:` without `sigstore:` beside it", ""},
	{"too-large", Error, always, pageHosts, "a registries.d file of more than 1 MiB is not looked at", ""},
	{"too-many-findings", Error, always, pageHosts, "more than 1000 findings: the rest is only counted", ""},
}

// row returns what the table has on a code.
func (c Code) row() codeRow {
	for _, row := range codes {
		if row.code == c {
			return row
		}
	}
	return codeRow{}
}
