package verify

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// explainNoSignature says why there is no signature where one was looked for, as far as that can be told: the verdict
// stays. all are the signatures that were read, of whatever kind.
func (e *evaluation) explainNoSignature(ctx context.Context, src types.ImageSource, physical types.ImageReference,
	all []sig,
) {
	i := slices.IndexFunc(e.v.Requirements, func(q verdict.Requirement) bool { return q.Reason == verdict.NoSignature })
	if e.v.Reason != verdict.NoSignature || i < 0 {
		return
	}
	n := noSignature{evaluation: e, requirement: e.sec.requirements[i], physical: physical, all: all}
	if n.physical == nil {
		n.physical = e.target.content
	}
	if e.log != nil {
		e.explaining = len(e.log.Requests())
	}
	e.v.Cause, e.v.Message, e.v.Hint = n.explain(ctx, src)
	host := ""
	if ref := n.physical.DockerReference(); ref != nil {
		host = reference.Domain(ref)
	}
	e.v.Hint = cmp.Or(e.v.Hint, e.v.Cause.Hint(host), hint(verdict.NoSignature))
}

// noSignature is a requirement that no signature was found for.
type noSignature struct {
	*evaluation
	requirement *requirement
	physical    types.ImageReference // the place that served the manifest
	all         []sig
	attached    attached
}

// explain returns the hint where it is another than the cause's.
func (n *noSignature) explain(ctx context.Context, src types.ImageSource) (c verdict.Cause, message, hint string) {
	if n.target.layout != "" {
		return verdict.NotInLayout, "an OCI layout holds no signatures that runtimes read, so no requirement to be signed can hold", ""
	}
	if n.v.Index != "" {
		if count, err := n.indexSigned(ctx, src); err == nil && count > 0 {
			if !n.wantsGPG() {
				hint = "sign every instance of the image index too (cosign sign --recursive)"
			}
			return verdict.OnlyIndexSigned, n.nowhere() +
				"; the image index is signed, but runtimes check the instance that they pull", hint
		}
	}
	if n.target.dir != "" {
		return n.otherKind()
	}
	n.attached = n.attachments(ctx)
	if n.extension && n.wantsGPG() {
		return verdict.RegistryServesNone, "the registry serves signatures itself (X-Registry-Supports-Signatures) and has none for the image; " + n.v.Lookaside.URL + " is not asked then", ""
	}
	_, file, attachments := n.policy.registries.Lookup(library.Scopes(n.physical))
	configured := attachments
	if n.wantsGPG() {
		configured = file != ""
	}
	if !configured {
		if s := n.unread(); s != "" {
			return verdict.WrongRegistriesKey, n.nowhere() + ": " + s, ""
		}
	}
	host := registryOf(n.physical)
	if !n.wantsGPG() {
		switch {
		case !attachments:
			what := ", and the registry holds none"
			if n.attached.cosign {
				what = fmt.Sprintf(", though the registry holds them (tag %s)", n.attachmentTag())
			} else if !n.attached.asked {
				what = ""
			}
			return verdict.AttachmentsOff, fmt.Sprintf(
				"sigstore signatures were not looked for: registries.d doesn't set use-sigstore-attachments for %s%s%s",
				host, what, n.others()), ""
		case n.attached.bundle:
			return verdict.BundleFormat, fmt.Sprintf("the image is signed in the sigstore bundle format, which the image library (5.42) and the runtimes do not read; they read the tag %s only", n.attachmentTag()), ""
		}
	}
	if n.mirrored() {
		at := "no lookaside is configured for the mirror"
		if configured && n.wantsGPG() {
			at = "there is none at " + n.v.Lookaside.URL
		} else if !n.wantsGPG() {
			at = fmt.Sprintf("it has no tag %s", n.attachmentTag())
		}
		return verdict.MirrorUnsigned, fmt.Sprintf(
			"mirror %s served the manifest, so signatures are looked for there, not at %s, and %s%s",
			n.physical.DockerReference().Name(), registryOf(n.target.logical), at, n.others()), ""
	}
	if n.wantsGPG() && !configured {
		if s := n.nearScope(); s != "" {
			hint = fmt.Sprintf("registries.d names %s; scopes there are compared with their port: this one is %s", s, host)
		}
		return verdict.NoLookaside, fmt.Sprintf("no lookaside is configured for %s: only the built-in default %s was looked at%s", host, registriesd.DefaultLookaside, n.others()), hint
	}
	return n.otherKind()
}

