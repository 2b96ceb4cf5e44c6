// Package key reads files of public keys: OpenPGP (armored or binary, any number of keys and armor blocks) and PEM. It
// verifies nothing.
//
// It reads packets itself: an OpenPGP library would be a tenth of the agent's program, and none yet parses the
// post-quantum keys in Red Hat's key files, whose fingerprints need no cryptography.
package key

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limits of what Parse reads.
const (
	MaxFile    = 1 << 20
	maxKeys    = 256
	maxPackets = 10_000
)

// Errors of Parse, for errors.Is.
var (
	// ErrNoKey means that the file was read and holds no public key.
	ErrNoKey = errors.New("holds no public key")
	// ErrSecret means that the file holds private key material, which has no place on a node.
	ErrSecret = errors.New("holds private key material")
)

// Kind is the kind of a key file.
type Kind string

// The kinds of key files. A file is of one kind.
const (
	OpenPGP     Kind = "openpgp"
	PublicKey   Kind = "public key"  // PEM "PUBLIC KEY": a sigstore key
	Certificate Kind = "certificate" // PEM "CERTIFICATE"
)

type File struct {
	Kind Kind
	// Keys are in the order of the file.
	Keys []Key
	// Blocks is the number of armor or PEM blocks, 0 for a binary file. The image library's pure-Go OpenPGP mechanism
	// reads only the first armor block.
	Blocks int
	// Preamble is true if text stands before the first block.
	Preamble bool
	// Secret is true if the file holds OpenPGP secret keys. Keys, Binary and Data have their public halves, which
	// readers import.
	Secret bool
	// Packed is true if keys are in a compressed packet, which GnuPG reads, but not every reader. Keys and Binary have
	// its content.
	Packed bool
	// Plain is true if GnuPG finds Binary's content in an OpenPGP file: it is binary, or armored as by GnuPG.
	Plain bool
	// Binary is the best content for readers: for OpenPGP the packets of all blocks, de-armored and concatenated; for
	// PEM the file's own bytes.
	Binary []byte
}

// Key is a public key: an OpenPGP primary key with its parts, or one PEM block.
type Key struct {
	// Fingerprint is in upper-case hex: 40 digits for OpenPGP v4, 64 for v5 and v6, 32 for v3; of PEM keys and
	// certificates the SHA-256 of the DER SubjectPublicKeyInfo. It is empty for unknown OpenPGP versions.
	Fingerprint string
	// Version is that of the OpenPGP key packet: 3, 4, 5 (LibrePGP) or 6. 0 for PEM.
	Version int
	// Algorithm is a short name, for example "RSA", "Ed25519", "ML-DSA-87+Ed448", or "algorithm 99".
	Algorithm string
	// Bits is the size of the RSA or DSA modulus or of the curve's field, or 0 without such a size.
	Bits    int
	Created time.Time
	// Expires is zero for a key without expiry. Like Revoked it comes from the key's newest self-signature,
	// unverified.
	Expires time.Time
	Revoked bool
	// WeakHash is "SHA-1" or "MD5" if it made the newest self-signature of a user ID. Strict readers take no such key.
	WeakHash string
	UserIDs  []string
	// Subkeys have no subkeys and user IDs of their own.
	Subkeys []Key
	// Data is the key alone, in binary.
	Data []byte

	algorithm byte
}

// ID returns the 16 hex digits by which signatures of versions 3 and 4 name the key.
func (k Key) ID() string {
	switch {
	case len(k.Fingerprint) < 16:
		return k.Fingerprint
	case k.Version == 5, k.Version == 6:
		return k.Fingerprint[:16]
	}
	return k.Fingerprint[len(k.Fingerprint)-16:]
}

// Expired reports whether the key has an expiry before now.
func (k Key) Expired(now time.Time) bool { return !k.Expires.IsZero() && !now.Before(k.Expires) }

// Find returns the key that has, or whose subkey has, this fingerprint or 16-digit ID, in upper-case hex.
func (f *File) Find(id string) (Key, bool) {
	for _, k := range f.Keys {
		if k.Fingerprint == id || k.ID() == id || slices.ContainsFunc(k.Subkeys,
			func(s Key) bool { return s.Fingerprint == id || s.ID() == id }) {
			return k, true
		}
	}
	return Key{}, false
}

// Parse reads a file of public keys. It fails if any part is damaged, so a result is complete, but accepts unknown
// versions and algorithms. The error wraps ErrNoKey or ErrSecret, or describes the damage.
func Parse(data []byte) (*File, error) {
	f, err := Read(data)
	if err == nil && f.Secret {
		return nil, ErrSecret
	}
	return f, err
}

// Read is Parse that also reads the public halves of OpenPGP secret keys, as readers do. It fails with ErrSecret for
// private keys in PEM, and for secret keys whose algorithm has an unknown public half.
func Read(data []byte) (*File, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("is larger than %d bytes", MaxFile)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrNoKey)
	}
	if data[0]&0x80 != 0 && !bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		f := &File{Kind: OpenPGP, Plain: true, Binary: bytes.Clone(data)}
		if err := f.packets(); err != nil {
			return nil, err
		}
		return f, nil
	}
	if bytes.Contains(data, []byte("-----BEGIN PGP ")) {
		return parseArmored(data)
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		return parsePEM(data)
	}
	if len(data) > 12 && string(data[8:12]) == "KBXf" {
		return nil, fmt.Errorf("%w: it is a GnuPG keybox, which no policy reader takes (use gpg --export)", ErrNoKey)
	}
	return nil, ErrNoKey
}

func (f *File) packets() (err error) {
	f.expose()
	f.Keys, err = parsePackets(f.Binary)
	return err
}
