// Package mechanism judges OpenPGP signatures: by gpg through gpgme or, in a build without cgo, in pure Go. It asks the
// image library's mechanism of that name, and names the reasons for the mechanism's answers.
package mechanism

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.podman.io/image/v5/signature"

	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// ErrNoKey is what the library says of key files in which the mechanism finds nothing to use.
const ErrNoKey = signature.PolicyRequirementError("No public keys imported")

// Keys returns the keys in key files. Where the reader of this program finds no key, the mechanism is asked, which
// knows more forms of key files. An error says that the mechanism couldn't be asked.
func Keys(files [][]byte) (key.Index, error) {
	keys := key.IndexOf(files)
	for _, file := range files {
		if len(file) == 0 || len(key.IndexOf([][]byte{file}).Primary) > 0 {
			continue
		}
		mech, ids, err := signature.NewEphemeralGPGSigningMechanism(file)
		switch {
		case err != nil && noKeys(err):
			continue
		case err != nil:
			return keys, err
		}
		keys.Add(ids)
		if err := mech.Close(); err != nil {
			return keys, err
		}
	}
	return keys, nil
}

// Verify returns the signed content, and the fingerprint of the key or subkey that made the signature, if one of the
// keys made it; the fingerprint is never empty then. files are key files, and keys their content.
func Verify(ctx context.Context, signed []byte, files [][]byte, keys key.Index) (content []byte, signer string,
	err error,
) {
	mech, ids, err := signature.NewEphemeralGPGSigningMechanism(key.Join(files))
	if err != nil {
		return nil, "", err
	}
	defer mech.Close()
	if len(ids) == 0 {
		return nil, "", ErrNoKey
	}
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	content, signer, err = mech.Verify(signed)
	if err != nil {
		return nil, "", err
	}
	// The mechanism knows no other keys than these; the signer may be a subkey.
	if _, ok := keys.ByID[signer]; signer == "" || !ok && !slices.Contains(ids, signer) {
		return nil, "", fmt.Errorf("signed by key %q, which is none of those given", signer)
	}
	return content, signer, nil
}

// Reason says why the mechanism didn't accept a signature: by the type of err, and only where that leaves several
// causes by what the signature claims.
func Reason(err error, c openpgp.Claims, keys key.Index) (verdict.Answer, verdict.Reason) {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return verdict.Unknown, verdict.Timeout
	}
	if errors.Is(err, ErrNoKey) {
		return verdict.Refuse, verdict.KeyUnreadable
	}
	_, invalid := errors.AsType[signature.InvalidSignatureError](err)
	return reasonOf(err, invalid, c, keys)
}

// Signature is an OpenPGP signature as far as it is known.
type Signature struct {
	Claims openpgp.Claims
	// Signer is a fingerprint, or a 16-digit key ID; "" if not said.
	Signer string
	// Keys are those that may have made it, and Source where they are from, for example "key file /etc/pki/key".
	Keys   key.Index
	Source string
}

// Explain puts a reason of Reason's into words; "" for Timeout.
func (s Signature) Explain(reason verdict.Reason, err error) string {
	signer := cmp.Or(s.Signer, "(not said)")
	switch reason {
	case verdict.WrongKey:
		if _, known := s.Keys.ByID[s.Claims.Signer]; known {
			return fmt.Sprintf("the signature names key %s but does not verify with it: it was altered", signer)
		}
		return fmt.Sprintf("signed by key %s, which is none of the accepted keys", signer)
	case verdict.KeyExpired:
		return fmt.Sprintf("key %s has expired", signer)
	case verdict.SignatureExpired:
		return fmt.Sprintf("the signature by key %s has expired", signer)
	case verdict.KeyRevoked:
		return fmt.Sprintf("key %s was revoked", signer)
	case verdict.KeyUnreadable:
		out := fmt.Sprintf("no public key that %s can use inside %s", Name, s.Source)
		if u := s.Keys.Version6(); u != "" {
			out += fmt.Sprintf(": it holds %s, which gpg 2.2 can't read", u)
		}
		return out
	case verdict.WeakOrUnsupported:
		if kind := s.Keys.Kinds[s.Signer]; len(s.Signer) == 64 && kind != "" {
			return fmt.Sprintf("signed by key %s (%s), which %s can't use", s.Signer, kind, Name)
		}
		return "no usable container signature: " + s.unusable(err)
	case verdict.MechanismCannotTell:
		return fmt.Sprintf("the OpenPGP mechanism of this build (%s) cannot judge the signature: %s", Name, s.cannotTell(err))
	}
	return ""
}

func (s Signature) unusable(err error) string {
	switch {
	case s.Claims.Hash == openpgp.HashMD5:
		return "it was made with MD5"
	case s.Claims.Packet == 0:
		return "it is cut off or holds no signature"
	case s.Claims.Digest == "":
		return "it does not hold the JSON of a container signature"
	}
	return Text(err)
}

// Text returns an error of the library without gpgme's state of a signature, which is of no use to a reader.
func Text(err error) string {
	text, _, _ := strings.Cut(err.Error(), ": gpgme.Signature{")
	return text
}

func (s Signature) cannotTell(err error) string {
	if s.Claims.Packet == 3 && Name != "gpgme" {
		return "it is an OpenPGP v3 packet"
	}
	if why := Missing(); why != "" {
		return why
	}
	return err.Error()
}
