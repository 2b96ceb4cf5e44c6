package audit

import (
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// groupOf returns what an image needs that is not accepted by every runtime, and the group of images with the same
// need.
func groupOf(m *Image) group {
	g := group{verdict: m.Answer, reason: m.Reason, hint: m.Hint}
	need := func(kind, of, text string) group {
		g.id = strings.Join([]string{string(g.verdict), string(g.reason), kind, of}, ":")
		g.one, g.many = "needs "+text, "need "+text
		return g
	}
	are := func(kind, of, text string) group {
		g.id = strings.Join([]string{string(g.verdict), string(g.reason), kind, of}, ":")
		g.one, g.many = "is "+text, "are "+text
		return g
	}
	where := place(m)
	switch {
	case m.Answer == verdict.Accept:
		return are("subkey", scope(m), "signed by a subkey only, which older runtimes refuse")
	case m.Interrupted:
		return are("interrupted", "", "not judged: the audit was interrupted")
	case m.Canary:
		return are("canary", "", "the refuse-canary of the policy and in use: choose another image as the canary")
	}
	if m.VouchedBy != "" && m.Answer == verdict.Refuse {
		return need("release", m.VouchedBy, "a scope of its own: the verified release "+m.VouchedBy+" vouches for it")
	}
	switch m.Reason {
	case verdict.NoSignature:
		return unsigned(m, need, are)
	case verdict.WrongKey, verdict.KeyExpired, verdict.KeyRevoked:
		signer := signers(m)
		switch m.Reason {
		case verdict.KeyExpired:
			return are("key", signer, "signed by key "+signer+", which has expired")
		case verdict.KeyRevoked:
			return are("key", signer, "signed by key "+signer+", which was revoked")
		}
		return are("key", signer+" "+scope(m), "signed by key "+signer+", which is none of scope "+scope(m))
	case verdict.WrongIdentity:
		return are("identity", scope(m)+" "+where, "signed under another name than the identity of scope "+scope(m)+
			" accepts for "+where)
	case verdict.WrongDigest, verdict.SignatureExpired, verdict.WeakOrUnsupported:
		return need("signature", where, "a new signature for "+where)
	case verdict.RejectedByPolicy:
		if m.Scope != nil && (m.Scope.Matched == "default" || m.Scope.Matched == "transport-default") {
			return need("entry", where, "an entry for "+where+": the policy's default is to reject")
		}
		return are("rejected", scope(m), "rejected by scope "+scope(m))
	case verdict.KeyMissing, verdict.KeyUnreadable:
		return need("key", m.Message, "a key of scope "+scope(m)+": "+m.Message)
	case verdict.LookasideUnreachable, verdict.LookasideForbidden, verdict.LookasideNotSignature:
		return need("lookaside", base(m), "the lookaside "+base(m)+" to work")
	case verdict.RegistryUnreachable, verdict.RateLimited, verdict.Timeout:
		return need("registry", ref.Host(m.name), "an answer of "+ref.Host(m.name))
	case verdict.RegistryRefused:
		return need("permission", ref.Host(m.name), "the permission of "+ref.Host(m.name)+", which answers and says no")
	case verdict.AttachmentsUnreadable:
		return need("attachments", ref.Host(m.name), "sigstore attachments that "+ref.Host(m.name)+
			" lets be read, or none configured")
	case verdict.ManifestForged:
		return are("forged", where, "of schema 1, which can be forged: push anew and sign "+where)
	case verdict.ManifestUnreadable:
		return need("manifest", where, "a manifest that runtimes can use, for "+where)
	case verdict.Disagreement:
		return are("disagreement", where, "accepted by the image library and not by a second look: report "+where)
	case verdict.NotSignedFor:
		return need("signer", scope(m)+" "+where, "a signature, which nobody asks for: "+m.Scope.String()+" accepts "+where+
			" without one")
	case verdict.NotAsked:
		return are("asked", "", "not looked at: nothing was asked")
	case verdict.Unauthorized:
		return need("login", ref.Host(m.name), "a login for "+ref.Host(m.name))
	case verdict.ImageNotFound:
		return are("absent", ref.Host(m.name), "not to be had from "+ref.Host(m.name))
	case verdict.PolicyInvalid, verdict.RegistriesDInvalid:
		return need("policy", "", "a policy that loads: "+m.Message)
	case verdict.MechanismCannotTell:
		return need("mechanism", "", "another OpenPGP mechanism to be judged")
	}
	return are("other", string(m.Reason), string(m.Answer)+": "+string(m.Reason))
}

func unsigned(m *Image, need, are func(kind, of, text string) group) group {
	where := place(m)
	switch m.Cause {
	case verdict.OnlyIndexSigned:
		return need("instance", where, "signatures of the instances, not only of the image index, for "+where)
	case verdict.WrongRegistriesKey:
		return need("registriesd", where, "a key of registries.d that nodes read for "+where)
	case verdict.AttachmentsOff:
		return need("attachments", where, "use-sigstore-attachments in registries.d for "+where)
	case verdict.MirrorUnsigned:
		return need("mirror", base(m), "signatures in the mirror's lookaside "+base(m))
	case verdict.BundleFormat:
		return need("format", where, "signatures in the format that nodes read (not sigstore bundles) for "+where)
	case verdict.OtherKind:
		return need("kind", where, "the other kind of signature (GPG or sigstore), or a policy that takes what there is, for "+where)
	case verdict.RegistryServesNone:
		return need("signature", ref.Host(m.name), "a signature that "+ref.Host(m.name)+" serves")
	case verdict.NoLookaside:
		return need("lookaside", where, "a lookaside for "+where)
	}
	switch {
	case refusing(m).Type == policy.SigstoreSigned:
		return need("signature", where, "a sigstore signature for "+where)
	case m.Lookaside == nil || m.Lookaside.File == "":
		return need("lookaside", where, "a lookaside for "+where)
	}
	return need("signature", base(m)+" "+where, "a signature in "+base(m)+" for "+where)
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
