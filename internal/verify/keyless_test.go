package verify

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// authority issues certificates for code signing, as Fulcio does, or a company's own.
type authority struct {
	cosignKey
	cert *x509.Certificate
}

// newAuthority makes a root, or below parent an intermediate.
func newAuthority(t *testing.T, parent *authority) *authority {
	t.Helper()
	a := &authority{cosignKey: newCosignKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: fmt.Sprintf("authority %p", a)}, IsCA: true,
		BasicConstraintsValid: true,
		NotBefore:             time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent = &authority{a.cosignKey, template}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, a.Public(), parent.PrivateKey)
	check(t, err)
	a.cert, err = x509.ParseCertificate(der)
	check(t, err)
	return a
}

// issue makes a certificate that holds for ten minutes from a time on.
func (a *authority) issue(t *testing.T, key cosignKey, email, hostname, issuer string, from time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: from.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if email != "" {
		template.EmailAddresses = []string{email}
	}
	if hostname != "" {
		template.DNSNames = []string{hostname}
	}
	if issuer != "" {
		template.ExtraExtensions = []pkix.Extension{{
			Id:    asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1},
			Value: []byte(issuer),
		}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.PrivateKey)
	check(t, err)
	return certPEM(der)
}

func certPEM(der ...[]byte) (out []byte) {
	for _, d := range der {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d})...)
	}
	return out
}

