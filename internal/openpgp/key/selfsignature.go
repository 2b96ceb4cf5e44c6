package key

import (
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 nothing is signed with it
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha1" // self-signatures of older keys
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Types of signatures, RFC 9580, section 5.2.1.
const (
	sigBinding       = 0x18
	sigBack          = 0x19 // of a subkey that signs, inside its binding
	sigDirect        = 0x1f
	sigRevokesKey    = 0x20
	sigRevokesSubkey = 0x28
	sigRevokesUser   = 0x30
)

// selfSignature is a version 4 signature of a key about itself.
type selfSignature struct {
	kind, algorithm, hash byte

	made     uint32
	expires  uint32 // seconds after made, 0 is never
	lifetime uint32 // of the key, in seconds after its creation, 0 is for ever
	flags    []byte // uses of the key; nil if missing
	issuers  []string
	back     [][]byte // embedded signatures

	odd     string // why GnuPG may take the signature in another way
	signed  []byte // the part that is hashed
	numbers []byte // the signature proper
}

// parseSelf reads a signature of version 4. It only records oddities: the key that made the signature is not known
// yet.
func parseSelf(b []byte) (s selfSignature, err error) {
	if len(b) > 0 && b[0] == 3 { // by somebody, long ago
		if len(b) < 19 {
			return s, errTruncated
		}
		return selfSignature{kind: b[2], issuers: []string{upperHex(b[7:15])}, odd: "is of OpenPGP version 3"}, nil
	}
	if len(b) < 4 || b[0] != 4 {
		return s, fmt.Errorf("has a signature of an unusual version")
	}
	s = selfSignature{kind: b[1], algorithm: b[2], hash: b[3]}
	hashed, unhashed, rest, ok := areas(b)
	if !ok || len(rest) < 2 {
		return s, errTruncated
	}
	s.signed, s.numbers = b[:6+len(hashed)], rest[2:]
	return s, errors.Join(s.subpackets(hashed, true), s.subpackets(unhashed, false))
}

func (s *selfSignature) subpackets(area []byte, hashed bool) error {
	for len(area) > 0 {
		kind, body, rest, ok := subpacket(area)
		if !ok {
			return errTruncated
		}
		area = rest
		s.subpacket(kind&0x7f, body, hashed, kind&0x80 != 0)
	}
	return nil
}

// subpacket takes over what means the same to GnuPG, and records what may not.
func (s *selfSignature) subpacket(kind byte, body []byte, hashed, critical bool) {
	number := func(to *uint32) {
		if !hashed || len(body) != 4 || *to != 0 {
			s.odd = "has an unusual number"
			return
		}
		*to = binary.BigEndian.Uint32(body)
	}
	switch kind {
	case 2:
		number(&s.made)
	case 3:
		number(&s.expires)
	case 9:
		number(&s.lifetime)
	case 16:
		s.issuers = append(s.issuers, upperHex(body))
	case 27:
		if !hashed || len(body) == 0 || s.flags != nil {
			s.odd = "says in an unusual way what the key is for"
		}
		s.flags = body
	case 32:
		s.back = append(s.back, body)
	case 33:
		if len(body) != 21 || body[0] != 4 {
			s.issuers = append(s.issuers, "")
			return
		}
		s.issuers = append(s.issuers, upperHex(body[13:]))
	case 11, 21, 22, 23, 24, 25, 26, 29, 30, 31, 34: // preferences, reasons
	case 20: // notations
		if critical {
			s.odd = "has a critical notation"
		}
	default: // designated revokers and signatures that are not exported change the key
		s.odd = fmt.Sprintf("has a signature with subpacket %d", kind)
	}
}

func subpacket(area []byte) (kind byte, body, rest []byte, ok bool) {
	body, rest, ok = lengthFirst(area)
	if !ok || len(body) == 0 {
		return 0, nil, nil, false
	}
	return body[0], body[1:], rest, true
}

// madeBy reports whether the signature names k as its maker. It returns an error if others are named as well.
func (s selfSignature) madeBy(k Key) (bool, error) {
	own := 0
	for _, id := range s.issuers {
		if id == k.ID() {
			own++
		}
	}
	if own > 0 && own < len(s.issuers) {
		return false, fmt.Errorf("has a signature that names several makers")
	}
	return own > 0, nil
}

// check returns why GnuPG may take the signature in another way.
func (s selfSignature) check() error {
	revokes := s.kind == sigRevokesKey || s.kind == sigRevokesSubkey || s.kind == sigRevokesUser
	switch {
	case s.odd != "":
		return errors.New(s.odd)
	case s.made == 0:
		return errors.New("has a signature without a time")
	case revokes && s.expires != 0:
		return errors.New("has a revocation that expires")
	}
	return nil
}

// sign reports whether the key may sign data. Without flags GnuPG takes what the algorithm allows.
func (s selfSignature) sign() bool { return s.flags == nil || s.flags[0]&2 != 0 }

func (s selfSignature) over(at time.Time) bool {
	return s.expires != 0 && int64(s.made+s.expires) <= at.Unix()
}

// means reports whether two signatures say the same of the key.
func (s selfSignature) means(o selfSignature) bool {
	return s.kind == o.kind && s.expires == o.expires && s.lifetime == o.lifetime &&
		(s.flags == nil) == (o.flags == nil) && s.sign() == o.sign()
}

// checkBack checks that a signing subkey vouches for its primary key: else a key could claim another's subkey.
func (s selfSignature) checkBack(primary, sub keyPacket) error {
	if len(s.back) != 1 {
		return fmt.Errorf("subkey %s does not vouch for its primary key once", sub.Fingerprint)
	}
	back, err := parseSelf(s.back[0])
	if err != nil {
		return err
	}
	if own, err := back.madeBy(sub.Key); err != nil || !own || back.kind != sigBack || back.expires != 0 {
		return fmt.Errorf("subkey %s does not vouch for its primary key", sub.Fingerprint)
	}
	if err := back.check(); err != nil {
		return err
	}
	return back.verify(sub, back.digestOf(primary, nil, &sub))
}

// digestOf hashes the subject of the signature: a key, and a user ID or a subkey of it.
func (s selfSignature) digestOf(primary keyPacket, user []byte, sub *keyPacket) []byte {
	hash, ok := hashes[s.hash]
	if !ok {
		return nil
	}
	h := hash.New()
	write := func(head, body []byte) { h.Write(head); h.Write(body) }
	ofKey := func(k keyPacket) {
		write(binary.BigEndian.AppendUint16([]byte{0x99}, uint16(len(k.body))), k.body)
	}
	ofKey(primary)
	switch {
	case user != nil:
		write(binary.BigEndian.AppendUint32([]byte{0xb4}, uint32(len(user))), user)
	case sub != nil:
		ofKey(*sub)
	}
	write(s.signed, binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(s.signed))))
	return h.Sum(nil)
}

