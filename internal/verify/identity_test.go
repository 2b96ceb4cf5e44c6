package verify

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/requirement"
)

// oracle asks the library whether an identity matches: it signs in the form of sigstore, which has the same identities
// and needs no gpg.
type oracle struct {
	key    cosignKey
	dir    string
	digest string
}

func newOracle(t testing.TB) *oracle {
	t.Helper()
	img, err := fixture.Image("identity", "amd64")
	check(t, err)
	blob, err := img.RawManifest()
	check(t, err)
	d, err := img.Digest()
	check(t, err)
	o := &oracle{key: newCosignKey(t), dir: t.TempDir(), digest: d.String()}
	check(t, os.WriteFile(filepath.Join(o.dir, "manifest.json"), blob, 0o644))
	return o
}

// matches is the library's answer; ok is false where the identity or a reference can't be used at all.
func (o *oracle) matches(t *testing.T, identity, intended, signed string) (match, ok bool) {
	t.Helper()
	ref, err := parseDocker(intended)
	if err != nil {
		return false, false
	}
	requirement := strings.Replace(o.key.requirement(t), `{"type":"matchRepository"}`, identity, 1)
	policy, err := signature.NewPolicyFromBytes([]byte(`{"default":[` + requirement + `]}`))
	if err != nil {
		return false, false
	}
	payload, annotations := o.key.sign(t, o.digest, signed)
	b, err := json.Marshal(library.Attachment{MIMEType: cosignType, Payload: payload, Annotations: annotations})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(o.dir, "signature-1"), append([]byte("\x00sigstore-json\n"), b...), 0o644))
	dir, err := directory.NewReference(o.dir)
	check(t, err)
	src, err := dir.NewImageSource(context.Background(), nil)
	check(t, err)
	defer src.Close()
	pc, err := signature.NewPolicyContext(policy)
	check(t, err)
	defer func() { check(t, pc.Destroy()) }()
	allowed, _ := pc.IsRunningImageAllowed(context.Background(),
		image.UnparsedInstanceWithReference(image.UnparsedInstance(src, nil), ref))
	return allowed, true
}

// parseDocker reads a docker reference as images of registries are read.
func parseDocker(s string) (types.ImageReference, error) {
	i, err := ParseImage("docker://" + s)
	return i.Logical, err
}

// like fails unless our answer is the library's.
func (o *oracle) like(t *testing.T, identity, intended, signed string) (match bool) {
	t.Helper()
	want, ok := o.matches(t, identity, intended, signed)
	if !ok {
		return false
	}
	var r policy.Requirement
	check(t, json.Unmarshal([]byte(`{"signedIdentity":`+identity+`}`), &r))
	ref, err := parseDocker(intended)
	check(t, err)
	if got := requirement.MatchesIdentity(r.Identity(), ref.DockerReference(), signed); got != want {
		t.Errorf("identity %s, image %s, signed as %s: %t, the library says %t", identity, intended, signed, got, want)
	}
	if got := identityForSecondLook(r.Identity()).Accepts(ref.DockerReference().String(), signed); got != want {
		t.Errorf("identity %s, image %s, signed as %s: the second look says %t, the library %t", identity, intended,
			signed, got, want)
	}
	return want
}

// identities of each type; @ is replaced by a reference or a repository.
func identities(ref, other string) []string {
	name := func(s string) string {
		if named, err := reference.ParseNormalizedNamed(s); err == nil {
			return named.Name()
		}
		return s
	}
	return []string{
		`{"type":"matchExact"}`, `{"type":"matchRepoDigestOrExact"}`, `{"type":"matchRepository"}`,
		`{"type":"exactReference","dockerReference":` + quote(ref) + `}`,
		`{"type":"exactRepository","dockerRepository":` + quote(name(ref)) + `}`,
		`{"type":"remapIdentity","prefix":` + quote(name(ref)) + `,"signedPrefix":` + quote(name(other)) + `}`,
		`{"type":"remapIdentity","prefix":` + quote(strings.SplitN(name(ref), "/", 2)[0]) + `,"signedPrefix":` +
			quote(name(other)) + `}`,
	}
}

func TestIdentityLikeTheLibrary(t *testing.T) {
	o := newOracle(t)
	refs := []string{
		"a.example/b:1", "a.example/b", "a.example/b:2", "a.example/b/c:1", "a.example/bc:1", "a.example:5000/b:1",
		"a.example/b@" + o.digest,
		"a.example/b:1@" + o.digest, "a.example/b@sha256:" + strings.Repeat("0", 64), "ubi9:1", "docker.io/library/ubi9:1",
		"a.example.b/c:1",
		"", "A.example/B:1", "http://a.example/b:1", "a.example/b:", "a.example/b:latest", "docker.io/a.example/b:1",
	}
	matches := 0
	for _, intended := range refs {
		for _, signed := range refs {
			for _, other := range []string{intended, signed, "a.example/b"} {
				for _, id := range identities(other, signed) {
					if o.like(t, id, intended, signed) {
						matches++
					}
				}
			}
		}
	}
	if matches < 100 {
		t.Errorf("%d matches: that compares nothing", matches)
	}
}

func FuzzIdentity(f *testing.F) {
	o := newOracle(f)
	f.Add("a.example/b:1", "a.example/b:1", "a.example/b", "c.example/d")
	f.Add("a.example/b/c:1", "c.example/d/c:1", "a.example/b", "c.example/d")
	f.Add("a.example/b", "a.example/b@sha256:0000000000000000000000000000000000000000000000000000000000000000",
		"a.example", "a.example/b/c")
	f.Fuzz(func(t *testing.T, intended, signed, ref, other string) {
		if len(intended)+len(signed)+len(ref)+len(other) > 400 {
			return // no reference is that long, and the library's expression takes its time
		}
		for _, s := range []string{signed, ref} {
			for _, id := range identities(ref, other) {
				o.like(t, id, intended, s)
			}
		}
	})
}