func (k cosignKey) public(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// log makes the transparency log's promise for a signature, as Rekor does it: k is the log's key.
func (k cosignKey) log(t *testing.T, payload []byte, signature string, certOrKey []byte, at time.Time) string {
	t.Helper()
	hash := sha256.Sum256(payload)
	body, err := json.Marshal(map[string]any{
		"apiVersion": "0.0.1", "kind": "hashedrekord",
		"spec": map[string]any{
			"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(hash[:])}},
			"signature": map[string]any{"content": signature, "publicKey": map[string]any{"content": certOrKey}},
		},
	})
	check(t, err)
	// Sorted keys and no blanks: already in canonical form.
	entry, err := json.Marshal(map[string]any{
		"body": body, "integratedTime": at.Unix(), "logIndex": 1,
		"logID": strings.Repeat("0", 64),
	})
	check(t, err)
	sum := sha256.Sum256(entry)
	promise, err := ecdsa.SignASN1(rand.Reader, k.PrivateKey, sum[:])
	check(t, err)
	set, err := json.Marshal(map[string]any{"SignedEntryTimestamp": promise, "Payload": json.RawMessage(entry)})
	check(t, err)
	return string(set)
}

const (
	cosignSignature = "dev.cosignproject.cosign/signature"
	cosignBundle    = "dev.sigstore.cosign/bundle"
	cosignCert      = "dev.sigstore.cosign/certificate"
	cosignChain     = "dev.sigstore.cosign/chain"
)

// Everything that sigstoreSigned can ask for, with signatures in a real registry.
func TestImage_keyless(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	ref := w.ref("team/app:v1")
	key, second, rekor := newCosignKey(t), newCosignKey(t), newCosignKey(t)
	root := newAuthority(t, nil)
	between := newAuthority(t, root)
	const me, hostname, issuer = "dev@example.com", "build.example.com", "https://accounts.example.com"
	now := time.Now()
	cert := root.issue(t, key, me, "", issuer, now.Add(-time.Minute))

	b64 := func(b []byte) string { return quote(base64.StdEncoding.EncodeToString(b)) }
	requirement := func(source string) string {
		return `{"type":"sigstoreSigned",` + source + `}`
	}
	fulcio := func(ca []byte, log cosignKey, issuer, email string) string {
		return requirement(fmt.Sprintf(`"fulcio":{"caData":%s,"oidcIssuer":%q,"subjectEmail":%q},"rekorPublicKeyData":%s`,
			b64(ca), issuer, email, b64(log.public(t))))
	}
	pki := func(roots []byte, more string) string {
		return requirement(fmt.Sprintf(`"pki":{"caRootsData":%s,%s}`, b64(roots), more))
	}
	rootPEM := certPEM(root.cert.Raw)
	keyFile, secondFile := w.write("key.pem", string(key.public(t))), w.write("second.pem", string(second.public(t)))
	caFile, rekorFile := w.write("ca.pem", string(rootPEM)), w.write("rekor.pem", string(rekor.public(t)))

	payload, signed := key.sign(t, d, ref)
	with := func(more map[string]string) map[string]string {
		out := maps.Clone(signed)
		maps.Copy(out, more)
		return out
	}
	logged := func(certOrKey []byte, at time.Time) string {
		return rekor.log(t, payload, signed[cosignSignature], certOrKey, at)
	}
	keyless := with(map[string]string{cosignCert: string(cert), cosignBundle: logged(cert, now)})
	viaBetween := between.issue(t, key, me, hostname, "", now.Add(-time.Minute))

	for _, tt := range []struct {
		name, requirement string
		annotations       map[string]string
		answer            verdict.Answer
		reason            verdict.Reason
		message           string
	}{
		{"key", requirement(`"keyData":` + b64(key.public(t))), signed, verdict.Accept, "", ""},
		{"key file", requirement(`"keyPath":` + quote(keyFile)), signed, verdict.Accept, "", ""},
		{
			"one of several key files", requirement(`"keyPaths":[` + quote(secondFile) + `,` + quote(keyFile) + `]`), signed,
			verdict.Accept, "", "",
		},
		{
			"one of several keys", requirement(`"keyDatas":[` + b64(second.public(t)) + `,` + b64(key.public(t)) + `]`), signed,
			verdict.Accept, "", "",
		},
		{
			"none of several keys", requirement(`"keyDatas":[` + b64(second.public(t)) + `,` + b64(rekor.public(t)) + `]`),
			signed, verdict.Refuse, verdict.WrongKey, "",
		},
		{
			"key and log", requirement(`"keyData":` + b64(key.public(t)) + `,"rekorPublicKeyPath":` + quote(rekorFile)),
			with(map[string]string{cosignBundle: logged(key.public(t), now)}), verdict.Accept, "", "",
		},
		{
			"key and another log", requirement(`"keyData":` + b64(key.public(t)) + `,"rekorPublicKeyData":` +
				b64(second.public(t))), with(map[string]string{cosignBundle: logged(key.public(t), now)}), verdict.Refuse,
			verdict.WrongKey, "Rekor",
		},
		{
			"key and one of two logs", requirement(`"keyData":` + b64(key.public(t)) + `,"rekorPublicKeyDatas":[` +
				b64(second.public(t)) + `,` + b64(rekor.public(t)) + `]`),
			with(map[string]string{cosignBundle: logged(key.public(t), now)}), verdict.Accept, "", "",
		},
		{
			"not logged", requirement(`"keyData":` + b64(key.public(t)) + `,"rekorPublicKeyData":` + b64(rekor.public(t))),
			signed, verdict.Refuse, verdict.WeakOrUnsupported, "missing " + cosignBundle,
		},

		{"Fulcio", fulcio(rootPEM, rekor, issuer, me), keyless, verdict.Accept, "", ""},
		{"Fulcio, files", requirement(fmt.Sprintf(`"fulcio":{"caPath":%q,"oidcIssuer":%q,"subjectEmail":%q},"rekorPublicKeyPaths":[%q]`, caFile, issuer, me, rekorFile)), keyless, verdict.Accept, "", ""},
		{"Fulcio, file missing", requirement(fmt.Sprintf(
			`"fulcio":{"caPath":%q,"oidcIssuer":%q,"subjectEmail":%q},"rekorPublicKeyPath":%q`, w.path("none"), issuer, me,
			rekorFile)), keyless, verdict.Unknown, verdict.KeyMissing, "none"},
		{"somebody else", fulcio(rootPEM, rekor, issuer, "else@example.com"), keyless, verdict.Refuse, verdict.WrongKey, me},
		{
			"another issuer", fulcio(rootPEM, rekor, "https://login.example.com", me), keyless, verdict.Refuse,
			verdict.WrongKey, issuer,
		},
		{
			"another authority", fulcio(certPEM(newAuthority(t, nil).cert.Raw), rekor, issuer, me), keyless, verdict.Refuse,
			verdict.WrongKey, "",
		},
		{"another log", fulcio(rootPEM, second, issuer, me), keyless, verdict.Refuse, verdict.WrongKey, "Rekor"},
		{
			"logged after the certificate's end", fulcio(rootPEM, rekor, issuer, me),
			with(map[string]string{cosignCert: string(cert), cosignBundle: logged(cert, now.Add(time.Hour))}), verdict.Refuse,
			verdict.WrongKey, "expired",
		},
		{
			"a log entry of another signature", fulcio(rootPEM, rekor, issuer, me),
			with(map[string]string{
				cosignCert:   string(cert),
				cosignBundle: rekor.log(t, []byte("else"), signed[cosignSignature], cert, now),
			}), verdict.Refuse, verdict.WrongKey,
			"payload",
		},
		{"no certificate", fulcio(rootPEM, rekor, issuer, me), signed, verdict.Refuse, verdict.WeakOrUnsupported, ""},

		{
			"PKI, email", pki(rootPEM, `"subjectEmail":"`+me+`"`),
			with(map[string]string{cosignCert: string(root.issue(t, key, me, "", "", now.Add(-time.Minute)))}),
			verdict.Accept, "", "",
		},
		{
			"PKI, intermediate in the policy", pki(rootPEM,
				`"subjectHostname":"`+hostname+`","caIntermediatesData":`+b64(certPEM(between.cert.Raw))),
			with(map[string]string{cosignCert: string(viaBetween)}), verdict.Accept, "", "",
		},
		{
			"PKI, intermediate in the signature", pki(rootPEM, `"subjectHostname":"`+hostname+`"`),
			with(map[string]string{
				cosignCert:  string(viaBetween),
				cosignChain: string(certPEM(between.cert.Raw, root.cert.Raw)),
			}), verdict.Accept, "", "",
		},
		{
			"PKI, intermediate missing", pki(rootPEM, `"subjectHostname":"`+hostname+`"`),
			with(map[string]string{cosignCert: string(viaBetween)}), verdict.Refuse, verdict.WrongKey, "unknown authority",
		},
		{
			"PKI, another host", pki(rootPEM, `"subjectHostname":"else.example.com","caIntermediatesData":`+
				b64(certPEM(between.cert.Raw))), with(map[string]string{cosignCert: string(viaBetween)}), verdict.Refuse,
			verdict.WrongKey, "else.example.com",
		},
		{
			"PKI, expired", pki(rootPEM, `"subjectEmail":"`+me+`"`),
			with(map[string]string{cosignCert: string(root.issue(t, key, me, "", "", now.Add(-30*time.Minute)))}),
			verdict.Refuse, verdict.WrongKey, "expired",
		},
		{
			"PKI, roots missing", requirement(fmt.Sprintf(`"pki":{"caRootsPath":%q,"subjectEmail":%q}`, w.path("none"), me)),
			with(map[string]string{cosignCert: string(cert)}), verdict.Unknown, verdict.KeyMissing, "none",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			w.attach("team/app", d, payload, tt.annotations)
			w.write("attached/lab.yaml", "docker:\n  "+w.registry.Host+":\n    use-sigstore-attachments: true\n    lookaside: "+
				w.lookaside.URL()+"\n")
			p, err := openFiles(w.write("policy.json", `{"default":[`+tt.requirement+`]}`),
				[]string{w.path("attached")}, Source{})
			check(t, err)
			defer p.Close()
			v := w.judge(p, ref)
			w.want(v, tt.answer, tt.reason)
			if !strings.Contains(v.Message, tt.message) {
				t.Errorf("message %q doesn't say %q", v.Message, tt.message)
			}
		})
	}
}
