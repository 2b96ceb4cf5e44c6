// Package detached judges signature files without an image: one container signature, made by one of the keys, for what is wanted.
package detached

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"

	"github.com/nodetrust/nodetrust/verdict"
	"github.com/nodetrust/nodetrust/verify/mechanism"
	"github.com/nodetrust/nodetrust/verify/openpgp"
)

// Answer is that on one signature file.
type Answer struct {
	Verdict verdict.Answer `json:"verdict"`
	Reason  verdict.Reason `json:"reason"`
	Message string         `json:"message"`
	// Signer is a full fingerprint, or a 16-digit key ID where only that is known.
	Signer string `json:"signer"`
	// Digest and Reference are what the signature is for: claims, unless the verdict is accept.
	Digest    string `json:"digest"`
	Reference string `json:"reference"`
	// Creator and Timestamp (seconds since 1970) are what the signer says of the signature; they are there only if one of
	// the keys made it.
	Creator   string `json:"creator,omitempty"`
	Timestamp *int64 `json:"timestamp,omitempty"`
}

// Wanted is what a signature must be for.
type Wanted struct {
	// Digest is a manifest digest; any if empty.
	Digest string
	// Reference is a docker reference; any if empty. If it has a digest, that one must have been signed, and its tag
	// doesn't count, as for runtimes.
	Reference string
	// Identity says how references are compared: matchExact, matchRepoDigestOrExact or matchRepository, as in policy.json,
	// where the first two need a tag or a digest: a default would be a guess. Empty: like matchRepoDigestOrExact, but a
	// reference without tag and digest stands for its repository.
	Identity string
}

// Verify judges one simple signature: made by one of the keys (each the content of a key file), for what is
// wanted. An error means that what is wanted can't be used. Nothing is said of the image, and nothing of a key that isn't
// given.
func Verify(ctx context.Context, blob []byte, keys [][]byte, w Wanted) (Answer, error) {
	want, err := w.reference()
	if err != nil {
		return Answer{}, err
	}
	if w.Digest != "" {
		if _, err := digest.Parse(w.Digest); err != nil {
			return Answer{}, fmt.Errorf("digest %q: %w", w.Digest, err)
		}
	}
	c := openpgp.ReadClaims(blob)
	known := openpgp.ParseKeys(keys)
	d := Answer{Signer: c.Signer, Digest: c.Digest, Reference: c.Reference}
	if primary, ok := known.ByID[c.Signer]; ok {
		d.Signer = primary
	}
	answer := func(a verdict.Answer, reason verdict.Reason, format string, args ...any) (Answer, error) {
		d.Verdict, d.Reason, d.Message = a, reason, fmt.Sprintf(format, args...)
		return d, nil
	}
	if len(known.Primary) == 0 {
		return answer(verdict.Refuse, verdict.KeyUnreadable, "no public key inside the key files")
	}
	if err := openpgp.CheckUnpacked(blob, openpgp.MaxUnpacked); err != nil {
		return answer(verdict.Unknown, verdict.LookasideNotSignature, "the file is %v: that is no signature", err)
	}
	signed, err := mechanism.Verify(ctx, blob, keys, known)
	if errors.Is(err, context.Canceled) {
		return answer(verdict.Unknown, verdict.Timeout, "interrupted")
	}
	if err != nil {
		a, reason := mechanism.Reason(err, c, known)
		message := mechanism.Signature{Claims: c, Signer: d.Signer, Keys: known, Source: "key files given"}.Explain(reason, err)
		return answer(a, reason, "%s", cmp.Or(message, err.Error()))
	}
	payload, err := strictPayload(signed)
	if err != nil {
		return answer(verdict.Refuse, verdict.WeakOrUnsupported, "well signed, but no container signature: %v", err)
	}
	d.Digest, d.Reference = payload.Critical.Image.Digest, payload.Critical.Identity.Reference
	if d.Creator, d.Timestamp, err = payload.optional(); err != nil {
		return answer(verdict.Refuse, verdict.WeakOrUnsupported, "well signed, but no container signature: %v", err)
	}
	if w.Digest != "" && d.Digest != w.Digest {
		return answer(verdict.Refuse, verdict.WrongDigest, "signed for %s, not for %s", d.Digest, w.Digest)
	}
	if digested, ok := want.(reference.Digested); ok && d.Digest != digested.Digest().String() {
		return answer(verdict.Refuse, verdict.WrongDigest, "signed for %s, not for %s", d.Digest, digested.Digest())
	}
	if want != nil && !w.matches(want, d.Reference) {
		return answer(verdict.Refuse, verdict.WrongIdentity, "signed as %s, not as %s", d.Reference, w.Reference)
	}
	return answer(verdict.Accept, "", "signed by %s", d.Signer)
}

