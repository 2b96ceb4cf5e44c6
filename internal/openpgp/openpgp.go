// Package openpgp reads what OpenPGP packets say, without judging anything: what keys are in key files, what a
// signature claims of itself. Nothing that it tells is proven.
package openpgp

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenPGP v4 fingerprints are SHA-1
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
)

// OpenPGP packet tags.
const (
	tagSignature  = 2
	tagOnePass    = 4
	tagPublicKey  = 6
	tagCompressed = 8
	tagLiteral    = 11
	tagSubkey     = 14
)

// Keys are the public keys found in key files, whether or not a mechanism can use them.
type Keys struct {
	// Primary are the fingerprints of the primary keys, in file order, upper-case hex.
	Primary []string
	// ByID maps fingerprints and 16-digit key IDs of primary keys and subkeys to the primary key's fingerprint.
	ByID map[string]string
	// Kinds are version and algorithm of the primary keys, by fingerprint.
	Kinds map[string]string
}

// Unusual names the primary keys of OpenPGP version 6, which gpg 2.2 (that of RHEL 8 and 9, and Debian 12) can't
// read, with their algorithms; "" if there are none.
func (k Keys) Unusual() string {
	var out []string
	for _, fpr := range k.Primary {
		if len(fpr) == 64 {
			out = append(out, fpr+" ("+k.Kinds[fpr]+")")
		}
	}
	return strings.Join(out, ", ")
}

// ParseKeys lists the keys in key files: binary, or any number of armored blocks with text around them; of secret
// keys their public halves. It is more lenient than the mechanisms are, so what it finds says only what the file is
// meant to hold. It doesn't find all that a mechanism imports: mechanism.Keys asks.
func ParseKeys(files [][]byte) Keys {
	k := newKeys()
	for _, file := range files {
		if f, err := key.Read(file); err == nil && (f.Secret || f.Packed) {
			file = f.Binary
		}
		for _, data := range dearmor(file) {
			k.add(data)
		}
	}
	return k
}

// Take adds primary keys by their fingerprints: those that a mechanism found.
func (k *Keys) Take(fingerprints []string) {
	for _, fpr := range fingerprints {
		if !slices.Contains(k.Primary, fpr) {
			k.Primary = append(k.Primary, fpr)
		}
		k.ByID[fpr] = fpr
		switch len(fpr) {
		case 40:
			k.ByID[fpr[24:]] = fpr
		case 64:
			k.ByID[fpr[:16]] = fpr
		}
	}
}

// Public is a key file as a mechanism is to get it: with the public halves alone of OpenPGP secret keys. Runtimes use
// no more of them; gpg would start an agent for the rest, and go wrong without one. A file without secret keys is as
// it was.
func Public(file []byte) []byte {
	f, err := key.Read(file)
	if err != nil || !f.Secret || f.Packed || f.Kind != key.OpenPGP {
		return file
	}
	return f.Binary
}

// Ring is one key file of several, as a mechanism takes it: armored blocks are joined as binary, keys of version 6
// last, because gpg 2.2 drops what follows them.
func Ring(files [][]byte) []byte {
	var rings [][]byte
	for _, f := range files {
		rings = append(rings, dearmor(Public(f))...)
	}
	slices.SortStableFunc(rings, func(a, b []byte) int { return maxVersion(a) - maxVersion(b) })
	return bytes.Join(rings, nil)
}

// maxVersion is the highest key version in a binary key file.
func maxVersion(ring []byte) int {
	k := newKeys()
	k.add(ring)
	v := 0
	for _, fpr := range k.Primary {
		if len(fpr) == 64 {
			v = 6
		}
	}
	return v
}

func newKeys() Keys { return Keys{ByID: map[string]string{}, Kinds: map[string]string{}} }

func (k *Keys) add(data []byte) {
	r := packet.NewOpaqueReader(bytes.NewReader(data))
	primary := ""
	for {
		p, err := r.Next()
		if err != nil {
			return
		}
		if p.Tag != tagPublicKey && p.Tag != tagSubkey {
			continue
		}
		fpr, id := fingerprint(p.Contents)
		if fpr == "" {
			continue
		}
		if p.Tag == tagPublicKey {
			primary = fpr
			if !slices.Contains(k.Primary, fpr) {
				k.Primary = append(k.Primary, fpr)
				k.Kinds[fpr] = keyKind(p.Contents)
			}
		}
		k.ByID[fpr], k.ByID[id] = primary, primary
	}
}

// fingerprint of a public key packet's body, and its key ID; "" for versions that nobody uses.
func fingerprint(body []byte) (fpr, id string) {
	if len(body) < 6 {
		return "", ""
	}
	switch body[0] {
	case 4:
		h := sha1.New() //nolint:gosec
		h.Write([]byte{0x99})
		_ = binary.Write(h, binary.BigEndian, uint16(len(body)))
		h.Write(body)
		fpr = strings.ToUpper(hex.EncodeToString(h.Sum(nil)))
		return fpr, fpr[24:]
	case 6:
		h := sha256.New()
		h.Write([]byte{0x9b})
		_ = binary.Write(h, binary.BigEndian, uint32(len(body)))
		h.Write(body)
		fpr = strings.ToUpper(hex.EncodeToString(h.Sum(nil)))
		return fpr, fpr[:16]
	}
	return "", ""
}

// keyKind says of a public key packet's body what it is, for example "RSA-4096, OpenPGP v4".
func keyKind(body []byte) string {
	algorithms := map[byte]string{
		1: "RSA", 17: "DSA", 19: "ECDSA", 22: "EdDSA", 27: "Ed25519", 28: "Ed448",
		30: "ML-DSA-65+Ed25519, post-quantum", 31: "ML-DSA-87+Ed448, post-quantum",
		32: "SLH-DSA-SHAKE-128s, post-quantum", 33: "SLH-DSA-SHAKE-128f, post-quantum",
		34: "SLH-DSA-SHAKE-256s, post-quantum",
	}
	version, algorithm := body[0], body[5] // fingerprint has looked at the length
	name, ok := algorithms[algorithm]
	if !ok {
		name = fmt.Sprintf("algorithm %d", algorithm)
	}
	// The first number of an RSA or DSA key is its modulus: its length in bits stands before it.
	at := 6
	if version == 6 {
		at += 4
	}
	if (algorithm == 1 || algorithm == 17) && len(body) >= at+2 {
		name += fmt.Sprintf("-%d", binary.BigEndian.Uint16(body[at:]))
	}
	return fmt.Sprintf("%s, OpenPGP v%d", name, version)
}

// dearmor returns the contents of all armored blocks in file, or the file itself if it has none.
func dearmor(file []byte) [][]byte {
	const begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
	var out [][]byte
	for rest := file; ; {
		i := bytes.Index(rest, []byte(begin))
		if i < 0 {
			break
		}
		rest = rest[i:]
		j := bytes.Index(rest, []byte(end))
		if j < 0 {
			j = len(rest) - len(end)
		}
		j = min(len(rest), max(j+len(end), len(begin)))
		if block, err := armor.Decode(bytes.NewReader(append(slices.Clip(rest[:j]), '\n'))); err == nil {
			if b, err := io.ReadAll(block.Body); err == nil {
				out = append(out, b)
			}
		}
		rest = rest[j:]
	}
	if len(out) == 0 {
		return [][]byte{file}
	}
	return out
}
