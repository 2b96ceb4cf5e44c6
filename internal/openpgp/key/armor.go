package key

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
)

const (
	armorBegin = "-----BEGIN PGP "
	armorEnd   = "-----END PGP "
	publicKey  = "PUBLIC KEY BLOCK-----"
	privateKey = "PRIVATE KEY BLOCK-----"
	secretKey  = "SECRET KEY BLOCK-----"
)

// armorBlocks returns the packets of each readable armored block of public keys, or the file itself if there is none.
func armorBlocks(file []byte) [][]byte {
	var out [][]byte
	rest := textLines(file)
	for len(rest) > 0 {
		begins := strings.TrimRight(rest[0], " \t") == armorBegin+publicKey
		rest = rest[1:]
		if !begins {
			continue
		}
		if block, after, err := unarmor(rest, publicKey); err == nil {
			out, rest = append(out, block), after
		}
	}
	if len(out) == 0 {
		return [][]byte{file}
	}
	return out
}

func textLines(data []byte) []string {
	return strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
}

// parseArmored reads every armor block and skips text around the blocks, as gpg does.
func parseArmored(data []byte) (*File, error) {
	f := &File{Kind: OpenPGP, Plain: plain(data)}
	rest := textLines(data)
	for len(rest) > 0 {
		line := strings.TrimRight(rest[0], " \t")
		rest = rest[1:]
		kind, ok := strings.CutPrefix(line, armorBegin)
		switch {
		case !ok:
			f.Preamble = f.Preamble || f.Blocks == 0 && line != ""
			continue
		case kind != publicKey && kind != privateKey && kind != secretKey:
			return nil, fmt.Errorf("holds an armor block %q, not only public keys", strings.TrimRight(kind, "-"))
		}
		f.Blocks++
		f.Secret = f.Secret || kind != publicKey
		block, after, err := unarmor(rest, kind)
		switch {
		case err != nil && kind != publicKey:
			return nil, ErrSecret
		case err != nil:
			return nil, fmt.Errorf("armor block %d: %w", f.Blocks, err)
		}
		rest = after
		f.Binary = append(f.Binary, block...)
	}
	if f.Blocks == 0 {
		return nil, ErrNoKey
	}
	if err := f.packets(); err != nil {
		return nil, err
	}
	return f, nil
}

// unarmor decodes the lines after a BEGIN line of a kind of block, and returns the lines after the END line.
func unarmor(lines []string, kind string) (block []byte, after []string, err error) {
	i := 0
	for i < len(lines) && strings.Contains(lines[i], ": ") { // headers: Version, Comment, …
		i++
	}
	var body strings.Builder
	sum := ""
	for ; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		switch {
		case strings.HasPrefix(line, armorEnd+kind):
			block, err = base64.StdEncoding.DecodeString(body.String())
			if err != nil {
				return nil, nil, fmt.Errorf("is not base64: %w", err)
			}
			if sum != "" && !validCRC(block, sum) {
				return nil, nil, fmt.Errorf("its checksum does not match")
			}
			return block, lines[i+1:], nil
		case strings.HasPrefix(line, "="):
			sum = line[1:]
		default:
			body.WriteString(line)
		}
	}
	return nil, nil, fmt.Errorf("has no END line")
}

func validCRC(block []byte, sum string) bool {
	want, err := base64.StdEncoding.DecodeString(sum)
	if err != nil {
		return false
	}
	crc := uint32(0xb704ce)
	for _, b := range block {
		crc ^= uint32(b) << 16
		for range 8 {
			crc <<= 1
			if crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return bytes.Equal(want, []byte{byte(crc >> 16), byte(crc >> 8), byte(crc)})
}

func parsePEM(data []byte) (*File, error) {
	f := &File{Binary: bytes.Clone(data), Preamble: !bytes.HasPrefix(data, []byte("-----BEGIN "))}
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return nil, ErrSecret
	}
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			if bytes.Contains(rest, []byte("-----BEGIN ")) {
				return nil, fmt.Errorf("PEM block %d is damaged", f.Blocks+1)
			}
			break
		}
		if f.Blocks++; f.Blocks > maxKeys {
			return nil, fmt.Errorf("holds more than %d keys", maxKeys)
		}
		kind, spki, k, err := parseBlock(b)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", f.Blocks, err)
		}
		if f.Kind != "" && f.Kind != kind {
			return nil, fmt.Errorf("holds both public keys and certificates")
		}
		sum := sha256.Sum256(spki)
		k.Fingerprint = strings.ToUpper(hex.EncodeToString(sum[:]))
		k.Data = pem.EncodeToMemory(b)
		f.Kind, f.Keys = kind, append(f.Keys, k)
	}
	if len(f.Keys) == 0 {
		return nil, ErrNoKey
	}
	return f, nil
}

func parseBlock(b *pem.Block) (Kind, []byte, Key, error) {
	switch b.Type {
	case "PUBLIC KEY":
		pub, err := x509.ParsePKIXPublicKey(b.Bytes)
		if err != nil {
			return "", nil, Key{}, err
		}
		return PublicKey, b.Bytes, describe(pub), nil
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return "", nil, Key{}, err
		}
		k := describe(c.PublicKey)
		k.Created, k.Expires = c.NotBefore, c.NotAfter
		k.UserIDs = []string{c.Subject.String()}
		return Certificate, c.RawSubjectPublicKeyInfo, k, nil
	}
	return "", nil, Key{}, fmt.Errorf("is a %q, neither a PUBLIC KEY nor a CERTIFICATE", b.Type)
}

func describe(pub crypto.PublicKey) Key {
	switch p := pub.(type) {
	case *rsa.PublicKey:
		return Key{Algorithm: "RSA", Bits: p.N.BitLen()}
	case *ecdsa.PublicKey:
		return Key{Algorithm: "ECDSA " + p.Params().Name, Bits: p.Params().BitSize}
	case ed25519.PublicKey:
		return Key{Algorithm: "Ed25519", Bits: 256}
	}
	return Key{Algorithm: fmt.Sprintf("%T", pub)}
}

// plain reports whether armor has GnuPG's form (headers, a blank line, lines of base64, a checksum), in which all
// readers find the same keys. Text around the blocks is allowed in lines that are not too long for a reader.
func plain(data []byte) bool {
	const outside, headers, body, sum = 0, 1, 2, 3
	state, kind := outside, ""
	padded := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		switch {
		case len(line) > 1000:
			return false
		case state == outside:
			if begins, ok := strings.CutPrefix(line, armorBegin); ok && (begins == publicKey || begins == privateKey) {
				state, kind, padded = headers, begins, false
			} else if strings.Contains(line, "-----") {
				return false
			}
		case state == headers:
			if line == "" {
				state = body
			} else if !strings.Contains(line, ": ") {
				return false
			}
		case line == armorEnd+kind:
			state = outside
		case state == sum:
			return false
		case strings.HasPrefix(line, "=") && len(line) == 5:
			state = sum
		case padded || line == "" || strings.Trim(strings.TrimRight(line, "="), base64Digits) != "":
			return false
		default:
			padded = strings.HasSuffix(line, "=")
		}
	}
	return state == outside
}

const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