// hashes are those that all of today's GnuPG versions accept in self-signatures.
var hashes = map[byte]crypto.Hash{
	2: crypto.SHA1, 8: crypto.SHA256, 9: crypto.SHA384, 10: crypto.SHA512,
	11: crypto.SHA224,
}

var errUnverified = errors.New("a signature of its own could not be verified")

// verify checks a signature by k of digest. An unknown algorithm is an error.
func (s selfSignature) verify(k keyPacket, digest []byte) error {
	if int64(s.made) < k.Created.Unix() || digest == nil || s.algorithm != k.algorithm {
		return errUnverified
	}
	ok := false
	switch k.algorithm {
	case algoRSA, algoRSASign:
		ok = s.verifyRSA(k, digest)
	case algoDSA:
		ok = s.verifyDSA(k, digest)
	case algoECDSA:
		ok = s.verifyECDSA(k, digest)
	case algoEdDSA:
		ok = s.verifyEdDSA(k, digest)
	}
	if !ok {
		return errUnverified
	}
	return nil
}

func (s selfSignature) verifyRSA(k keyPacket, digest []byte) bool {
	public := numbers(k.material(), 2)
	sig, _, _ := mpi(s.numbers)
	pub := rsa.PublicKey{N: public[0]}
	if pub.N.Sign() == 0 || public[1].Sign() == 0 || public[1].BitLen() > 24 || len(sig) > pub.Size() {
		return false
	}
	pub.E = int(public[1].Int64())
	return rsa.VerifyPKCS1v15(&pub, hashes[s.hash], digest, leftPadded(sig, pub.Size())) == nil
}

// verifyDSA serves old keys in vendors' files.
func (s selfSignature) verifyDSA(k keyPacket, digest []byte) bool {
	n, sig := numbers(k.material(), 4), numbers(s.numbers, 2)
	pub := dsa.PublicKey{Parameters: dsa.Parameters{P: n[0], Q: n[1], G: n[2]}, Y: n[3]}
	size := pub.Q.BitLen() / 8
	if size == 0 || pub.Q.BitLen()%8 != 0 || pub.P.BitLen() > 4096 || len(digest) < size {
		return false
	}
	return dsa.Verify(&pub, digest[:size], sig[0], sig[1])
}

func (s selfSignature) verifyECDSA(k keyPacket, digest []byte) bool {
	name, point := k.point()
	curve, ok := map[string]elliptic.Curve{
		"P-256": elliptic.P256(), "P-384": elliptic.P384(),
		"P-521": elliptic.P521(),
	}[name]
	if !ok {
		return false
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return false
	}
	sig := numbers(s.numbers, 2)
	return ecdsa.Verify(pub, digest, sig[0], sig[1])
}

func (s selfSignature) verifyEdDSA(k keyPacket, digest []byte) bool {
	name, point := k.point()
	r, rest, _ := mpi(s.numbers)
	t, _, _ := mpi(rest)
	if name != "Ed25519" || len(point) != 33 || point[0] != 0x40 || len(r) > 32 || len(t) > 32 {
		return false
	}
	return ed25519.Verify(point[1:], digest, append(leftPadded(r, 32), leftPadded(t, 32)...))
}

// material returns the key's numbers, behind version, time and algorithm.
func (k keyPacket) material() []byte { return k.body[6:] }

// point returns the curve and the public point of a key on a curve.
func (k keyPacket) point() (name string, point []byte) {
	m := k.material()
	if len(m) == 0 || len(m) <= int(m[0]) {
		return "", nil
	}
	name, _ = curve(m[1 : 1+int(m[0])])
	point, _, _ = mpi(m[1+int(m[0]):])
	return name, point
}

func leftPadded(b []byte, size int) []byte {
	return append(make([]byte, size-len(b), size), b...)
}

// numbers reads count integers; those that are missing are 0.
func numbers(b []byte, count int) []*big.Int {
	out := make([]*big.Int, count)
	for i := range out {
		var n []byte
		n, b, _ = mpi(b)
		out[i] = new(big.Int).SetBytes(n)
	}
	return out
}
