package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// Accepted returns message and hint of an accept that rests on these requirements.
func Accepted(requirements []verdict.Requirement) (message, hint string) {
	var by []string
	for _, q := range requirements {
		for _, s := range q.Signatures {
			signer := cmp.Or(s.Signer, "a sigstore signer that the policy names")
			if s.Answer == verdict.Accept && !slices.Contains(by, signer) {
				by = append(by, signer)
			}
		}
	}
	if slices.ContainsFunc(requirements, onlySubkeys) {
		hint = "have the primary key sign: it was a subkey that did, and image libraries before 5.37 (CRI-O up to 1.34, podman up to 5.6) refuse that"
	}
	if len(by) == 0 {
		return "the policy accepts every image of this scope, signed or not", hint
	}
	return "signed by " + strings.Join(by, " and "), hint
}

// onlySubkeys reports whether a requirement holds by no other signatures than those of subkeys, which are the accepted
// ones that have a message.
func onlySubkeys(q verdict.Requirement) bool {
	accepted := 0
	for _, s := range q.Signatures {
		if s.Answer == verdict.Accept {
			if accepted++; s.Message == "" {
				return false
			}
		}
	}
	return accepted > 0
}

// Refused says in a sentence why a requirement of the scope didn't accept.
func Refused(q verdict.Requirement, scope verdict.Scope) string {
	for _, s := range q.Signatures {
		if s.Reason == q.Reason && s.Message != "" {
			if n := len(q.Signatures); n > 1 && q.Reason != verdict.KeyUnreadable {
				return fmt.Sprintf("none of %d signatures is accepted; the nearest: %s", n, s.Message)
			}
			return s.Message
		}
	}
	switch q.Reason {
	case verdict.NoSignature:
		return "the image has no signature" // an Absence says more
	case verdict.RejectedByPolicy:
		return "the policy refuses every image of scope " + scopeName(scope)
	}
	return string(q.Reason)
}

func scopeName(s verdict.Scope) string {
	switch s.Matched {
	case "default":
		return "default"
	case "transport-default":
		return s.Transport + `:""`
	}
	return s.Name
}

// Hint returns the next step for a reason, on this machine.
func Hint(r verdict.Reason) string {
	switch {
	case r != verdict.MechanismCannotTell:
	case mechanism.Missing() != "":
		return "install gpg, or put it into $PATH: nodetrust judges signatures with it, and so do runtimes"
	case mechanism.Name == "gpgme":
		return "see whether gpg works here: gpg --version"
	}
	return r.Hint()
}
