package openpgp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/nodetrust/nodetrust/internal/bounded"
)

// MaxMessage bounds the content of a compressed message, in bytes.
const MaxMessage = 1 << 20

const maxDetached = 16

// IsDetached reports whether a signature file is for another file and holds no message.
func IsDetached(sig []byte) bool {
	if isClearsigned(sig) {
		return false
	}
	b, err := unarmor(sig)
	return err == nil && detachedSignatures(b) != nil
}

// SignedMessages turns a signature file into binary signed messages with one signature each, for mechanisms: a
// detached signature and its text consist of the same packets. textMode is true for a detached signature of text,
// which ignores line ends. The result is as trustworthy as the input.
func SignedMessages(sig, text []byte) (messages [][]byte, textMode bool, err error) {
	if isClearsigned(sig) {
		block, rest := clearsign.Decode(sig)
		if block == nil {
			return nil, false, errors.New("the clear-signed message is damaged")
		}
		if len(bytes.TrimSpace(rest)) > 0 { // readers of a list would take these lines for signed
			return nil, false, errors.New("there is more after the clear-signed message, which nobody signed with it")
		}
		b, err := io.ReadAll(block.ArmoredSignature.Body)
		if err != nil {
			return nil, false, fmt.Errorf("reading the clear-signed message: %w", err)
		}
		messages = join(detachedSignatures(b), func(*packet.OpaquePacket) []byte { return block.Bytes })
	} else {
		b, err := unarmor(sig)
		if err != nil {
			return nil, false, err
		}
		packets := detachedSignatures(b)
		if packets == nil {
			return [][]byte{b}, false, nil
		}
		messages = join(packets, func(p *packet.OpaquePacket) []byte {
			if headerOf(p.Contents).kind != 1 { // 0 is a signature of bytes, 1 one of text
				return text
			}
			textMode = true
			return bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		})
	}
	if len(messages) == 0 {
		return nil, false, errors.New("no OpenPGP signature inside")
	}
	return messages, textMode, nil
}

func isClearsigned(b []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("-----BEGIN PGP SIGNED MESSAGE-----"))
}

// unarmor returns the binary form of an OpenPGP message or signature, and the content of a compressed message.
func unarmor(b []byte) ([]byte, error) {
	if t := bytes.TrimLeft(b, " \t\r\n"); bytes.HasPrefix(t, []byte("-----BEGIN PGP ")) {
		block, err := armor.Decode(bytes.NewReader(t))
		if err != nil {
			return nil, fmt.Errorf("reading the armor: %w", err)
		}
		if b, err = io.ReadAll(block.Body); err != nil {
			return nil, fmt.Errorf("reading the armor: %w", err)
		}
	}
	p, err := packet.NewOpaqueReader(bytes.NewReader(b)).Next()
	if err != nil {
		return nil, errors.New("no OpenPGP signature inside")
	}
	switch p.Tag {
	case tagSignature, tagOnePass:
		return b, nil
	case tagCompressed: // gpg would decompress without a limit
		body, err := content(p)
		if err != nil {
			return nil, fmt.Errorf("reading the compressed message: %w", err)
		}
		in, err := bounded.Read(body, MaxMessage)
		if err != nil {
			return nil, fmt.Errorf("reading the compressed message: %w", err)
		}
		if len(in) > 0 && packetTag(in[0]) == tagCompressed {
			return nil, errors.New("the message is compressed twice")
		}
		return in, nil
	}
	return nil, errors.New("no OpenPGP signature inside")
}

func packetTag(b byte) int {
	if b&0x40 != 0 {
		return int(b & 0x3f)
	}
	return int(b & 0x3f >> 2)
}

// detachedSignatures returns the packets of a detached signature; nil if anything else is inside.
func detachedSignatures(b []byte) (out []*packet.OpaquePacket) {
	r := packet.NewOpaqueReader(bytes.NewReader(b))
	for {
		p, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil || p.Tag != tagSignature || len(out) == maxDetached {
			return nil
		}
		out = append(out, p)
	}
}

func join(signatures []*packet.OpaquePacket, text func(*packet.OpaquePacket) []byte) (out [][]byte) {
	for _, s := range signatures {
		t := text(s)
		var b bytes.Buffer
		onePass := onePassFor(s)
		writeHeader(&b, tagOnePass, len(onePass))
		b.Write(onePass)
		writeHeader(&b, tagLiteral, 6+len(t))
		b.Write([]byte{'b', 0, 0, 0, 0, 0})
		b.Write(t)
		writeHeader(&b, tagSignature, len(s.Contents))
		b.Write(s.Contents)
		out = append(out, b.Bytes())
	}
	return out
}

func writeHeader(b *bytes.Buffer, tag byte, length int) {
	b.Write(binary.BigEndian.AppendUint32([]byte{0xc0 | tag, 0xff}, uint32(length)))
}

// onePassFor returns the packet that announces a signature: version, type, hash, algorithm, key ID, 1 for the last.
func onePassFor(p *packet.OpaquePacket) []byte {
	h := headerOf(p.Contents)
	out := []byte{3, h.kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}
	if h.version == 3 || h.version == 4 {
		out[2], out[3] = h.hash, h.algorithm
		copy(out[4:12], h.issuer)
	}
	if h.version == 4 {
		if parsed, err := p.Parse(); err == nil {
			if s, ok := parsed.(*packet.Signature); ok && s.IssuerKeyId != nil {
				binary.BigEndian.PutUint64(out[4:12], *s.IssuerKeyId)
			} else if ok && len(s.IssuerFingerprint) == 20 {
				copy(out[4:12], s.IssuerFingerprint[12:])
			}
		}
	}
	return out
}
