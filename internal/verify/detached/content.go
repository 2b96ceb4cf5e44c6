package detached

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// describe names what a file is that readers don't take for a signature: the likeliest things that people have in its
// place.
func describe(b []byte) string {
	text := bytes.TrimLeft(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case len(b) == 0:
		return "empty"
	case len(bytes.Trim(b, "\x00")) == 0:
		return "nothing but zeros"
	case bytes.HasPrefix(b, []byte("\x00sigstore-json\n")):
		return "a sigstore signature in the form of a dir: image"
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return "packed with gzip"
	case b[0]&0x80 != 0:
		return packetName(b[0])
	case len(text) == 0:
		return "nothing but white space"
	case text[0] == '<':
		return "a web page (HTML or XML)"
	case bytes.HasPrefix(text, []byte("-----BEGIN ")):
		return armorName(text)
	case json.Valid(text):
		return jsonName(text)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(line))); err == nil && len(decoded) > 16 {
		return "base64 text, as cosign writes its signatures"
	}
	return "of another kind"
}

// packetName names a file by the first byte of its first OpenPGP packet, which no reader takes for a signature's.
func packetName(first byte) string {
	tag := first & 0x3f
	if first&0x40 == 0 {
		tag >>= 2
	}
	switch tag {
	case 1, 3, 9, 18:
		return "an encrypted OpenPGP message"
	case 2, 4, 8:
		return "an OpenPGP message that starts with a packet of indeterminate length"
	case 5, 7:
		return "an OpenPGP secret key"
	case 6, 14:
		return "an OpenPGP public key"
	case 11:
		return "an OpenPGP message that nobody signed"
	}
	return fmt.Sprintf("binary data, or starts with an OpenPGP packet of type %d", tag)
}

// armorName names a text with armor or PEM by its BEGIN line.
func armorName(text []byte) string {
	line, _, _ := bytes.Cut(text[len("-----BEGIN "):], []byte("\n"))
	name, _, _ := strings.Cut(string(line), "-----")
	switch name {
	case "PGP SIGNED MESSAGE":
		return "a clear-signed message: readers want binary ones (gpg --sign, without --clearsign)"
	case "PGP MESSAGE":
		return "an armored message: readers want binary ones (gpg --sign without --armor; gpg --dearmor makes one of it)"
	case "PGP SIGNATURE":
		return "an armored detached signature: readers want a binary message with the signed content inside (gpg --sign)"
	case "PGP PUBLIC KEY BLOCK":
		return "an armored public key"
	case "PGP PRIVATE KEY BLOCK", "PGP SECRET KEY BLOCK":
		return "an armored secret key"
	case "PUBLIC KEY":
		return "a public key in PEM"
	case "CERTIFICATE":
		return "a certificate in PEM"
	}
	return "armored or PEM, but no OpenPGP signature"
}

// jsonName names a JSON document by its members.
func jsonName(text []byte) string {
	var doc struct {
		MediaType string          `json:"mediaType"`
		Critical  json.RawMessage `json:"critical"`
		Cosign    json.RawMessage `json:"base64Signature"`
	}
	_ = json.Unmarshal(text, &doc) // a list or a number has no members
	switch {
	case strings.Contains(doc.MediaType, "sigstore.bundle") || doc.Cosign != nil:
		return "a sigstore bundle (JSON), which verify-signature doesn't judge"
	case doc.Critical != nil:
		return "the JSON of a container signature, which nobody signed"
	}
	return "JSON"
}
