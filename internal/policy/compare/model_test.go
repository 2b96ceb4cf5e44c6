package compare

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/policy"
)

// The model: a few images, pulled by tag and by digest, and every signature that two keys could make for them. What a
// policy accepts follows from the definitions in containers-policy.json(5), written down anew and without any
// cleverness.

var modelRepos = []string{"a.b.c/r", "a.b.c/r/x", "a.b.c/o", "x.b.c/r"}

const modelDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

type modelSig struct {
	key       int
	repo, ref string
}

func modelSigs() (out []modelSig) {
	for key := range 2 {
		for _, repo := range modelRepos {
			for _, ref := range []string{":v1", ":v2", "@" + modelDigest} {
				out = append(out, modelSig{key, repo, repo + ref})
			}
		}
	}
	return out
}

type modelImage struct{ repo, ref string }

func modelImages() (out []modelImage) {
	for _, repo := range modelRepos {
		out = append(out, modelImage{repo, repo + ":v1"}, modelImage{repo, repo + "@" + modelDigest})
	}
	return out
}

// modelAtom is a requirement: accept, reject, or any of keys with an identity.
type modelAtom struct {
	typ  string
	keys []int
	id   policy.Identity
}

func (a modelAtom) satisfied(s modelSig, img modelImage) bool {
	ok := false
	for _, k := range a.keys {
		ok = ok || k == s.key
	}
	if !ok || a.typ == "reject" {
		return false
	}
	repo, ref := img.repo, img.ref
	switch a.id.Type {
	case "matchExact":
		return s.ref == ref
	case "matchRepository":
		return s.repo == repo
	case "exactReference":
		return s.ref == a.id.DockerReference
	case "exactRepository":
		return s.repo == a.id.DockerRepository
	case "remapIdentity":
		if repo == a.id.Prefix || strings.HasPrefix(repo, a.id.Prefix+"/") {
			ref = a.id.SignedPrefix + ref[len(a.id.Prefix):]
			repo = a.id.SignedPrefix + repo[len(a.id.Prefix):]
		}
	}
	if strings.Contains(img.ref, "@") {
		return s.repo == repo
	}
	return s.ref == ref
}

type modelPolicy map[string][]modelAtom // the key "default" is the policy's, "" the transport's

func (p modelPolicy) deciding(img modelImage) string {
	best, rank := "default", -1
	for scope := range p {
		r := -1
		switch {
		case scope == "default":
		case scope == "":
			r = 0
		case scope == img.ref:
			r = 1_000_000
		case scope == img.repo || strings.HasPrefix(img.repo, scope+"/"):
			r = 1000 + len(scope)
		case strings.HasPrefix(scope, "*.") && strings.HasSuffix(strings.SplitN(img.repo, "/", 2)[0], scope[1:]):
			r = 1 + len(scope)
		}
		if r > rank {
			best, rank = scope, r
		}
	}
	return best
}

func accepts(atoms []modelAtom, img modelImage, sigs []modelSig) bool {
	for _, a := range atoms {
		ok := a.typ == "accept"
		for _, s := range sigs {
			ok = ok || a.satisfied(s, img)
		}
		if !ok {
			return false
		}
	}
	return true
}

// minimal lists sets of signatures one of which is part of every set that atoms accept.
func minimal(atoms []modelAtom, img modelImage, all []modelSig) [][]modelSig {
	sets := [][]modelSig{nil}
	for _, a := range atoms {
		if a.typ == "accept" {
			continue
		}
		var next [][]modelSig
		for _, set := range sets {
			for _, s := range all {
				if a.satisfied(s, img) {
					next = append(next, append(append([]modelSig{}, set...), s))
				}
			}
		}
		sets = next
	}
	return sets
}

// more reports whether y accepts img with some signatures with which x refuses it.
func more(x, y []modelAtom, img modelImage, all []modelSig) bool {
	for _, set := range minimal(y, img, all) {
		if !accepts(x, img, set) {
			return true
		}
	}
	return false
}

