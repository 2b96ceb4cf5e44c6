package key

import (
	"crypto/md5"  // the fingerprint of version 3 keys
	"crypto/sha1" // the fingerprint of version 4 keys
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Packet tags of RFC 9580, section 5.
const (
	tagSignature    = 2
	tagSecretKey    = 5
	tagPublicKey    = 6
	tagSecretSubkey = 7
	tagCompressed   = 8
	tagMarker       = 10
	tagTrust        = 12
	tagUserID       = 13
	tagPublicSubkey = 14
	tagUserAttr     = 17
	tagPadding      = 21
)

func parsePackets(data []byte) ([]Key, error) {
	var keys []Key
	var cur *building
	finish := func(end int) {
		if cur != nil {
			keys = append(keys, cur.finish(data[cur.start:end]))
		}
	}
	for off, n := 0, 0; off < len(data); n++ {
		if n == maxPackets {
			return nil, fmt.Errorf("holds more than %d packets", maxPackets)
		}
		tag, body, size, err := nextPacket(data[off:])
		if err != nil {
			return nil, fmt.Errorf("packet at byte %d: %w", off, err)
		}
		switch tag {
		case tagSecretKey, tagSecretSubkey:
			return nil, ErrSecret
		case tagPublicKey:
			finish(off)
			if len(keys) == maxKeys {
				return nil, fmt.Errorf("holds more than %d keys", maxKeys)
			}
			k, err := parseKey(body)
			if err != nil {
				return nil, fmt.Errorf("packet at byte %d: %w", off, err)
			}
			cur = &building{start: off, key: k}
		case tagMarker, tagTrust, tagPadding:
		default:
			if cur == nil {
				return nil, fmt.Errorf("%w: it starts with an OpenPGP packet of type %d", ErrNoKey, tag)
			}
			if err := cur.add(tag, body); err != nil {
				return nil, fmt.Errorf("packet at byte %d: %w", off, err)
			}
		}
		off += size
	}
	finish(len(data))
	if len(keys) == 0 {
		return nil, ErrNoKey
	}
	return keys, nil
}

// building is a primary key whose packets are being read.
type building struct {
	start   int
	key     Key
	subkeys []subkey
	direct  selfSig // newest direct-key self-signature that names an expiry
	userID  selfSig // newest self-signature of any user ID
}

type subkey struct {
	key     Key
	binding selfSig
}

// selfSig is when a self-signature was made and how long the key lasts, 0 for ever.
type selfSig struct {
	seen     bool
	made     uint32
	lifetime uint32
	hash     byte
}

func (s *selfSig) take(sig signature) {
	if !s.seen || sig.made >= s.made {
		*s = selfSig{seen: true, made: sig.made, lifetime: sig.lifetime, hash: sig.hash}
	}
}

func (b *building) add(tag int, body []byte) error {
	switch tag {
	case tagPublicSubkey:
		k, err := parseKey(body)
		if err != nil {
			return err
		}
		b.subkeys = append(b.subkeys, subkey{key: k})
	case tagUserID:
		b.key.UserIDs = append(b.key.UserIDs, strings.ToValidUTF8(string(body), "\uFFFD"))
	case tagSignature:
		if sig, ok := parseSignature(body); ok && sig.by(b.key) {
			b.sign(sig)
		}
	case tagUserAttr:
	default:
		return fmt.Errorf("an OpenPGP packet of type %d is no part of a public key", tag)
	}
	return nil
}

func (b *building) sign(sig signature) {
	switch sig.kind {
	case 0x10, 0x11, 0x12, 0x13:
		b.userID.take(sig)
	case 0x1f:
		if sig.lifetime != 0 || b.key.Version == 6 {
			b.direct.take(sig)
		}
	case 0x20:
		b.key.Revoked = true
	case 0x18, 0x28:
		if len(b.subkeys) == 0 {
			return
		}
		s := &b.subkeys[len(b.subkeys)-1]
		if sig.kind == 0x28 {
			s.key.Revoked = true
			return
		}
		s.binding.take(sig)
	}
}

func (b *building) finish(data []byte) Key {
	k := b.key
	k.Data = append([]byte(nil), data...)
	k.Expires = expiry(k.Created, b.userID.lifetime)
	k.WeakHash = weakHash(b.userID.hash)
	if b.direct.seen {
		k.Expires = expiry(k.Created, b.direct.lifetime)
	}
	for _, s := range b.subkeys {
		s.key.Expires = expiry(s.key.Created, s.binding.lifetime)
		k.Subkeys = append(k.Subkeys, s.key)
	}
	return k
}

func weakHash(algorithm byte) string {
	switch algorithm {
	case 1:
		return "MD5"
	case 2:
		return "SHA-1"
	}
	return ""
}

func expiry(created time.Time, lifetime uint32) time.Time {
	if lifetime == 0 {
		return time.Time{}
	}
	return created.Add(time.Duration(lifetime) * time.Second)
}

var errTruncated = errors.New("is truncated")

// nextPacket reads one packet header of either format and returns the whole packet's size. Partial lengths are not
// allowed in key files.
func nextPacket(b []byte) (tag int, body []byte, size int, err error) {
	head, length := 0, 0
	switch {
	case b[0]&0x80 == 0:
		return 0, nil, 0, fmt.Errorf("is no OpenPGP packet")
	case b[0]&0x40 != 0: // current format
		tag = int(b[0] & 0x3f)
		switch {
		case len(b) < 2:
			return 0, nil, 0, errTruncated
		case b[1] < 192:
			head, length = 2, int(b[1])
		case b[1] < 224:
			if len(b) < 3 {
				return 0, nil, 0, errTruncated
			}
			head, length = 3, (int(b[1])-192)<<8+int(b[2])+192
		case b[1] == 255:
			if len(b) < 6 {
				return 0, nil, 0, errTruncated
			}
			n := binary.BigEndian.Uint32(b[2:])
			if n > math.MaxInt32 {
				return 0, nil, 0, errTruncated
			}
			head, length = 6, int(n)
		default:
			return 0, nil, 0, fmt.Errorf("has a partial length")
		}
	default: // legacy format
		tag = int(b[0]>>2) & 0xf
		n := 1 << (b[0] & 3)
		if n == 8 {
			return 0, nil, 0, fmt.Errorf("has an indeterminate length")
		}
		if len(b) < 1+n {
			return 0, nil, 0, errTruncated
		}
		head = 1 + n
		var l uint64
		for _, c := range b[1:head] {
			l = l<<8 | uint64(c)
		}
		if l > math.MaxInt32 {
			return 0, nil, 0, errTruncated
		}
		length = int(l)
	}
	if length > len(b)-head {
		return 0, nil, 0, errTruncated
	}
	return tag, b[head : head+length], head + length, nil
}

// parseKey reads the body of a key packet. For unknown algorithms it returns name, time and fingerprint only.
func parseKey(body []byte) (Key, error) {
	if len(body) < 6 {
		return Key{}, errTruncated
	}
	k := Key{Version: int(body[0]), Created: time.Unix(int64(binary.BigEndian.Uint32(body[1:])), 0).UTC()}
	var sum []byte
	var alg byte
	var material []byte
	switch k.Version {
	case 2, 3:
		if len(body) < 8 {
			return Key{}, errTruncated
		}
		alg, material = body[7], body[8:]
		n, rest, _ := mpi(material)
		e, _, _ := mpi(rest)
		h := md5.Sum(append(append([]byte(nil), n...), e...))
		sum = h[:]
	case 4:
		alg, material = body[5], body[6:]
		if len(body) > math.MaxUint16 {
			return Key{}, fmt.Errorf("is too large for a version 4 key")
		}
		h := sha1.Sum(append([]byte{0x99, byte(len(body) >> 8), byte(len(body))}, body...))
		sum = h[:]
	case 5, 6:
		if len(body) < 10 {
			return Key{}, errTruncated
		}
		alg, material = body[5], body[10:]
		head := binary.BigEndian.AppendUint32([]byte{0x95 + byte(k.Version)}, uint32(len(body)))
		h := sha256.Sum256(append(head, body...))
		sum = h[:]
	default:
		k.Algorithm = "unknown"
		return k, nil
	}
	k.Fingerprint = strings.ToUpper(hex.EncodeToString(sum))
	k.algorithm = alg
	k.Algorithm, k.Bits = algorithm(alg, material)
	return k, nil
}

// mpi splits a multi-precision integer (2 bytes of bit count, then the bytes) off b.
func mpi(b []byte) (number, rest []byte, bits int) {
	if len(b) < 2 {
		return nil, nil, 0
	}
	bits = int(binary.BigEndian.Uint16(b))
	n := (bits + 7) / 8
	if len(b) < 2+n {
		return nil, nil, 0
	}
	return b[2 : 2+n], b[2+n:], bits
}

func algorithm(alg byte, material []byte) (name string, bits int) {
	switch alg {
	case 1, 2, 3:
		_, _, bits = mpi(material)
		return "RSA", bits
	case 16:
		_, _, bits = mpi(material)
		return "Elgamal", bits
	case 17:
		_, _, bits = mpi(material)
		return "DSA", bits
	case 18, 19, 22:
		name = map[byte]string{18: "ECDH", 19: "ECDSA", 22: "EdDSA"}[alg]
		if len(material) > 0 && len(material) > int(material[0]) {
			curve, bits := curve(material[1 : 1+int(material[0])])
			if alg == 22 && curve == "Ed25519" {
				return curve, bits
			}
			return name + " " + curve, bits
		}
		return name, 0
	case 25:
		return "X25519", 256
	case 26:
		return "X448", 448
	case 27:
		return "Ed25519", 256
	case 28:
		return "Ed448", 448
	case 30:
		return "ML-DSA-65+Ed25519", 0
	case 31:
		return "ML-DSA-87+Ed448", 0
	case 32:
		return "SLH-DSA-SHAKE-128s", 0
	case 33:
		return "SLH-DSA-SHAKE-128f", 0
	case 34:
		return "SLH-DSA-SHAKE-256s", 0
	case 35:
		return "ML-KEM-768+X25519", 0
	case 36:
		return "ML-KEM-1024+X448", 0
	}
	return fmt.Sprintf("algorithm %d", alg), 0
}

func curve(oid []byte) (name string, bits int) {
	switch hex.EncodeToString(oid) {
	case "2a8648ce3d030107":
		return "P-256", 256
	case "2b81040022":
		return "P-384", 384
	case "2b81040023":
		return "P-521", 521
	case "2b8104000a":
		return "secp256k1", 256
	case "2b2403030208010107":
		return "brainpoolP256r1", 256
	case "2b240303020801010b":
		return "brainpoolP384r1", 384
	case "2b240303020801010d":
		return "brainpoolP512r1", 512
	case "2b06010401da470f01":
		return "Ed25519", 256
	case "2b060104019755010501":
		return "Curve25519", 256
	}
	return "curve " + hex.EncodeToString(oid), 0
}
