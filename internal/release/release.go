// Package release judges OpenShift releases as the Cluster Version Operator does: by detached signatures of the release
// image's digest, which vouch for all digests of its payload. No image of the payload has a GPG signature.
package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/detached"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
)

// Repository is the signed repository of Red Hat's releases, wherever a copy was taken from.
const Repository = "quay.io/openshift-release-dev/ocp-release"

const maxBlobs = 64

// Key is one verifier: a key file, any key of which may sign.
type Key struct {
	Name string
	Data []byte
}

// Options say how a release is judged.
type Options struct {
	// As is the docker reference that must have been signed; empty: the release's own, of a local one Repository.
	As string
	// Keys are verifiers, all of which must be satisfied, as the operator demands.
	Keys []Key
	// Sources are asked in order until all keys are satisfied.
	Sources []Source
	// Judge reads the release image, under a policy that accepts everything (verify.Source.AcceptAll). Timeout bounds
	// the whole; 0 leaves it to the context.
	Judge   *verify.Judge
	Timeout time.Duration
	// SignatureOnly does not read a release image whose digest is known: the payload stays unknown then.
	SignatureOnly bool
}

// Verifier is the answer for one key file.
type Verifier struct {
	Key string `json:"key"`
	verdict.Outcome
	// Signer is the signer's full fingerprint, Source the place of the signature.
	Signer string `json:"signer,omitempty"`
	Source string `json:"source,omitempty"`
}

// Result is the answer on a release.
type Result struct {
	Release string `json:"release"`
	Digest  string `json:"digest,omitempty"`
	verdict.Outcome
	// Version is the release's name in its payload.
	Version   string     `json:"version,omitempty"`
	Verifiers []Verifier `json:"verifiers"`
	// Problems are unreadable stores; they matter only for an unknown verdict.
	Problems []string `json:"problems,omitempty"`
	// Instance is the platform's image of a multi-platform release.
	Instance string `json:"instance,omitempty"`
	// Images are the payload; none unless the verdict is accept.
	Images []Image `json:"images,omitempty"`

	repositories []string // from which nodes may pull the release image
}

// Vouches returns the name of the release if it was verified and the digest is its own or of its payload, else "".
func (r *Result) Vouches(digest string) string {
	if r.Answer != verdict.Accept || digest == "" {
		return ""
	}
	if digest == r.Digest || digest == r.Instance ||
		slices.ContainsFunc(r.Images, func(i Image) bool { return i.Digest == digest }) {
		return r.Release
	}
	return ""
}

// Vouching returns the name of the first of the releases that vouches for the digest, "" if none does.
func Vouching(releases []Result, digest string) string {
	for _, r := range releases {
		if name := r.Vouches(digest); name != "" {
			return name
		}
	}
	return ""
}

// IsMirror reports whether tools for mirroring releases name a repository so.
func IsMirror(repository string) bool {
	switch path.Base(repository) {
	case "ocp-release", "release", "release-images":
		return true
	}
	return false
}

// Verify judges a release: docker://REFERENCE or REFERENCE, dir:PATH or oci:PATH. An error means that the argument or
// an option is unusable; later failures are in the result. Image.Timeout bounds the whole: work that doesn't end soon
// after it is abandoned.
func Verify(ctx context.Context, release string, o Options) (Result, error) {
	r := Result{Release: strings.TrimPrefix(release, "docker://"), Verifiers: []Verifier{}}
	image, err := verify.ParseImage(r.Release)
	if err != nil {
		return r, err
	}
	want, err := o.wanted(r.Release)
	if err != nil {
		return r, err
	}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	judged := r
	err, ended := library.Within(ctx, library.Grace, func() (err error) {
		judged, err = judged.verify(ctx, image, want, o)
		return err
	})
	if !ended {
		late := &verify.ContentError{Reason: verdict.Timeout, Err: ctx.Err()}
		return r.unknown(late, "the release could not be judged"), nil
	}
	return judged, err
}

// verify is Verify without the time limit.
func (r Result) verify(ctx context.Context, image verify.Image, want detached.Wanted, o Options) (Result, error) {
	if !local(r.Release) {
		r.Digest = ref.Digest(r.Release)
	}
	var content *verify.Content
	var unread error
	if !o.SignatureOnly || r.Digest == "" {
		content, unread = o.Judge.Open(ctx, image)
		if _, known := errors.AsType[*verify.ContentError](unread); unread == nil {
			defer content.Close()
			r.Digest = content.Digest
		} else if !known {
			return r, unread
		}
	}
	r.repositories = repositories(r.Release, want.Reference)
	if r.Digest == "" {
		return r.unknown(unread, "the release image could not be read"), nil
	}
	want.Digest = r.Digest
	// without a tag it is pulled by digest
	if want.Reference == ref.Name(want.Reference) {
		want.Reference += "@" + r.Digest
	}
	r.signatures(ctx, want, o)
	switch {
	case r.Answer != verdict.Accept || o.SignatureOnly:
		return r, nil
	case unread != nil:
		return r.unknown(unread, "the signatures hold, but the release image could not be read"), nil
	}
	p, err := readPayload(ctx, content)
	if err != nil {
		return r.unknown(err, "the signatures hold, but not what the release consists of could be read"), nil
	}
	r.Version, r.Images = p.name, p.images
	if content.Instance != content.Digest {
		r.Instance = content.Instance
	}
	r.Message = fmt.Sprintf("%s; it vouches for %d images", r.Message, len(r.Images))
	return r, nil
}