func (p modelPolicy) json() string {
	keyData := []string{"first key", "second key"}
	list := func(atoms []modelAtom) string {
		var out []string
		for _, a := range atoms {
			switch a.typ {
			case "accept":
				out = append(out, `{"type":"insecureAcceptAnything"}`)
			case "reject":
				out = append(out, `{"type":"reject"}`)
			default:
				// Several inline GPG keys are one keyData in reality; sigstore takes them apart.
				var datas []string
				for _, k := range a.keys {
					datas = append(datas, fmt.Sprintf("%q", base64.StdEncoding.EncodeToString([]byte(keyData[k]))))
				}
				id := fmt.Sprintf(`{"type":%q`, a.id.Type)
				for _, f := range [][2]string{
					{"dockerReference", a.id.DockerReference},
					{"dockerRepository", a.id.DockerRepository},
					{"prefix", a.id.Prefix},
					{"signedPrefix", a.id.SignedPrefix},
				} {
					if f[1] != "" {
						id += fmt.Sprintf(`,%q:%q`, f[0], f[1])
					}
				}
				out = append(out, fmt.Sprintf(`{"type":"sigstoreSigned","keyDatas":[%s],"signedIdentity":%s}}`,
					strings.Join(datas, ","), id))
			}
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	var scopes []string
	for scope, atoms := range p {
		if scope != "default" {
			scopes = append(scopes, fmt.Sprintf("%q:%s", scope, list(atoms)))
		}
	}
	return fmt.Sprintf(`{"default":%s,"transports":{"docker":{%s}}}`, list(p["default"]), strings.Join(scopes, ","))
}

func randomPolicy(r *rand.Rand) modelPolicy {
	scopes := []string{
		"", "*.c", "*.b.c", "a.b.c", "x.b.c", "a.b.c/r", "a.b.c/r/x", "a.b.c/r:v1",
		"a.b.c/r@" + modelDigest, "a.b.c/o",
	}
	ids := []policy.Identity{
		{Type: "matchRepoDigestOrExact"},
		{Type: "matchRepoDigestOrExact"},
		{Type: "matchExact"},
		{Type: "matchRepository"},
		{Type: "exactReference", DockerReference: "a.b.c/r:v1"},
		{Type: "exactReference", DockerReference: "a.b.c/r@" + modelDigest},
		{Type: "exactRepository", DockerRepository: "a.b.c/r"},
		{Type: "exactRepository", DockerRepository: "a.b.c/o"},
		{Type: "remapIdentity", Prefix: "a.b.c/r", SignedPrefix: "a.b.c/o"},
		{Type: "remapIdentity", Prefix: "a.b.c", SignedPrefix: "x.b.c"},
		{Type: "remapIdentity", Prefix: "a.b.c/r", SignedPrefix: "a.b.c/r"},
		{Type: "remapIdentity", Prefix: "a.b.c/r/x", SignedPrefix: "a.b.c/r"},
	}
	atoms := func() (out []modelAtom) {
		for range 1 + r.IntN(2) {
			switch r.IntN(6) {
			case 0:
				out = append(out, modelAtom{typ: "accept"})
			case 1:
				out = append(out, modelAtom{typ: "reject"})
			default:
				out = append(out, modelAtom{"signed", [][]int{{0}, {1}, {0, 1}}[r.IntN(3)], ids[r.IntN(len(ids))]})
			}
		}
		return out
	}
	p := modelPolicy{"default": atoms()}
	for range r.IntN(4) {
		p[scopes[r.IntN(len(scopes))]] = atoms()
	}
	return p
}

// TestModel compares Compare with the model: at each scope it never denies a difference of an image that is decided
// there, and where no other scope takes images away, and remapping is not in play, it never claims one that isn't
// there.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sigs, images := modelSigs(), modelImages()
	seen := map[Relation]int{}
	for range 6_000 {
		ma, mb := randomPolicy(r), randomPolicy(r)
		if r.IntN(3) == 0 { // policies that are mostly the same are what people compare
			mb = modelPolicy{}
			for k, v := range ma {
				mb[k] = v
			}
			for k, v := range randomPolicy(r) {
				if r.IntN(2) == 0 {
					mb[k] = v
				}
			}
		}
		a, err := Parse([]byte(ma.json()), nil, now)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse([]byte(mb.json()), nil, now)
		if err != nil {
			t.Fatal(err)
		}
		union := modelPolicy{}
		for scope := range ma {
			union[scope] = nil
		}
		for scope := range mb {
			union[scope] = nil
		}
		report := Policies(a, b)
		if len(report.Scopes) != len(union) {
			t.Fatalf("%d scopes, want %d", len(report.Scopes), len(union))
		}
		for _, s := range report.Scopes {
			seen[s.Relation]++
			name := s.Scope
			if s.Transport == "" {
				name = "default"
			}
			saysMore := s.Relation == Weaker || s.Relation == Incomparable
			saysLess := s.Relation == Stronger || s.Relation == Incomparable
			gotMore, gotLess, decided := false, false, 0
			for _, img := range images {
				if union.deciding(img) != name {
					continue
				}
				decided++
				x, y := ma[ma.deciding(img)], mb[mb.deciding(img)]
				gotMore = gotMore || more(x, y, img, sigs)
				gotLess = gotLess || more(y, x, img, sigs)
			}
			if gotMore && !saysMore || gotLess && !saysLess {
				t.Fatalf("%q: says %s (%s), but more %v, less %v\na %s\nb %s", name, s.Relation, s.Reason, gotMore, gotLess,
					ma.json(), mb.json())
			}
			if decided < 4 && !strings.ContainsAny(name, "@:") || strings.Contains(s.A+s.B, "remapIdentity") || decided == 0 {
				continue // too few images in the model to show every difference
			}
			if saysMore && !gotMore || saysLess && !gotLess {
				t.Fatalf("%q: says %s (%s), but more %v, less %v\na %s\nb %s", name, s.Relation, s.Reason, gotMore, gotLess,
					ma.json(), mb.json())
			}
		}
	}
	for _, rel := range []Relation{Equal, Weaker, Stronger, Incomparable} {
		if seen[rel] < 500 {
			t.Errorf("%s was seen %d times only", rel, seen[rel])
		}
	}
}
