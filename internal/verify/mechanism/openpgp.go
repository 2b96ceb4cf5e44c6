//go:build containers_image_openpgp

package mechanism

import (
	"errors"
	"io"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"

	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
)

// Name is the OpenPGP mechanism this program judges signatures with. The pure-Go one refuses OpenPGP v3 signature
// packets, which genuine older Red Hat signatures are; verdicts that hang on that are unknown, never refuse.
const Name = "openpgp"

// WarmUp, SkipGPGConf, Engine and Missing are about gpg, which is not needed here.
func WarmUp() {}

func SkipGPGConf() {}

func Engine() string { return "" }

func Missing() string { return "" }

// noKeys is true for an error of importing keys that says something of the keys: there is no other here.
func noKeys(error) bool { return true }

// reasonOf says why the mechanism didn't accept a signature, when neither digest nor identity were the cause.
// Where gpg might have accepted it the answer is unknown.
func reasonOf(err error, invalid bool, c openpgp.Claims, keys key.Index) (verdict.Answer, verdict.Reason) {
	_, ours := keys.ByID[c.Signer]
	switch {
	case c.Packet == 3 || c.Hash == openpgp.HashRIPEMD:
		return verdict.Unknown, verdict.MechanismCannotTell
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return verdict.Refuse, verdict.KeyExpired
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return verdict.Refuse, verdict.SignatureExpired
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return verdict.Refuse, verdict.KeyRevoked
	case failure.Is[pgperrors.WeakAlgorithmError](err), c.Hash == openpgp.HashMD5:
		return verdict.Refuse, verdict.WeakOrUnsupported
	case failure.Is[pgperrors.SignatureError](err):
		return verdict.Refuse, verdict.WrongKey
	case c.Packet == 0, errors.Is(err, io.ErrUnexpectedEOF):
		return verdict.Refuse, verdict.WeakOrUnsupported // truncated: no mechanism reads it
	case invalid && !ours:
		return verdict.Refuse, verdict.WrongKey
	case invalid && c.Digest == "":
		return verdict.Refuse, verdict.WeakOrUnsupported // well signed, but no container signature
	}
	return verdict.Unknown, verdict.MechanismCannotTell
}
