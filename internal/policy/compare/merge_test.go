package compare

import (
	"errors"
	"math/rand/v2"
	"testing"

	"go.podman.io/image/v5/signature"

	"github.com/nodetrust/nodetrust/internal/policy"
)

// TestMerge merges random policies: the result demands what each does and no more, and the image library loads it.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	sigs, images := modelSigs(), modelImages()
	for range 1500 {
		ma, mb := randomPolicy(r), randomPolicy(r)
		a, b := []byte(ma.json()), []byte(mb.json())
		m, err := policy.Merge(a, b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signature.NewPolicyFromBytes(m); err != nil {
			t.Fatalf("%v: %s", err, m)
		}
		pm, err := Parse(m, nil, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range [][]byte{a, b} {
			po, err := Parse(other, nil, now)
			if err != nil {
				t.Fatal(err)
			}
			if rep := Policies(po, pm); rep.Relation != Equal && rep.Relation != Stronger {
				t.Fatalf("%s\nof %s\nand %s\nis %s", m, a, b, rep.Relation)
			}
		}
		// What both accept is still accepted: the policy is not just strong.
		for _, img := range images {
			x, y := ma[ma.deciding(img)], mb[mb.deciding(img)]
			both := append(append([]modelAtom{}, x...), y...)
			var rm requirements
			rm, _ = pm.At(policy.Place{Transport: "docker", Scope: img.ref})
			if got, want := !refuses(rm), len(minimal(both, img, sigs)) > 0; want && !got {
				t.Fatalf("%s is refused by the merge of\n%s\n%s", img.ref, a, b)
			}
		}
	}
}

func refuses(r requirements) bool {
	for _, q := range r {
		if q.kind == never {
			return true
		}
	}
	return false
}

func TestMerge_bothKinds(t *testing.T) {
	gpg := `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"a.b/c":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]}}}`
	sigstore := `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"a.b":[{"type":"sigstoreSigned","keyPath":"/k"}]}}}`
	if _, err := policy.Merge([]byte(gpg), []byte(sigstore)); !errors.Is(err, policy.ErrBothKinds) {
		t.Errorf("got %v", err)
	}
	if _, err := policy.Merge([]byte(gpg), []byte("{")); err == nil {
		t.Error("merged with nothing")
	}
}