// otherKind is for images that are looked up in the right place.
func (n *noSignature) otherKind() (verdict.Cause, string, string) {
	simple := slices.ContainsFunc(n.all, func(s sig) bool { return s.simple != nil })
	stored := slices.ContainsFunc(n.all, func(s sig) bool { return s.sigstore != nil })
	switch {
	case n.wantsGPG() && (stored || n.attached.cosign || n.attached.bundle):
		return verdict.OtherKind, n.nowhere() + ": it is signed, but with sigstore, and the policy asks for a GPG signature (signedBy)", ""
	case !n.wantsGPG() && simple:
		return verdict.OtherKind, n.nowhere() + ": it is signed, but with GPG, and the policy asks for a sigstore signature (sigstoreSigned)",
			"ask for signedBy with the signer's key, or have the image signed with cosign too"
	}
	return verdict.NotSigned, n.nowhere() + n.others(), ""
}

func (n *noSignature) wantsGPG() bool { return n.requirement.Type == policy.SignedBy }

// nowhere says where no signature is.
func (n *noSignature) nowhere() string {
	switch {
	case n.target.dir != "":
		return "the image has no signature"
	case n.wantsGPG():
		return "the image has no signature at " + n.v.Lookaside.URL
	}
	return fmt.Sprintf("the image has no signature: %s has no tag %s", n.physical.DockerReference().Name(),
		n.attachmentTag())
}

// others says what else was found with the image.
func (n *noSignature) others() string {
	var found []string
	if n.attached.cosign && n.wantsGPG() {
		found = append(found, "a sigstore signature")
	}
	if n.attached.bundle {
		found = append(found, "a sigstore bundle, which runtimes don't read")
	}
	if n.attached.notation {
		found = append(found, "a Notation signature, which no policy.json can ask for")
	}
	if len(found) == 0 {
		return ""
	}
	return "; the registry has " + strings.Join(found, " and ")
}

func (n *noSignature) attachmentTag() string {
	return attachmentTag(n.v.Digest)
}

// mirrored is true if the manifest came from another place than the one that was asked for.
func (n *noSignature) mirrored() bool {
	logical, physical := n.target.logical.DockerReference(), n.physical.DockerReference()
	return logical != nil && physical != nil && logical.Name() != physical.Name()
}

func registryOf(ref types.ImageReference) string { return reference.Domain(ref.DockerReference()) }

// nearScope is a scope of registries.d that is the image's but for the port.
func (n *noSignature) nearScope() string {
	without := func(scope string) string {
		host, rest, _ := strings.Cut(scope, "/")
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		return host + "/" + rest
	}
	var near []string
	for scope := range n.policy.registries.Docker {
		for _, s := range library.Scopes(n.physical) {
			if without(s) == without(scope) {
				near = append(near, scope)
			}
		}
	}
	slices.Sort(near)
	if len(near) == 0 {
		return ""
	}
	return near[0]
}

// unread names a key of registries.d that readers drop without a word and that was meant for the image; "" if there is
// none.
func (n *noSignature) unread() string {
	for _, f := range n.policy.registriesFiles {
		keys := registriesd.Keys(f.Data)
		for _, k := range keys {
			why := ""
			switch {
			case !k.Known():
			case !k.ForSigning() || slices.ContainsFunc(keys, k.ReadInstead):
				continue
			default:
				why = " when signatures are looked up: it is for signing only"
			}
			if n.meant(k) {
				return fmt.Sprintf("%s:%d has the key %q, which nothing reads%s", f.Path, k.Line, k.Name, why)
			}
		}
	}
	for _, dir := range n.policy.registriesDirs {
		entries, err := n.policy.registriesHost.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() || filepath.Ext(e.Name()) != ".yml" {
				continue
			}
			path := filepath.Join(dir, e.Name())
			data, err := n.policy.registriesHost.ReadFile(path, maxConfigFile)
			if err != nil {
				continue
			}
			one, err := registriesd.Merge([]registriesd.File{{Path: path, Data: data}})
			if err != nil {
				continue
			}
			_, file, attachments := one.Lookup(library.Scopes(n.physical))
			if n.wantsGPG() && file != "" || !n.wantsGPG() && attachments {
				return path + " is meant for it, but only files whose name ends in .yaml are read"
			}
		}
	}
	return ""
}

// meant is true if the key stands where it would count for the image, and may be meant for this kind of signature.
func (n *noSignature) meant(k registriesd.Key) bool {
	if strings.Contains(strings.ToLower(k.Name), "attach") == n.wantsGPG() && k.Scope != "" {
		return false
	}
	return k.Scope == "" || k.Scope == registriesd.DefaultSection || slices.Contains(library.Scopes(n.physical), k.Scope)
}
