package openpgp

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/image"
)

// TestMessageIn compares with the library, which reads the files as the signatures of a directory image.
func TestMessageIn(t *testing.T) {
	files := [][]byte{
		{},
		[]byte("\x00simple-signing\nabc"), []byte("\x00simple-signing\n"), []byte("\x00simple-signing"),
		[]byte("\x00Simple-signing\nabc"),
		[]byte("\x00simple-signing \nabc"), []byte("\x00simple-signing\n\xc4abc"), []byte("\x00other\nabc"),
		[]byte("\x00\xffb\nabc"), []byte("\x00\n\xc4"),
		[]byte("\x00sigstore-json\n{\"mimeType\":\"a\",\"payload\":\"\",\"annotations\":{}}"),
		[]byte("-----BEGIN PGP MESSAGE-----\n"), []byte(" \xc4abc"),
	}
	for first := range 256 {
		files = append(files, []byte{byte(first), 'a', 'b', 'c'}, []byte{byte(first)})
	}
	dir := t.TempDir()
	ref, err := directory.NewReference(dir)
	if err != nil {
		t.Fatal(err)
	}
	src, err := ref.NewImageSource(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	taken := 0
	for _, file := range files {
		if err := os.WriteFile(filepath.Join(dir, "signature-1"), file, 0o600); err != nil {
			t.Fatal(err)
		}
		var want []byte
		ok := false
		if list, err := image.UnparsedInstance(src, nil).UntrustedSignatures(t.Context()); err == nil {
			if s, simple := any(list[0]).(interface{ UntrustedSignature() []byte }); simple {
				want, ok = s.UntrustedSignature(), true
				taken++
			}
		}
		got, err := MessageIn(file)
		if ok != (err == nil) || !bytes.Equal(got, want) {
			t.Errorf("%q: %q, %v; the library takes %q (%t)", file, got, err, want, ok)
		}
	}
	if taken < 28 {
		t.Errorf("the library takes only %d", taken)
	}
}
