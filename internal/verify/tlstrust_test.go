package verify

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// tlsFront serves what an HTTP server has by TLS, with a certificate of its own.
func tlsFront(t *testing.T, host string) (front string, certificate []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	check(t, err)
	s := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host}))
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: k}},
		MinVersion:   tls.VersionTLS12,
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestSession_tlsTrust: two registries have the same image and one lookaside, whose certificate nobody knows. What
// was read for the one whose certificates aren't checked may not answer for the other, and what was not read for that
// not for the first.
func TestSession_tlsTrust(t *testing.T) {
	w := newWorld(t)
	d := w.push("a/b", "v1")
	w.sign(w.key, "a/b", d, "signed.example/a/b:v1", 1)
	plain := w.registry.Host
	checked, ca := tlsFront(t, w.registry.Host)
	second, secondCA := tlsFront(t, w.registry.Host) // checked too
	lookaside, _ := tlsFront(t, w.lookaside.Host)
	w.write("certs/ca.crt", string(ca)+string(secondCA))
	w.write("registries.d/all.yaml", fmt.Sprintf("default-docker:\n  lookaside: https://%s\n", lookaside))
	requirement := signedBy(w.key, `"signedIdentity":{"type":"exactRepository","dockerRepository":"signed.example/a/b"}`)
	p, err := openFiles(w.write("policy.json", fmt.Sprintf(`{"default":[%s]}`, requirement)),
		[]string{w.path("registries.d")},
		Source{RegistriesConf: w.write("registries.conf",
			fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", plain))})
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	o := Options{Timeout: time.Minute, Platform: "linux/amd64", CertDir: w.path("certs")}

	var images []string
	for _, host := range []string{plain, checked, second} {
		images = append(images, host+"/a/b:v1", host+"/a/b@"+d)
	}
	want := map[string]verdict.Verdict{}
	for i, image := range images {
		v, err := judgeImage(t.Context(), image, "", p, o)
		check(t, err)
		want[image] = v
		if i < 2 {
			w.want(v, verdict.Accept, "")
			continue
		}
		w.want(v, verdict.Unknown, verdict.LookasideUnreachable)
	}
	for _, order := range [][]int{{0, 1, 2, 3, 4, 5}, {5, 4, 3, 2, 1, 0}, {2, 0, 4, 1, 3, 5}} {
		s := newSession(w.T, p, o, DefaultPerHost)
		for _, i := range order {
			v, err := s.Image(context.Background(), images[i])
			check(t, err)
			if v.Answer != want[images[i]].Answer || v.Reason != want[images[i]].Reason {
				t.Errorf("order %v: %s: %s %s, alone %s %s", order, images[i], v.Answer, v.Reason, want[images[i]].Answer,
					want[images[i]].Reason)
			}
		}
		s.Close()
	}
}

// TestSession_sharesLists: images of one registry under two names ask the lookaside once.
func TestSession_sharesLists(t *testing.T) {
	w := newWorld(t)
	d := w.push("a/b", "v1")
	w.sign(w.key, "a/b", d, w.ref("a/b:v1"), 1)
	p := w.policy(signedBy(w.key))
	s := newSession(w.T, p, testOptions(), DefaultPerHost)
	defer s.Close()
	for _, image := range []string{w.ref("a/b:v1"), w.ref("a/b@" + d)} {
		v, err := s.Image(t.Context(), image)
		check(t, err)
		w.want(v, verdict.Accept, "")
	}
	if asked := w.lookaside.Requests(); len(asked) != 2 { // signature-1, and that there is no second
		t.Errorf("the lookaside was asked for %v", asked)
	}
}
