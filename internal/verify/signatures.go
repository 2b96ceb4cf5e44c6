package verify

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// sig is one signature of an image as it was read.
type sig struct {
	index      int               // among all of the image, from 0
	attachment int               // number of the sigstore signature, from 1; 0 for a simple one
	simple     []byte            // an OpenPGP message; nil for a sigstore signature
	sigstore   *fetch.Attachment // nil for a simple signature
	claims     openpgp.Claims
}

// The library's signatures have types that it keeps to itself; these are their methods.
type (
	simpleSignature   interface{ UntrustedSignature() []byte }
	sigstoreSignature interface {
		UntrustedMIMEType() string
		UntrustedPayload() []byte
		UntrustedAnnotations() map[string]string
	}
)

// signatures reads all signatures of an image, within the limits, and notes whether the registry serves them.
func (e *evaluation) signatures(ctx context.Context, un *image.UnparsedImage) ([]sig, verdict.Reason, error) {
	if err := e.checkSignatureFiles(); err != nil {
		var many *tooMuchError
		if errors.As(err, &many) {
			return nil, verdict.LookasideNotSignature, err
		}
		return nil, lookasideReason(err), err
	}
	asked := len(e.requests.Since(0))
	list, err := un.UntrustedSignatures(ctx)
	e.extension = servedByRegistry(e.requests.Since(asked))
	if err = e.orTooMuch(err); err != nil {
		var many *traffic.TooMuchError
		if errors.As(err, &many) {
			return nil, tooMuch(e.askedAttachments(err, e.requests.Since(asked))), &tooMuchError{many}
		}
		reason, err := e.unreadable(err, e.requests.Since(asked))
		return nil, reason, err
	}
	if len(list) > e.maxSignatures {
		_, isAttached := any(list[e.maxSignatures]).(sigstoreSignature)
		return nil, tooMuch(isAttached && !e.target.local()),
			&tooMuchError{fmt.Errorf("more than %d signatures", e.maxSignatures)}
	}
	var out []sig
	attached := 0
	for i, s := range list {
		var one sig
		size := 0
		switch s := any(s).(type) {
		case simpleSignature:
			one.simple = s.UntrustedSignature()
			size = len(one.simple)
			one.index = i
			if size <= e.maxSize {
				if err := openpgp.CheckUnpacked(one.simple, max(openpgp.MaxUnpacked, e.maxSize)); err != nil {
					return nil, verdict.LookasideNotSignature, fmt.Errorf("%s is %w: that is no signature", e.sourceOf(one), err)
				}
				one.claims = openpgp.ReadClaims(one.simple)
			}
		case sigstoreSignature:
			one.sigstore = &fetch.Attachment{
				MIMEType: s.UntrustedMIMEType(), Payload: s.UntrustedPayload(),
				Annotations: s.UntrustedAnnotations(),
			}
			attached++
			one.attachment = attached
			size = len(one.sigstore.Payload)
			if size <= e.maxSize {
				one.claims = openpgp.PayloadClaims(one.sigstore.Payload)
			}
		default:
			return nil, verdict.LookasideNotSignature, fmt.Errorf("signature %d has an unknown form", i+1)
		}
		one.index = i
		if size > e.maxSize {
			return nil, tooMuch(one.attachment > 0 && !e.target.local()),
				&tooMuchError{fmt.Errorf("%s has %d bytes, more than %d: that is no signature", e.sourceOf(one), size, e.maxSize)}
		}
		out = append(out, one)
	}
	return out, "", nil
}

// tooMuch is the reason why no more is read of an image's attachments, or of its lookaside.
func tooMuch(attachments bool) verdict.Reason {
	if attachments {
		return verdict.AttachmentsUnreadable
	}
	return verdict.LookasideNotSignature
}

// sourceOf names where a signature was read.
func (e *evaluation) sourceOf(s sig) string {
	switch {
	case e.target.storedID != "":
		return fmt.Sprintf("%s@%s %s", storagePrefix, e.target.storedID, e.dirSignature(s.index))
	case e.target.dir != "":
		return filepath.Join(e.target.dir, e.dirSignature(s.index))
	case s.attachment > 0:
		return fmt.Sprintf("%s:%s.sig layer %d", e.target.logical.DockerReference().Name(),
			strings.Replace(e.v.Digest, ":", "-", 1), s.attachment)
	case e.extension:
		return fmt.Sprintf("%s: signature %d of the registry's own", e.target.logical.DockerReference().Name(), s.index+1)
	}
	return fmt.Sprintf("%s@%s/signature-%d", e.v.Lookaside.URL, strings.Replace(e.v.Digest, ":", "=", 1), s.index+1)
}

// dirSignature is the name of the i-th signature file in a directory image.
func (e *evaluation) dirSignature(i int) string {
	name := fmt.Sprintf("signature-%d", i+1)
	if e.v.Index != "" {
		_, hex, _ := strings.Cut(e.v.Digest, ":")
		name = hex + "." + name
	}
	return name
}

