package secondlook

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// verify checks a sigstore signature with Go's own cryptography: it is made over the payload by one of the demand's
// keys or, where the policy names no keys, by that of the certificate beside it. Whether the certificate is to be
// trusted is the library's to say.
func (d Demand) verify(s Signature) error {
	sig, err := base64.StdEncoding.DecodeString(s.Signature)
	if err != nil {
		return errors.New("it is no base64")
	}
	keys := d.Verifiers
	if len(keys) == 0 {
		keys = [][]byte{[]byte(s.Certificate)}
	}
	for _, k := range keys {
		if key, err := publicKey(k); err == nil && signedBy(key, s.Payload, sig) {
			return nil
		}
	}
	return fmt.Errorf("none of the policy's %d keys made it", len(keys))
}

// publicKey reads a PEM block with a key or a certificate.
func publicKey(b []byte) (any, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	switch block.Type {
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// signedBy verifies as cosign signs: SHA-256, for RSA with PKCS #1 v1.5; Ed25519 over the payload itself.
func signedBy(key any, payload, sig []byte) bool {
	sum := sha256.Sum256(payload)
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum[:], sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, payload, sig)
	}
	return false
}