func repositories(references ...string) (out []string) {
	for _, r := range references {
		name, err := locate.Canonical(r)
		if err != nil || local(r) {
			continue
		}
		if name = ref.Name(name); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func local(release string) bool {
	return strings.HasPrefix(release, "dir:") || strings.HasPrefix(release, "oci:")
}

func (o Options) wanted(release string) (detached.Wanted, error) {
	switch {
	case len(o.Keys) == 0:
		return detached.Wanted{}, errors.New("no key is given")
	case o.As != "":
		if _, err := verify.ParseImage(o.As); err != nil || local(o.As) {
			return detached.Wanted{}, fmt.Errorf("reference %q: is no docker reference", o.As)
		}
		return detached.Wanted{Reference: o.As}, nil
	case local(release):
		return detached.Wanted{Reference: Repository}, nil
	}
	if ref.Digest(release) != "" { // runtimes ignore a tag beside a digest
		release = ref.Name(release)
	}
	return detached.Wanted{Reference: release}, nil
}

func (r Result) unknown(err error, what string) Result {
	r.Answer, r.Reason, r.Message = verdict.Unknown, reasonOf(err, verdict.RegistryUnreachable), what
	if err != nil {
		r.Message += ": " + err.Error()
	}
	return r
}

// reasonOf returns the reason of an error that tells one, else the other.
func reasonOf(err error, other verdict.Reason) verdict.Reason {
	if known, ok := errors.AsType[*verify.ContentError](err); ok {
		return known.Reason
	}
	return other
}

// signatures asks the sources until every key is satisfied, and concludes.
func (r *Result) signatures(ctx context.Context, want detached.Wanted, o Options) {
	var blobs []Blob
	var missed []error
	none := verdict.Outcome{
		Answer: verdict.Refuse, Reason: verdict.NoSignature, Message: "no signature of the release was found",
	}
	for _, k := range o.Keys {
		r.Verifiers = append(r.Verifiers, Verifier{Key: k.Name, Outcome: none})
	}
	for _, s := range o.Sources {
		if !slices.ContainsFunc(r.Verifiers, func(v Verifier) bool { return v.Answer != verdict.Accept }) {
			break
		}
		more, err := s.Signatures(ctx, r.Digest)
		if err != nil {
			missed = append(missed, err)
			r.Problems = append(r.Problems, err.Error())
		}
		for _, b := range more {
			if slices.ContainsFunc(blobs, func(have Blob) bool { return bytes.Equal(have.Data, b.Data) }) {
				continue // stores are copies of each other
			}
			if len(blobs) == maxBlobs {
				missed = append(missed, notSignature("more than %d signatures", maxBlobs))
				break
			}
			if err := b.Check(); err != nil {
				missed, r.Problems = append(missed, err), append(r.Problems, err.Error())
				continue
			}
			blobs = append(blobs, b)
			for i := range r.Verifiers {
				r.Verifiers[i].judge(ctx, b, o.Keys[i], want)
			}
		}
	}
	r.conclude(missed)
}

// judge has a key judge one more signature, and keeps the answer nearest to an accept.
func (v *Verifier) judge(ctx context.Context, b Blob, k Key, want detached.Wanted) {
	if v.Answer == verdict.Accept {
		return
	}
	d, err := detached.Verify(ctx, b.Data, [][]byte{k.Data}, want)
	if err != nil { // of what is wanted, which was checked
		d = detached.Result{}
		d.Answer, d.Reason, d.Message = verdict.Unknown, verdict.MechanismCannotTell, err.Error()
	}
	if v.Source == "" || d.Answer == verdict.Accept || d.Answer == verdict.Unknown || v.Answer == verdict.Refuse &&
		v.Reason == verdict.WrongKey {
		v.Answer, v.Reason, v.Message, v.Signer, v.Source = d.Answer, d.Reason, d.Message, d.Signer, b.Source
	}
}

// conclude derives the answer: all keys must accept. A missing signature is unknown if a source could not be read.
func (r *Result) conclude(missed []error) {
	for i := range r.Verifiers {
		v := &r.Verifiers[i]
		if v.Answer == verdict.Refuse && len(missed) > 0 {
			v.Answer, v.Reason = verdict.Unknown, reasonOf(missed[0], verdict.LookasideUnreachable)
			v.Message = fmt.Sprintf("%s; not all stores could be read: %v", v.Message, missed[0])
		}
	}
	i := verdict.Worst(r.Verifiers, func(v Verifier) verdict.Answer { return v.Answer })
	if i < 0 || r.Verifiers[i].Answer == verdict.Accept {
		var by []string
		for _, v := range r.Verifiers {
			if !slices.Contains(by, v.Signer) {
				by = append(by, v.Signer)
			}
		}
		r.Answer, r.Message = verdict.Accept, "signed by "+strings.Join(by, " and ")
		return
	}
	first := r.Verifiers[i]
	r.Answer, r.Reason, r.Message = first.Answer, first.Reason, first.Message
	if len(r.Verifiers) > 1 {
		r.Message = fmt.Sprintf("%s: %s; every key must have signed", first.Key, first.Message)
	}
	if first.Reason == verdict.NoSignature {
		r.Hint = "name a store that has signatures of releases with --store, or ConfigMaps with --signatures-from"
	}
}
