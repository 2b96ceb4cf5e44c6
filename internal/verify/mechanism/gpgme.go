//go:build !containers_image_openpgp

package mechanism

// #cgo pkg-config: gpgme
// #cgo CPPFLAGS: -D_FILE_OFFSET_BITS=64
// #include <gpgme.h>
// static int nt_disable_gpgconf(void) { return gpgme_set_global_flag("disable-gpgconf", "1"); }
import "C"

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/proglottis/gpgme"

	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Name is the OpenPGP mechanism this program judges signatures with.
const Name = "gpgme"

// SkipGPGConf makes gpgme look for gpg in $PATH itself instead of asking gpgconf where it is, which takes three
// processes one after the other. What gpg judges is the same. It has effect only before gpgme is used for the first
// time.
func SkipGPGConf() { C.nt_disable_gpgconf() }

// WarmUp makes gpgme look for its engines now, which takes several short processes, one after the other: while the
// registry is asked that costs no time. Whoever uses gpgme meanwhile waits for it.
func WarmUp() { _ = gpgme.EngineCheckVersion(gpgme.ProtocolOpenPGP) }

// Engine names the versions of gpgme, gpg and gpg's libgcrypt, as far as they can be told.
func Engine() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "gpg", "--version").Output()
	gpg, rest, _ := strings.Cut(string(out), "\n")
	libgcrypt, _, _ := strings.Cut(rest, "\n")
	return "gpgme " + C.GoString(C.gpgme_check_version(nil)) + ", " + gpg + ", " + libgcrypt
}

// Missing says which program is missing that judges signatures; "" if none is.
func Missing() string {
	if _, err := exec.LookPath("gpg"); err != nil {
		return "there is no program gpg in $PATH"
	}
	return ""
}

// noKeys reports whether an error says something of the data: no keys to import, or no signed message.
func noKeys(err error) bool {
	e, ok := errors.AsType[gpgme.Error](err)
	return ok && (int(e.Code()) == gpgNoData || int(e.Code()) == gpgBadData)
}

// Error codes of libgpg-error.
const (
	gpgBadSignature = 8
	gpgNoPublicKey  = 9
	gpgNoData       = 58
	gpgBadData      = 89
	gpgRevoked      = 94
	gpgKeyExpired   = 153
	gpgSigExpired   = 154
)

// The library prints the state of a signature that gpg judged bad into its error and keeps nothing else of it.
var gpgStatus = regexp.MustCompile(`Status:gpgme\.Error\{err:0x([0-9a-f]+)\}`)

// reasonOf says why the mechanism didn't accept a signature, when neither digest nor identity were the cause.
func reasonOf(err error, invalid bool, c openpgp.Claims, keys key.Index) (verdict.Answer, verdict.Reason) {
	if !invalid {
		if noKeys(err) {
			// gpg found no signed message, more than one, or bytes after it.
			return verdict.Refuse, verdict.WeakOrUnsupported
		}
		return verdict.Unknown, verdict.MechanismCannotTell // gpg itself didn't work
	}
	code := uint64(0)
	if m := gpgStatus.FindStringSubmatch(err.Error()); m != nil {
		code, _ = strconv.ParseUint(m[1], 16, 64)
	}
	switch code & 0xffff {
	case gpgKeyExpired:
		return verdict.Refuse, verdict.KeyExpired
	case gpgSigExpired:
		return verdict.Refuse, verdict.SignatureExpired
	case gpgRevoked:
		return verdict.Refuse, verdict.KeyRevoked
	case gpgNoPublicKey:
		if _, ok := keys.ByID[c.Signer]; ok {
			return verdict.Refuse, verdict.WeakOrUnsupported // there, but gpg can't use it
		}
		return verdict.Refuse, verdict.WrongKey
	case gpgBadSignature:
		return verdict.Refuse, verdict.WrongKey
	}
	if _, ok := keys.ByID[c.Signer]; !ok && c.Signer != "" {
		return verdict.Refuse, verdict.WrongKey
	}
	return verdict.Refuse, verdict.WeakOrUnsupported
}
