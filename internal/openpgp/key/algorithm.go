package key

import (
	"encoding/hex"
	"fmt"
)

// Algorithms of public keys, RFC 9580, section 9.1.
const (
	algoRSA     = 1
	algoRSASign = 3
	algoDSA     = 17
	algoECDSA   = 19
	algoEdDSA   = 22
)

// algorithms are the known ones, with the public numbers at the start of a key's material: the name of a curve, fixed
// bytes, integers, and parameters of a key derivation. Post-quantum keys have numbers that nobody here reads.
var algorithms = map[byte]struct {
	name        string
	bits        int // 0: of the first integer, or of the curve
	fixed, mpis int
	curve, kdf  bool
}{
	algoRSA:     {name: "RSA", mpis: 2},
	2:           {name: "RSA", mpis: 2},
	algoRSASign: {name: "RSA", mpis: 2},
	16:          {name: "Elgamal", mpis: 3},
	algoDSA:     {name: "DSA", mpis: 4},
	18:          {name: "ECDH", curve: true, mpis: 1, kdf: true},
	algoECDSA:   {name: "ECDSA", curve: true, mpis: 1},
	algoEdDSA:   {name: "EdDSA", curve: true, mpis: 1},
	25:          {name: "X25519", bits: 256, fixed: 32},
	26:          {name: "X448", bits: 448, fixed: 56},
	27:          {name: "Ed25519", bits: 256, fixed: 32},
	28:          {name: "Ed448", bits: 448, fixed: 57},
	30:          {name: "ML-DSA-65+Ed25519"},
	31:          {name: "ML-DSA-87+Ed448"},
	32:          {name: "SLH-DSA-SHAKE-128s"},
	33:          {name: "SLH-DSA-SHAKE-128f"},
	34:          {name: "SLH-DSA-SHAKE-256s"},
	35:          {name: "ML-KEM-768+X25519"},
	36:          {name: "ML-KEM-1024+X448"},
}

func algorithm(alg byte, material []byte) (name string, bits int) {
	a, known := algorithms[alg]
	switch {
	case !known:
		return fmt.Sprintf("algorithm %d", alg), 0
	case !a.curve && a.mpis > 0:
		_, _, bits = mpi(material)
		return a.name, bits
	case !a.curve || len(material) == 0 || len(material) <= int(material[0]):
		return a.name, a.bits
	}
	curve, bits := curve(material[1 : 1+int(material[0])])
	if alg == algoEdDSA && curve == "Ed25519" {
		return curve, bits
	}
	return a.name + " " + curve, bits
}

// curves are the known ones by their object identifiers.
var curves = map[string]struct {
	name string
	bits int
}{
	"2a8648ce3d030107":     {"P-256", 256},
	"2b81040022":           {"P-384", 384},
	"2b81040023":           {"P-521", 521},
	"2b8104000a":           {"secp256k1", 256},
	"2b2403030208010107":   {"brainpoolP256r1", 256},
	"2b240303020801010b":   {"brainpoolP384r1", 384},
	"2b240303020801010d":   {"brainpoolP512r1", 512},
	"2b06010401da470f01":   {"Ed25519", 256},
	"2b060104019755010501": {"Curve25519", 256},
}

func curve(oid []byte) (name string, bits int) {
	text := hex.EncodeToString(oid)
	if c, ok := curves[text]; ok {
		return c.name, c.bits
	}
	return "curve " + text, 0
}

func (k Key) canSign() bool {
	switch k.algorithm {
	case algoRSA, algoRSASign, algoDSA, algoECDSA, algoEdDSA:
		return true
	}
	return false
}
