package explain

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/configuration"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/signatures"
)

// Absence is what is known of an image without a signature of the kind that the policy asks for.
type Absence struct {
	signatures.Place
	Configuration *configuration.Configuration
	// GPG is true if the policy asks for a GPG signature, false for one of sigstore.
	GPG bool
	// Found are the signatures that were read, of whatever kind.
	Found []signatures.Signature
	// Physical is the place that served the manifest, and Registry the fetcher that asks it for more; nil if no fetcher
	// knows the way.
	Physical types.ImageReference
	Registry *fetch.Source
	// OnIndex counts the signatures of the image's index that are of the kind asked for and where runtimes would look.
	OnIndex func(context.Context) (int, error)

	beside beside
}

// Explain returns why there is no signature, as far as that can be told.
func (a Absence) Explain(ctx context.Context) (c verdict.Cause, message, hint string) {
	c, message, hint = a.explain(ctx)
	host := ""
	if ref := a.Physical.DockerReference(); ref != nil {
		host = reference.Domain(ref)
	}
	return c, message, cmp.Or(hint, c.Hint(host), Hint(verdict.NoSignature))
}

// explain returns a hint where the cause has another one.
func (a *Absence) explain(ctx context.Context) (c verdict.Cause, message, hint string) {
	if a.Image.Layout != "" {
		return verdict.NotInLayout, "an OCI layout holds no signatures that runtimes read, so no requirement to be signed can hold", ""
	}
	if a.Index != "" {
		if count, err := a.OnIndex(ctx); err == nil && count > 0 {
			if !a.GPG {
				hint = "sign every instance of the image index too (cosign sign --recursive)"
			}
			return verdict.OnlyIndexSigned, a.nowhere() +
				"; the image index is signed, but runtimes check the instance that they pull", hint
		}
	}
	if a.Image.Dir != "" {
		return a.otherKind()
	}
	a.beside = besideOf(ctx, a.Registry, a.Digest)
	if a.Served && a.GPG {
		return verdict.RegistryServesNone, "the registry serves signatures itself (X-Registry-Supports-Signatures) and has none for the image; " + a.Lookaside + " is not asked then", ""
	}
	_, file, attachments := a.Configuration.Registries.Lookup(library.Scopes(a.Physical))
	configured := attachments
	if a.GPG {
		configured = file != ""
	}
	if !configured {
		if s := a.unread(); s != "" {
			return verdict.WrongRegistriesKey, a.nowhere() + ": " + s, ""
		}
	}
	host, tag := registry(a.Physical), library.AttachmentTag(a.Digest)
	if !a.GPG {
		switch {
		case !attachments:
			what := ", and the registry holds none"
			if a.beside.cosign {
				what = fmt.Sprintf(", though the registry holds them (tag %s)", tag)
			} else if !a.beside.answered {
				what = ""
			}
			return verdict.AttachmentsOff, fmt.Sprintf(
				"sigstore signatures were not looked for: registries.d doesn't set use-sigstore-attachments for %s%s%s",
				host, what, a.others()), ""
		case a.beside.bundle:
			return verdict.BundleFormat, fmt.Sprintf("the image is signed in the sigstore bundle format, which the image library (5.42) and the runtimes do not read; they read the tag %s only", tag), ""
		}
	}
	if a.mirrored() {
		at := "no lookaside is configured for the mirror"
		if configured && a.GPG {
			at = "there is none at " + a.Lookaside
		} else if !a.GPG {
			at = fmt.Sprintf("it has no tag %s", tag)
		}
		return verdict.MirrorUnsigned, fmt.Sprintf(
			"mirror %s served the manifest, so signatures are looked for there, not at %s, and %s%s",
			a.Physical.DockerReference().Name(), registry(a.Image.Logical), at, a.others()), ""
	}
	if a.GPG && !configured {
		if s := a.nearScope(); s != "" {
			hint = fmt.Sprintf("registries.d names %s; scopes there are compared with their port: this one is %s", s, host)
		}
		return verdict.NoLookaside, fmt.Sprintf("no lookaside is configured for %s: only the built-in default %s was looked at%s", host, registriesd.DefaultLookaside, a.others()), hint
	}
	return a.otherKind()
}

