package key

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// signature is what a signature packet claims about itself. Nothing of it is verified.
type signature struct {
	kind     byte
	hash     byte // algorithm, RFC 9580, section 9.5
	made     uint32
	lifetime uint32 // of the key, in seconds after its creation; 0 for ever
	issuer   string // key ID, 16 upper-case hex digits, or ""
	signer   string // fingerprint, upper-case hex, or ""
}

// by reports whether the signature names k as its maker.
func (s signature) by(k Key) bool {
	if s.signer != "" {
		return s.signer == k.Fingerprint
	}
	return s.issuer != "" && s.issuer == k.ID()
}

// parseSignature reads a signature packet of version 3, 4 or 6. ok is false for others and damaged ones, which all
// readers skip.
func parseSignature(b []byte) (sig signature, ok bool) {
	if len(b) < 2 {
		return sig, false
	}
	switch b[0] {
	case 3: // version, 5, type, time, key ID, …
		if len(b) < 17 {
			return sig, false
		}
		return signature{kind: b[2], hash: b[16], made: binary.BigEndian.Uint32(b[3:]), issuer: upperHex(b[7:15])}, true
	case 4, 6:
		if len(b) < 4 {
			return sig, false
		}
		sig.kind, sig.hash = b[1], b[3]
		hashed, unhashed, _, ok := areas(b)
		return sig, ok && sig.subpackets(hashed, true) && sig.subpackets(unhashed, false)
	}
	return sig, false
}

// areas returns the subpackets of a signature of version 4 or 6, and what follows them.
func areas(b []byte) (hashed, unhashed, rest []byte, ok bool) {
	width := 2
	if b[0] == 6 {
		width = 4
	}
	if hashed, rest, ok = sized(b[4:], width); ok {
		unhashed, rest, ok = sized(rest, width)
	}
	return hashed, unhashed, rest, ok
}

// subpackets takes over known subpackets. From the unhashed area it takes only the issuer.
func (s *signature) subpackets(area []byte, hashed bool) bool {
	for len(area) > 0 {
		kind, body, rest, ok := subpacket(area)
		if !ok {
			return false
		}
		kind, area = kind&0x7f, rest
		switch {
		case kind == 2 && hashed && len(body) == 4:
			s.made = binary.BigEndian.Uint32(body)
		case kind == 9 && hashed && len(body) == 4:
			s.lifetime = binary.BigEndian.Uint32(body)
		case kind == 16 && len(body) == 8 && s.issuer == "":
			s.issuer = upperHex(body)
		case kind == 33 && len(body) > 1 && s.signer == "":
			s.signer = upperHex(body[1:])
		}
	}
	return true
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }
