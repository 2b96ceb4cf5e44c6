// Package openpgp reads what OpenPGP signatures claim of themselves, and proves nothing of it. Package key reads keys.
package openpgp

import (
	"errors"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// OpenPGP packet tags.
const (
	tagSignature  = 2
	tagOnePass    = 4
	tagCompressed = 8
	tagLiteral    = 11
)

// content returns a reader of what is in a compressed packet.
func content(p *packet.OpaquePacket) (io.Reader, error) {
	parsed, err := p.Parse()
	if err != nil {
		return nil, err
	}
	z, ok := parsed.(*packet.Compressed)
	if !ok {
		return nil, errors.New("no compressed packet")
	}
	return z.Body, nil
}

// header is the beginning of a signature packet.
type header struct {
	version, kind, algorithm, hash byte
	// issuer is the key ID in a packet of version 3.
	issuer []byte
}

func headerOf(b []byte) (h header) {
	switch {
	case len(b) == 0:
	case b[0] == 3: // version, 5, type, date (4), key ID (8), algorithm, hash
		h.version = 3
		if len(b) > 2 {
			h.kind = b[2]
		}
		if len(b) >= 17 {
			h.issuer, h.algorithm, h.hash = b[7:15], b[15], b[16]
		}
	default: // version, type, algorithm, hash
		h.version = b[0]
		if len(b) > 1 {
			h.kind = b[1]
		}
		if len(b) >= 4 {
			h.algorithm, h.hash = b[2], b[3]
		}
	}
	return h
}
