package sources

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/audit"
)

// FuzzDocuments: a catalog of anything ends, without a panic, and gives bundles only.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"schema":"olm.bundle","name":"a","image":"q.io/a:1"}{"schema":"olm.package","name":1}`))
	f.Add([]byte("---\nschema: olm.bundle\nrelatedImages: [{image: q.io/a}]\n---\nx: &a [*a]\n"))
	f.Add([]byte(aliasBomb))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = documents(bytes.NewReader(b), func(d bundle) error {
			if n++; n > len(b)+1 {
				t.Fatal("more documents than bytes")
			}
			if d.Schema == "" && (d.Image != "" || len(d.Related) > 0) {
				t.Fatalf("%+v is no bundle", d)
			}
			return nil
		})
	})
}

// FuzzStaticPod: whatever a file of a static pod holds, uses that get through can be shown.
func FuzzStaticPod(f *testing.F) {
	f.Add([]byte("kind: Pod\nmetadata: {name: a}\nspec: {containers: [{image: q.io/a}]}\n"))
	f.Add([]byte(`{"kind":"PodList","items":[{"spec":{"volumes":[{"image":{"reference":"x"}}]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := checked{"fuzz", listed(func(yield func(audit.Use) error) error {
			return staticSource{node: "n"}.file(b, yield)
		})}
		_ = c.Uses(t.Context(), func(u audit.Use) error {
			if u.Image == "" || len(u.Image) > maxReference || strings.ContainsAny(u.Image+u.By, "\x1b\n\x00") {
				t.Fatalf("%+v", u)
			}
			return errors.ErrUnsupported
		})
	})
}

// listed is a Source of a function.
type listed func(yield func(audit.Use) error) error

func (l listed) Uses(_ context.Context, yield func(audit.Use) error) error { return l(yield) }