// tooMuchError says that there are more or larger signatures than are read.
type tooMuchError struct{ error }

func (e *tooMuchError) Unwrap() error { return e.error }

// checkSignatureFiles looks at signatures that are local files before the library reads them: it would read whatever
// size they have, and wait for a pipe.
func (e *evaluation) checkSignatureFiles() error {
	if e.target.layout != "" {
		return nil // the library reads none of a layout
	}
	name := func(i int) string { return filepath.Join(e.target.dir, e.dirSignature(i)) }
	if e.target.dir == "" {
		u, err := url.Parse(e.v.Lookaside.URL)
		if err != nil {
			return &fs.PathError{Op: "parse", Path: e.v.Lookaside.URL, Err: err}
		}
		switch u.Scheme {
		case "http", "https":
			return nil
		case "file":
		default:
			return &url.Error{Op: "Get", URL: e.v.Lookaside.URL, Err: fmt.Errorf("unsupported scheme %q", u.Scheme)}
		}
		name = e.lookasideFile
	}
	for i := 0; ; i++ {
		err := checkRegular(name(i), int64(e.maxSize))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if i >= e.maxSignatures {
			return &tooMuchError{fmt.Errorf("more than %d signatures", e.maxSignatures)}
		}
	}
}

// lookasideFile is where this machine has the i-th signature of a lookaside that is a directory.
func (e *evaluation) lookasideFile(i int) string {
	s := e.policy.host.URL(
		fmt.Sprintf("%s@%s/signature-%d", e.v.Lookaside.URL, strings.Replace(e.v.Digest, ":", "=", 1), i+1))
	if u, err := url.Parse(s); err == nil {
		return u.Path
	}
	return s
}

// checkRegular reports a file that is not regular, or larger than limit.
func checkRegular(name string, limit int64) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &fs.PathError{Op: "read", Path: name, Err: errors.New("is no regular file")}
	}
	if st.Size() > limit {
		return &tooMuchError{fmt.Errorf("%s has %d bytes, more than %d", name, st.Size(), limit)}
	}
	return nil
}

// sigsFor returns the signatures that a requirement looks at: each kind ignores the other's.
func sigsFor(r *requirement, all []sig) []sig {
	var out []sig
	for _, s := range all {
		if r.Type == policy.SignedBy && s.simple != nil || r.Type == policy.SigstoreSigned && s.sigstore != nil {
			out = append(out, s)
		}
	}
	return out
}

// report is the signature as it claims to be.
func (s sig) report(r *requirement, source string) verdict.Signature {
	signer := s.claims.Signer
	if primary, ok := r.keys.ByID[signer]; ok {
		signer = primary
	}
	expires := s.claims.Expires
	// of other certificates only counts that they held when the signature was logged
	if s.sigstore != nil && r.PKI != nil {
		expires = certificatesExpire(s.sigstore)
	}
	return verdict.Signature{
		Source: source, Answer: verdict.Unknown, Signer: signer, Packet: s.claims.Packet,
		Digest: s.claims.Digest, Reference: s.claims.Reference, Expires: expires,
	}
}

// certificatesExpire is when the first of the certificates ends that came with a signature; zero if none can be read.
func certificatesExpire(a *fetch.Attachment) (first time.Time) {
	for _, name := range []string{"dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"} {
		for block, rest := pem.Decode([]byte(a.Annotations[name])); block != nil; block, rest = pem.Decode(rest) {
			if c, err := x509.ParseCertificate(block.Bytes); err == nil && (first.IsZero() || c.NotAfter.Before(first)) {
				first = c.NotAfter
			}
		}
	}
	return first
}

// reason says why the library didn't accept the signature alone.
func (s sig) reason(err error, r *requirement, blob []byte) (verdict.Answer, verdict.Reason) {
	if s.simple != nil {
		return signatureReason(err, s.claims, r.keys, blob)
	}
	var requirement signature.PolicyRequirementError
	var invalid signature.InvalidSignatureError
	switch {
	case timedOut(err):
		return verdict.Unknown, verdict.Timeout
	case s.strange(err, r) != "":
		return verdict.Refuse, verdict.WeakOrUnsupported
	case errors.As(err, &requirement) && !digestMatches(blob, s.claims.Digest):
		return verdict.Refuse, verdict.WrongDigest
	case errors.As(err, &requirement):
		return verdict.Refuse, verdict.WrongIdentity
	case errors.As(err, &invalid):
		return verdict.Refuse, verdict.WrongKey
	}
	return verdict.Refuse, verdict.WeakOrUnsupported // no annotation, another payload: the library reads no more of it
}

// sigstoreType is the media type of the only attachments that the library reads.
const sigstoreType = "application/vnd.dev.cosign.simplesigning.v1+json"

