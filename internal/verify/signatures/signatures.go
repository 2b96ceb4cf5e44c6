// Package signatures holds the signatures of an image as they were read: within limits, in the order of the image
// library, each with the place where it was found.
package signatures

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// Signature is one signature of an image as it was read.
type Signature struct {
	// Source is the file, URL or tag that the signature was read from.
	Source string
	// Simple is an OpenPGP message; nil for a sigstore signature, which Sigstore is then.
	Simple   []byte
	Sigstore *library.Attachment
	// Claims are what the signature says of itself.
	Claims openpgp.Claims
}

// The library keeps the types of its signatures to itself; these are their methods.
type (
	simple   interface{ UntrustedSignature() []byte }
	sigstore interface {
		UntrustedMIMEType() string
		UntrustedPayload() []byte
		UntrustedAnnotations() map[string]string
	}
)

// IsSimple reports whether a signature of the image library is a simple one.
func IsSimple(s any) bool { _, ok := s.(simple); return ok }

// Place is where the signatures of one manifest are, and how many are read.
type Place struct {
	Image locate.Image
	// Digest is that of the manifest, and Index that of the index which names it; "" if there is none.
	Digest, Index string
	// Lookaside is the URL as the host below Host sees it.
	Lookaside string
	Host      hostfs.Root
	// Served is true if the registry serves signatures itself, so that no lookaside is asked.
	Served bool
	// Most bounds the number of signatures, and Size the bytes of one.
	Most, Size int
}

// Read returns the signatures that the library has read. A *failure.Error says that they are too many or too large, or
// no signatures.
func Read[S any](p Place, list []S) (out []Signature, err error) {
	if len(list) > p.Most {
		_, isAttached := any(list[p.Most]).(sigstore)
		return nil, p.tooMuch(isAttached, "more than %d signatures", p.Most)
	}
	attached := 0
	for i, s := range list {
		var one Signature
		switch s := any(s).(type) {
		case simple:
			one.Simple, one.Source = s.UntrustedSignature(), p.source(i, 0)
			if size := len(one.Simple); size > p.Size {
				return nil, p.tooLarge(one, size)
			}
			if err := openpgp.CheckUnpacked(one.Simple, max(openpgp.MaxUnpacked, p.Size)); err != nil {
				return nil, notSignature(fmt.Errorf("%s is %w: that is no signature", one.Source, err))
			}
			one.Claims = openpgp.ReadClaims(one.Simple)
		case sigstore:
			attached++
			one.Sigstore, one.Source = &library.Attachment{
				MIMEType: s.UntrustedMIMEType(), Payload: s.UntrustedPayload(), Annotations: s.UntrustedAnnotations(),
			}, p.source(i, attached)
			if size := len(one.Sigstore.Payload); size > p.Size {
				return nil, p.tooLarge(one, size)
			}
			one.Claims = openpgp.PayloadClaims(one.Sigstore.Payload)
		default:
			return nil, notSignature(fmt.Errorf("signature %d has an unknown form", i+1))
		}
		out = append(out, one)
	}
	return out, nil
}

func notSignature(err error) error {
	return &failure.Error{Reason: verdict.LookasideNotSignature, Err: err}
}

func (p Place) tooLarge(s Signature, size int) error {
	return p.tooMuch(s.Sigstore != nil, "%s has %d bytes, more than %d: that is no signature", s.Source, size, p.Size)
}

func (p Place) tooMuch(attached bool, format string, args ...any) error {
	return &failure.Error{Reason: TooMuch(attached && !p.Image.Local()), Err: traffic.TooMuch(format, args...)}
}

// TooMuch returns the reason why no more is read of an image's attachments, or of its lookaside.
func TooMuch(attachments bool) verdict.Reason {
	if attachments {
		return verdict.AttachmentsUnreadable
	}
	return verdict.LookasideNotSignature
}

// source names where the i-th signature was read, which is the given attachment, from 1; 0 for a simple signature.
func (p Place) source(i, attachment int) string {
	switch {
	case p.Image.StoredID != "":
		return fmt.Sprintf("containers-storage:@%s %s", p.Image.StoredID, p.fileName(i))
	case p.Image.Dir != "":
		return filepath.Join(p.Image.Dir, p.fileName(i))
	case attachment > 0:
		return fmt.Sprintf("%s:%s layer %d", p.Image.Logical.DockerReference().Name(), library.AttachmentTag(p.Digest),
			attachment)
	case p.Served:
		return fmt.Sprintf("%s: signature %d of the registry's own", p.Image.Logical.DockerReference().Name(), i+1)
	}
	return library.SignatureURL(p.Lookaside, p.Digest, i+1)
}

// fileName is the name of the i-th signature file in a directory image.
func (p Place) fileName(i int) string {
	name := fmt.Sprintf("signature-%d", i+1)
	if p.Index != "" {
		_, hex, _ := strings.Cut(p.Digest, ":")
		name = hex + "." + name
	}
	return name
}

// CheckFiles reports signatures that are local files and can't be read within the limits: the library would read
// whatever size they have, and wait for a pipe.
func (p Place) CheckFiles() error {
	if p.Image.Layout != "" {
		return nil // the library reads none of a layout
	}
	name := func(i int) string { return filepath.Join(p.Image.Dir, p.fileName(i)) }
	if p.Image.Dir == "" {
		u, err := url.Parse(p.Lookaside)
		if err != nil {
			return &fs.PathError{Op: "parse", Path: p.Lookaside, Err: err}
		}
		switch u.Scheme {
		case "http", "https":
			return nil
		case "file":
		default:
			return &url.Error{Op: "Get", URL: p.Lookaside, Err: fmt.Errorf("unsupported scheme %q", u.Scheme)}
		}
		name = p.LookasideFile
	}
	for i := 0; ; i++ {
		err := CheckFile(name(i), int64(p.Size))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if i >= p.Most {
			return traffic.TooMuch("more than %d signatures", p.Most)
		}
	}
}

// LookasideFile returns where this machine has the i-th signature of a lookaside that is a directory.
func (p Place) LookasideFile(i int) string {
	s := p.Host.URL(library.SignatureURL(p.Lookaside, p.Digest, i+1))
	if u, err := url.Parse(s); err == nil {
		return u.Path
	}
	return s
}

// CheckFile reports a file that is not regular, or larger than limit.
func CheckFile(name string, limit int64) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &fs.PathError{Op: "read", Path: name, Err: errors.New("is no regular file")}
	}
	if st.Size() > limit {
		return traffic.TooMuch("%s has %d bytes, more than %d", name, st.Size(), limit)
	}
	return nil
}

// CertificatesExpire returns when the first of the certificates ends that came with a signature; zero if none can be
// read.
func (s Signature) CertificatesExpire() (first time.Time) {
	for _, name := range []string{"dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"} {
		for block, rest := pem.Decode([]byte(s.Sigstore.Annotations[name])); block != nil; block, rest = pem.Decode(rest) {
			if c, err := x509.ParseCertificate(block.Bytes); err == nil && (first.IsZero() || c.NotAfter.Before(first)) {
				first = c.NotAfter
			}
		}
	}
	return first
}