// otherKind is for images that are looked up in the right place.
func (a *Absence) otherKind() (verdict.Cause, string, string) {
	gpg := slices.ContainsFunc(a.Found, func(s signatures.Signature) bool { return s.Simple != nil })
	sigstore := slices.ContainsFunc(a.Found, func(s signatures.Signature) bool { return s.Sigstore != nil })
	switch {
	case a.GPG && (sigstore || a.beside.cosign || a.beside.bundle):
		return verdict.OtherKind, a.nowhere() + ": it is signed, but with sigstore, and the policy asks for a GPG signature (signedBy)", ""
	case !a.GPG && gpg:
		return verdict.OtherKind, a.nowhere() + ": it is signed, but with GPG, and the policy asks for a sigstore signature (sigstoreSigned)",
			"ask for signedBy with the signer's key, or have the image signed with cosign too"
	}
	return verdict.NotSigned, a.nowhere() + a.others(), ""
}

// nowhere says where no signature is.
func (a *Absence) nowhere() string {
	switch {
	case a.Image.Dir != "":
		return "the image has no signature"
	case a.GPG:
		return "the image has no signature at " + a.Lookaside
	}
	return fmt.Sprintf("the image has no signature: %s has no tag %s", a.Physical.DockerReference().Name(),
		library.AttachmentTag(a.Digest))
}

// others says what else was found with the image.
func (a *Absence) others() string {
	var found []string
	if a.beside.cosign && a.GPG {
		found = append(found, "a sigstore signature")
	}
	if a.beside.bundle {
		found = append(found, "a sigstore bundle, which runtimes don't read")
	}
	if a.beside.notation {
		found = append(found, "a Notation signature, which no policy.json can ask for")
	}
	if len(found) == 0 {
		return ""
	}
	return "; the registry has " + strings.Join(found, " and ")
}

// mirrored reports whether the manifest came from another place than the one that was asked for.
func (a *Absence) mirrored() bool {
	logical, physical := a.Image.Logical.DockerReference(), a.Physical.DockerReference()
	return logical != nil && physical != nil && logical.Name() != physical.Name()
}

func registry(ref types.ImageReference) string { return reference.Domain(ref.DockerReference()) }

// nearScope returns a scope of registries.d that is the image's but for the port; "" if there is none.
func (a *Absence) nearScope() string {
	without := func(scope string) string {
		host, rest, _ := strings.Cut(scope, "/")
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		return host + "/" + rest
	}
	for _, scope := range a.Configuration.Registries.Scopes() {
		for _, s := range library.Scopes(a.Physical) {
			if without(s) == without(scope) {
				return scope
			}
		}
	}
	return ""
}

// unread names a key of registries.d that readers drop without a word and that may be meant for the image; "" if there
// is none.
func (a *Absence) unread() string {
	for _, f := range a.Configuration.Files {
		keys := registriesd.Keys(f.Data)
		for _, k := range keys {
			why := ""
			if k.Known() {
				if !k.ForSigning() || slices.ContainsFunc(keys, k.ReadInstead) {
					continue
				}
				why = " when signatures are looked up: it is for signing only"
			}
			if a.mayConcern(k) {
				return fmt.Sprintf("%s:%d has the key %q, which nothing reads%s", f.Path, k.Line, k.Name, why)
			}
		}
	}
	for _, f := range a.Configuration.Ignored() {
		one, err := registriesd.Merge([]registriesd.File{f})
		if err != nil {
			continue
		}
		_, file, attachments := one.Lookup(library.Scopes(a.Physical))
		if a.GPG && file != "" || !a.GPG && attachments {
			return f.Path + " is meant for it, but only files whose name ends in .yaml are read"
		}
	}
	return ""
}

// mayConcern reports whether the key stands where it would count for the image, and may be meant for this kind of
// signature.
func (a *Absence) mayConcern(k registriesd.Key) bool {
	if strings.Contains(strings.ToLower(k.Name), "attach") == a.GPG && k.Scope != "" {
		return false
	}
	return k.Scope == "" || k.Scope == registriesd.DefaultSection || slices.Contains(library.Scopes(a.Physical), k.Scope)
}
