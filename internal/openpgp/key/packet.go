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
	var rest []byte
	ok := false
	switch {
	case b[0]&0x80 == 0:
		return 0, nil, 0, fmt.Errorf("is no OpenPGP packet")
	case b[0]&0x40 == 0: // legacy format
		if b[0]&3 == 3 {
			return 0, nil, 0, fmt.Errorf("has an indeterminate length")
		}
		tag = int(b[0]>>2) & 0xf
		body, rest, ok = sized(b[1:], 1<<(b[0]&3))
	case len(b) > 1 && b[1] >= 224 && b[1] < 255:
		return 0, nil, 0, fmt.Errorf("has a partial length")
	default:
		tag = int(b[0] & 0x3f)
		body, rest, ok = lengthFirst(b[1:])
	}
	if !ok {
		return 0, nil, 0, errTruncated
	}
	return tag, body, len(b) - len(rest), nil
}

// lengthFirst splits off an area with its length in front, in 1, 2 or 5 bytes.
func lengthFirst(b []byte) (area, rest []byte, ok bool) {
	switch {
	case len(b) == 0:
		return nil, nil, false
	case b[0] < 192:
		return sized(b, 1)
	case b[0] == 255:
		return sized(b[1:], 4)
	case len(b) == 1:
		return nil, nil, false
	}
	n := (int(b[0])-192)<<8 + int(b[1]) + 192
	if b = b[2:]; n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// sized splits off an area with its length in front, in width bytes.
func sized(b []byte, width int) (area, rest []byte, ok bool) {
	if len(b) < width {
		return nil, nil, false
	}
	n := uint64(0)
	for _, c := range b[:width] {
		n = n<<8 | uint64(c)
	}
	b = b[width:]
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
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
