package secondlook

import (
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"compress/zlib"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// OpenPGP packet types (RFC 9580, section 5).
const (
	packetSignature  = 2
	packetCompressed = 8
	packetLiteral    = 11
)

// Limits of a signed message. Container signatures have some hundred bytes of JSON.
const (
	maxUnpacked = 8 << 20
	maxNested   = 8
)

// message is what a simple signature holds: the payload, and who says to have signed it.
type message struct {
	payload []byte
	// signers are the issuers that the signature packets name: fingerprints, or key IDs of 16 digits; upper-case hex.
	signers []string

	literals, signatures int
}

// readMessage reads a signed OpenPGP message. The mechanism that judged it decides what is well signed; the second
// look only reads which bytes were signed, and by whom, with a reader of its own.
func readMessage(b []byte) (message, error) {
	var m message
	left := maxUnpacked
	if err := m.read(b, 0, &left); err != nil {
		return m, err
	}
	switch {
	case m.literals != 1:
		return m, fmt.Errorf("the message holds %d texts", m.literals)
	case m.signatures != 1:
		return m, fmt.Errorf("the message holds %d signatures", m.signatures)
	case len(m.signers) == 0:
		return m, errors.New("the signature names no signer")
	}
	return m, nil
}

func (m *message) read(b []byte, depth int, left *int) error {
	for len(b) > 0 {
		tag, body, rest, err := packet(b)
		if err != nil {
			return err
		}
		b = rest
		switch tag {
		case packetCompressed:
			in, err := unpack(body, depth, left)
			if err != nil {
				return err
			}
			if err := m.read(in, depth+1, left); err != nil {
				return err
			}
		case packetLiteral: // format, length of the file name, file name, date (4), data
			if len(body) < 2 || len(body) < 6+int(body[1]) {
				return errors.New("a text packet is cut off")
			}
			m.literals++
			m.payload = body[6+int(body[1]):]
		case packetSignature:
			m.signatures++
			m.signers = append(m.signers, issuers(body)...)
		}
	}
	return nil
}

// packet splits the first packet off.
func packet(b []byte) (tag int, body, rest []byte, err error) {
	cut := errors.New("a packet is cut off")
	if b[0]&0x80 == 0 {
		return 0, nil, nil, errors.New("no OpenPGP packet begins here")
	}
	if b[0]&0x40 != 0 {
		body, rest, err = newFormat(b[1:])
		return int(b[0] & 0x3f), body, rest, err
	}
	tag = int(b[0] >> 2 & 0xf)
	kind := b[0] & 3
	if kind == 3 { // to the end
		return tag, b[1:], nil, nil
	}
	size := 1 << kind
	if len(b) < 1+size {
		return 0, nil, nil, cut
	}
	n := number(b[1 : 1+size])
	if b = b[1+size:]; n > len(b) {
		return 0, nil, nil, cut
	}
	return tag, b[:n], b[n:], nil
}

// newFormat reads length and body of a packet with a header of the new format; its body may come in parts.
func newFormat(b []byte) (body, rest []byte, err error) {
	for {
		n, partial, after, err := length(b)
		if err != nil {
			return nil, nil, err
		}
		if n > len(after) {
			return nil, nil, errors.New("a packet is cut off")
		}
		if !partial && body == nil {
			return after[:n], after[n:], nil
		}
		body = append(body, after[:n]...)
		if b = after[n:]; !partial {
			return body, b, nil
		}
	}
}

// length reads one length of the new format.
func length(b []byte) (n int, partial bool, rest []byte, err error) {
	switch {
	case len(b) == 0:
	case b[0] < 192:
		return int(b[0]), false, b[1:], nil
	case b[0] < 224 && len(b) > 1:
		return (int(b[0])-192)<<8 + int(b[1]) + 192, false, b[2:], nil
	case b[0] == 255 && len(b) > 4:
		return number(b[1:5]), false, b[5:], nil
	case b[0] >= 224 && b[0] < 255:
		return 1 << (b[0] & 0x1f), true, b[1:], nil
	}
	return 0, false, nil, errors.New("a packet has no length")
}

// unpack returns what a compressed packet holds.
func unpack(body []byte, depth int, left *int) ([]byte, error) {
	if depth == maxNested {
		return nil, fmt.Errorf("compressed more than %d times", maxNested)
	}
	if len(body) == 0 {
		return nil, errors.New("a compressed packet is empty")
	}
	in := io.Reader(bytes.NewReader(body[1:]))
	switch body[0] {
	case 0:
	case 1:
		in = flate.NewReader(in)
	case 2:
		z, err := zlib.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("unpacking: %w", err)
		}
		in = z
	case 3:
		in = bzip2.NewReader(in)
	default:
		return nil, fmt.Errorf("compression %d is unknown", body[0])
	}
	out, err := io.ReadAll(io.LimitReader(in, int64(*left)+1))
	if err != nil {
		return nil, fmt.Errorf("unpacking: %w", err)
	}
	if *left -= len(out); *left < 0 {
		return nil, errors.New("too much is compressed")
	}
	return out, nil
}

// issuers are those that a signature packet names.
func issuers(b []byte) (out []string) {
	if len(b) == 0 {
		return nil
	}
	switch b[0] {
	case 2, 3: // version, 5, type, date (4), key ID (8), …
		if len(b) >= 15 {
			return []string{upperHex(b[7:15])}
		}
	case 4: // version, type, algorithm, hash, hashed subpackets, others
		return subpacketIssuers(b[min(4, len(b)):], 2)
	case 6:
		return subpacketIssuers(b[min(4, len(b)):], 4)
	}
	return nil
}

// subpacketIssuers reads two areas of subpackets, each after its length of size bytes.
func subpacketIssuers(b []byte, size int) (out []string) {
	for range 2 {
		if len(b) < size {
			return out
		}
		n := number(b[:size])
		if b = b[size:]; n > len(b) {
			return out
		}
		for area := b[:n]; len(area) > 0; {
			l, ok, rest := subpacketLength(area)
			if !ok || l == 0 || l > len(rest) {
				break
			}
			switch kind, value := rest[0]&0x7f, rest[1:l]; {
			case kind == 16 && len(value) == 8: // issuer key ID
				out = append(out, upperHex(value))
			case kind == 33 && len(value) > 1: // version, issuer fingerprint
				out = append(out, upperHex(value[1:]))
			}
			area = rest[l:]
		}
		b = b[n:]
	}
	return out
}

func subpacketLength(b []byte) (n int, ok bool, rest []byte) {
	switch {
	case b[0] < 192:
		return int(b[0]), true, b[1:]
	case b[0] < 255 && len(b) > 1:
		return (int(b[0])-192)<<8 + int(b[1]) + 192, true, b[2:]
	case b[0] == 255 && len(b) > 4:
		return number(b[1:5]), true, b[5:]
	}
	return 0, false, nil
}

// number reads a number, the highest byte first.
func number(b []byte) (n int) {
	for _, c := range b {
		n = n<<8 | int(c)
	}
	return n
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }
