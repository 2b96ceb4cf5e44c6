package openpgp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Claims is what a container signature says of itself. Nothing of it is proven.
type Claims struct {
	Packet int    // version of the signature packet, 0 if there is none
	Hash   byte   // OpenPGP's number of the hash algorithm
	Signer string // fingerprint, or 16-digit key ID; "" if missing
	// Digest is the signed manifest's, and Reference its name; "" if missing.
	Digest    string
	Reference string
	// Expires is when the signature ends; zero if it doesn't, or is unreadable.
	Expires time.Time
}

// OpenPGP's numbers of weak hash algorithms.
const (
	HashMD5    = 1
	HashRIPEMD = 3
)

// ReadClaims reads a signature without judging it. It reads at most 1 MiB of compressed data.
func ReadClaims(sig []byte) Claims {
	var c Claims
	c.read(bytes.NewReader(sig), 0)
	return c
}

func (c *Claims) read(r io.Reader, depth int) {
	packets := packet.NewOpaqueReader(io.LimitReader(r, 1<<20))
	for {
		p, err := packets.Next()
		if err != nil {
			return
		}
		switch p.Tag {
		case tagCompressed:
			if in, err := content(p); err == nil && depth < 2 {
				c.read(in, depth+1)
			}
		case tagOnePass: // version, type, hash, algorithm, key ID
			if b := p.Contents; c.Signer == "" && len(b) >= 12 && b[0] == 3 {
				c.Signer = keyID(b[4:12])
			}
		case tagLiteral:
			c.literal(p.Contents)
		case tagSignature:
			c.signature(p)
		}
	}
}

func keyID(b []byte) string { return fmt.Sprintf("%016X", b) }

// literal reads a literal data packet: format, length of the file name, file name, date, data.
func (c *Claims) literal(b []byte) {
	if len(b) >= 2 && len(b) >= 6+int(b[1]) {
		c.payload(b[6+int(b[1]):])
	}
}

// PayloadClaims returns the claims of a JSON that was, or is to be, signed.
func PayloadClaims(payload []byte) Claims {
	var c Claims
	c.payload(payload)
	return c
}

func (c *Claims) payload(b []byte) {
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
	if json.Unmarshal(b, &doc) == nil {
		c.Digest, c.Reference = doc.Critical.Image.Digest, doc.Critical.Identity.Reference
	}
}

func (c *Claims) signature(p *packet.OpaquePacket) {
	if c.Packet != 0 {
		return
	}
	h := headerOf(p.Contents)
	if c.Packet, c.Hash = int(h.version), h.hash; h.version == 3 {
		if h.issuer != nil {
			c.Signer = keyID(h.issuer)
		}
		return
	}
	parsed, err := p.Parse()
	if err != nil {
		return
	}
	if s, ok := parsed.(*packet.Signature); ok {
		switch {
		case len(s.IssuerFingerprint) > 0:
			c.Signer = strings.ToUpper(hex.EncodeToString(s.IssuerFingerprint))
		case s.IssuerKeyId != nil:
			c.Signer = fmt.Sprintf("%016X", *s.IssuerKeyId)
		}
		if l := s.SigLifetimeSecs; l != nil && *l > 0 {
			c.Expires = s.CreationTime.Add(time.Duration(*l) * time.Second).UTC()
		}
	}
}
