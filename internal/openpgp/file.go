package openpgp

import (
	"bytes"
	"errors"
	"fmt"
)

// MessageIn returns the OpenPGP message in a signature file as readers do: they look at the first byte before a
// mechanism sees the file. So armored and clear-signed messages are errors. The image library's reader is private; a
// test compares the two.
func MessageIn(file []byte) ([]byte, error) {
	const simple = "\x00simple-signing\n" // what newer library versions may write before it
	if rest, ok := bytes.CutPrefix(file, []byte(simple)); ok {
		return rest, nil
	}
	if len(file) == 0 {
		return nil, errors.New("empty signature")
	}
	switch file[0] {
	case 0xa0, 0xa1, 0xa2, 0xa3, 0xc8, // compressed data
		0x90, 0x91, 0x92, 0xc4, // a one-pass signature
		0x3d,                         // the library means 0x93 by it, which it doesn't take
		0x88, 0x89, 0x8a, 0x8b, 0xc2: // a signature
		return file, nil
	}
	return nil, fmt.Errorf("unrecognized signature format, starting with binary %#x", file[0])
}
