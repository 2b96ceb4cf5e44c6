package verify

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenPGP v4 fingerprints are SHA-1
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
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

// keySet is the public keys of a requirement as found in its key files, whether or not the mechanism can use them.
type keySet struct {
	// paths are reported instead of fingerprints when the files couldn't be read.
	paths []string
	// primary are the fingerprints of the primary keys, in file order, upper-case hex.
	primary []string
	// byID maps fingerprints and 16-digit key IDs of primary keys and subkeys to the primary key's fingerprint.
	byID map[string]string
	// kinds are version and algorithm of the primary keys, by fingerprint.
	kinds map[string]string
}

// unusual names the primary keys of OpenPGP version 6, which gpg 2.2 (that of RHEL 8 and 9, and Debian 12) can't read, with
// their algorithms; "" if there are none.
func (k keySet) unusual() string {
	var out []string
	for _, fpr := range k.primary {
		if len(fpr) == 64 {
			out = append(out, fpr+" ("+k.kinds[fpr]+")")
		}
	}
	return strings.Join(out, ", ")
}

// names are the fingerprints, or the paths where no fingerprint is known.
func (k keySet) names() []string {
	if len(k.primary) > 0 {
		return k.primary
	}
	return k.paths
}

// parseKeys lists the keys in key files: binary, or any number of armored blocks with text around them. It is more
// lenient than the mechanisms are, so what it finds says only what the file is meant to hold.
func parseKeys(files [][]byte) keySet {
	k := keySet{byID: map[string]string{}, kinds: map[string]string{}}
	for _, file := range files {
		for _, data := range dearmor(file) {
			k.add(data)
		}
	}
	return k
}

func (k *keySet) add(data []byte) {
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
			if !slices.Contains(k.primary, fpr) {
				k.primary = append(k.primary, fpr)
				k.kinds[fpr] = keyKind(p.Contents)
			}
		}
		k.byID[fpr], k.byID[id] = primary, primary
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
		32: "SLH-DSA-SHAKE-128s, post-quantum", 33: "SLH-DSA-SHAKE-128f, post-quantum", 34: "SLH-DSA-SHAKE-256s, post-quantum",
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

// claims is what a simple signature says of itself. Nothing of it is proven.
type claims struct {
	packet    int    // version of the signature packet, 0 if there is none
	hash      byte   // OpenPGP's number of the hash algorithm
	signer    string // fingerprint, or 16-digit key ID; "" if not said
	digest    string
	reference string
}

// OpenPGP hash algorithm numbers.
const (
	hashMD5    = 1
	hashRIPEMD = 3
)

// readClaims reads a signature without judging it. Compressed data is read up to 1 MiB.
func readClaims(sig []byte) claims {
	var c claims
	c.read(bytes.NewReader(sig), 0)
	return c
}

func (c *claims) read(r io.Reader, depth int) {
	packets := packet.NewOpaqueReader(io.LimitReader(r, 1<<20))
	for {
		p, err := packets.Next()
		if err != nil {
			return
		}
		switch p.Tag {
		case tagCompressed:
			if parsed, err := p.Parse(); err == nil && depth < 2 {
				if z, ok := parsed.(*packet.Compressed); ok {
					c.read(z.Body, depth+1)
				}
			}
		case tagOnePass: // version, type, hash, algorithm, key ID
			if b := p.Contents; c.signer == "" && len(b) >= 12 && b[0] == 3 {
				c.signer = keyID(b[4:12])
			}
		case tagLiteral:
			c.payload(p.Contents)
		case tagSignature:
			c.signature(p)
		}
	}
}

func keyID(b []byte) string { return fmt.Sprintf("%016X", b) }

// payload reads a literal data packet: format, length of the file name, file name, date, data.
func (c *claims) payload(b []byte) {
	if len(b) < 2 || len(b) < 6+int(b[1]) {
		return
	}
	var doc struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
		} `json:"critical"`
	}
	if json.Unmarshal(b[6+int(b[1]):], &doc) == nil {
		c.digest, c.reference = doc.Critical.Image.Digest, doc.Critical.Identity.Reference
	}
}

func (c *claims) signature(p *packet.OpaquePacket) {
	b := p.Contents
	if c.packet != 0 || len(b) == 0 {
		return
	}
	c.packet = int(b[0])
	if c.packet == 3 { // version, 5, type, date (4), key ID (8), algorithm, hash
		if len(b) >= 17 {
			c.signer, c.hash = keyID(b[7:15]), b[16]
		}
		return
	}
	if len(b) >= 4 { // version, type, algorithm, hash
		c.hash = b[3]
	}
	parsed, err := p.Parse()
	if err != nil {
		return
	}
	if s, ok := parsed.(*packet.Signature); ok {
		switch {
		case len(s.IssuerFingerprint) > 0:
			c.signer = strings.ToUpper(hex.EncodeToString(s.IssuerFingerprint))
		case s.IssuerKeyId != nil:
			c.signer = fmt.Sprintf("%016X", *s.IssuerKeyId)
		}
	}
}