// strange says what a sigstore attachment is that is no container signature, whoever made it; "" if it may be one.
func (s sig) strange(err error, r *requirement) string {
	var invalid signature.InvalidSignatureError
	switch {
	case s.sigstore.MIMEType != sigstoreType:
		return fmt.Sprintf("an attachment of type %q is no container signature: runtimes read %s only", s.sigstore.MIMEType,
			sigstoreType)
	case !errors.As(err, &invalid):
		return ""
	// The library has no types for these. It reads the payload after it has verified the signature.
	case strings.HasPrefix(invalid.Error(), "base64 decoding"):
		return "the attachment has no signature in base64: " + invalid.Error()
	case r.keysOnly() && !strings.HasPrefix(invalid.Error(), "cryptographic signature verification failed"):
		return "an accepted key made the signature, but what it signed is no container signature: " + invalid.Error()
	}
	return ""
}

// keysOnly is true of a sigstore requirement that names public keys, and asks neither for certificates nor for a log.
func (r *requirement) keysOnly() bool { return r.Fulcio == nil && r.PKI == nil && !r.Rekor().Given() }

// open makes an image with this manifest and just this signature.
func (s sig) open(e *evaluation, blob []byte) (types.ImageSource, error) {
	if s.simple != nil {
		return &oneSignature{ref: e.target.content, manifest: blob, signature: s.simple}, nil
	}
	// The library takes sigstore signatures from its own sources only, such as a directory.
	dir, err := os.MkdirTemp(e.policy.tmp, "sigstore-")
	if err != nil {
		return nil, err
	}
	b, err := s.sigstore.File()
	if err != nil {
		return nil, err
	}
	err = errors.Join(os.WriteFile(filepath.Join(dir, "manifest.json"), blob, 0o600),
		os.WriteFile(filepath.Join(dir, "signature-1"), b, 0o600))
	if err != nil {
		return nil, err
	}
	ref, err := directory.NewReference(dir)
	if err != nil {
		return nil, err
	}
	return ref.NewImageSource(context.Background(), &e.sys)
}

// conclude fills in the answer on one signature; err is the library's.
func (e *evaluation) concludeSignature(s *verdict.Signature, own sig, r *requirement, a verdict.Answer,
	reason verdict.Reason, err error,
) {
	s.Answer, s.Reason = a, reason
	switch {
	case reason == "":
		if _, known := r.keys.ByID[own.claims.Signer]; !known && len(r.keys.Primary) == 1 {
			s.Signer = r.keys.Primary[0]
		}
		if bySubkey(own, r) {
			s.Message = "made by subkey " + own.claims.Signer
		}
	case reason == verdict.WrongIdentity:
		s.Message = fmt.Sprintf("signed as %s, which %s does not accept for %s", orUnknown(s.Reference), r.Identity(),
			e.logicalName())
		if want := wanted(r.Identity(), e.target.logical.DockerReference()); want != "" && want != e.logicalName() {
			s.Message += "; it accepts " + want
		}
	case reason == verdict.WrongDigest:
		s.Message = fmt.Sprintf("signed for %s, the image is %s", orUnknown(s.Digest), e.v.Digest)
	case own.simple != nil:
		s.Message = mechanism.Signature{
			Claims: own.claims, Signer: s.Signer, Keys: r.keys,
			Source: r.keySource(),
		}.Explain(reason, err)
	case reason == verdict.WrongKey:
		s.Message = fmt.Sprintf("no accepted key or certificate made the signature: %v", err)
	case reason == verdict.WeakOrUnsupported:
		s.Message = cmp.Or(own.strange(err, r), "no usable container signature: "+mechanism.Text(err))
	}
}

// bySubkey is true if the signature names a subkey of one of the requirement's keys as its maker.
func bySubkey(own sig, r *requirement) bool {
	primary, known := r.keys.ByID[own.claims.Signer]
	return known && own.simple != nil && primary != own.claims.Signer && !strings.HasSuffix(primary, own.claims.Signer)
}

func orUnknown(s string) string { return cmp.Or(s, "(not said)") }

// logicalName is the reference that identities are compared with.
func (e *evaluation) logicalName() string {
	if d := e.target.logical.DockerReference(); d != nil {
		return d.String()
	}
	return "a directory, which has no docker reference"
}

// oneSignature is an image source with one simple signature and no layers.
type oneSignature struct {
	ref                 types.ImageReference
	manifest, signature []byte
}

func (o *oneSignature) Reference() types.ImageReference { return o.ref }
func (o *oneSignature) Close() error                    { return nil }
func (o *oneSignature) HasThreadSafeGetBlob() bool      { return false }

func (o *oneSignature) GetManifest(context.Context, *digest.Digest) ([]byte, string, error) {
	return o.manifest, manifest.GuessMIMEType(o.manifest), nil
}

func (o *oneSignature) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return [][]byte{o.signature}, nil
}

func (o *oneSignature) GetBlob(context.Context, types.BlobInfo, types.BlobInfoCache) (io.ReadCloser, int64, error) {
	return nil, 0, errors.New("no layers here")
}

func (o *oneSignature) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}