func (w Wanted) reference() (reference.Named, error) {
	switch w.Identity {
	case "":
	case "matchExact", "matchRepoDigestOrExact", "matchRepository":
		if w.Reference == "" {
			return nil, fmt.Errorf("identity %s: needs a reference to compare with", w.Identity)
		}
	default:
		return nil, fmt.Errorf("identity %q: must be matchExact, matchRepoDigestOrExact or matchRepository", w.Identity)
	}
	if w.Reference == "" {
		return nil, nil
	}
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(w.Reference, "docker://"))
	if err != nil {
		return nil, fmt.Errorf("reference %q: %w", w.Reference, err)
	}
	if w.Identity != "" && w.Identity != "matchRepository" && reference.IsNameOnly(named) {
		return nil, fmt.Errorf("reference %q: %s needs a tag or a digest", w.Reference, w.Identity)
	}
	if digested, ok := named.(reference.Digested); ok {
		return reference.WithDigest(reference.TrimNamed(named), digested.Digest())
	}
	return named, nil
}

// matches compares as the library does for the identities of policy.json, whose matchers it keeps to itself.
func (w Wanted) matches(want reference.Named, signed string) bool {
	got, err := reference.ParseNormalizedNamed(signed)
	if err != nil || got.Name() != want.Name() {
		return false
	}
	_, byDigest := want.(reference.Digested)
	switch w.Identity {
	case "matchRepository":
		return true
	case "matchExact":
		return got.String() == want.String()
	case "matchRepoDigestOrExact":
		return !reference.IsNameOnly(got) && (byDigest || got.String() == want.String())
	}
	if tagged, ok := want.(reference.Tagged); ok {
		t, ok := got.(reference.Tagged)
		return ok && t.Tag() == tagged.Tag()
	}
	return true
}

// payload is the signed JSON. The library's strict reader of it is reachable only together with a manifest.
type payload struct {
	Critical *struct {
		Type  string `json:"type"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
	} `json:"critical"`
	Optional json.RawMessage `json:"optional"`
}

func strictPayload(b []byte) (payload, error) {
	var p payload
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return p, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return p, errors.New("more than one JSON value")
	}
	switch {
	case p.Critical == nil:
		return p, errors.New("critical is missing")
	case p.Critical.Type != "atomic container signature":
		return p, fmt.Errorf("type is %q", p.Critical.Type)
	case p.Critical.Identity.Reference == "":
		return p, errors.New("docker-reference is missing")
	}
	_, err := digest.Parse(p.Critical.Image.Digest)
	return p, err
}

// optional reads creator and timestamp, which need not be there, as strictly as the library does.
func (p payload) optional() (creator string, timestamp *int64, err error) {
	var fields map[string]any
	if len(p.Optional) > 0 {
		if err := json.Unmarshal(p.Optional, &fields); err != nil {
			return "", nil, fmt.Errorf("optional: %w", err)
		}
	}
	if v, ok := fields["creator"]; ok {
		if creator, ok = v.(string); !ok {
			return "", nil, errors.New("creator is no string")
		}
	}
	if v, ok := fields["timestamp"]; ok {
		f, ok := v.(float64)
		n := int64(f)
		if !ok || float64(n) != f {
			return "", nil, errors.New("timestamp is no integer")
		}
		timestamp = &n
	}
	return creator, timestamp, nil
}
