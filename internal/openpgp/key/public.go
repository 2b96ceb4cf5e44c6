package key

import (
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/nodetrust/nodetrust/internal/bounded"
)

const maxPacked = 4

// expose replaces secret keys in Binary by their public halves, and compressed packets by their content. It leaves
// unreadable parts for parsePackets to name.
func (f *File) expose() {
	e := exposing{left: MaxFile}
	if err := e.packets(f.Binary, 0); err != nil {
		return
	}
	if e.secret || e.packed {
		f.Binary, f.Secret, f.Packed = e.out, f.Secret || e.secret, e.packed
	}
}

type exposing struct {
	out            []byte
	left           int // bytes that may be unpacked
	secret, packed bool
}

func (e *exposing) packets(data []byte, depth int) error {
	for len(data) > 0 {
		tag, body, size, err := nextPacket(data)
		if err != nil {
			return err
		}
		switch tag {
		case tagSecretKey, tagSecretSubkey:
			public, ok := publicHalf(body)
			if !ok {
				return ErrSecret
			}
			e.secret = true
			e.add(map[int]byte{tagSecretKey: tagPublicKey, tagSecretSubkey: tagPublicSubkey}[tag], public)
		case tagCompressed:
			if err := e.unpack(body, depth); err != nil {
				return err
			}
		default:
			e.out = append(e.out, data[:size]...)
		}
		data = data[size:]
	}
	return nil
}

func (e *exposing) add(tag byte, body []byte) {
	e.out = binary.BigEndian.AppendUint32(append(e.out, 0xc0|tag, 0xff), uint32(len(body)))
	e.out = append(e.out, body...)
}

func (e *exposing) unpack(body []byte, depth int) error {
	if len(body) == 0 {
		return errTruncated
	}
	if depth == maxPacked {
		return fmt.Errorf("is compressed more than %d times", maxPacked)
	}
	e.packed = true
	in := io.Reader(bytes.NewReader(body[1:]))
	var err error
	switch body[0] {
	case 0:
	case 1:
		in = flate.NewReader(in)
	case 2:
		in, err = zlib.NewReader(in)
	case 3:
		in = bzip2.NewReader(in)
	default:
		err = fmt.Errorf("is compressed by algorithm %d", body[0])
	}
	if err != nil {
		return err
	}
	b, err := bounded.Read(in, int64(e.left))
	if err != nil {
		return err
	}
	e.left -= len(b)
	return e.packets(b, depth+1)
}

// publicHalf returns the public half at the start of a secret key packet's body, which is the body of the public key's
// packet; ok is false if its end is unknown.
func publicHalf(body []byte) (public []byte, ok bool) {
	if len(body) < 6 {
		return nil, false
	}
	head, alg := 6, body[5]
	switch body[0] {
	case 2, 3:
		if len(body) < 8 {
			return nil, false
		}
		head, alg = 8, body[7]
	case 4:
	case 5, 6: // the length of the public numbers stands before them
		if len(body) < 10 {
			return nil, false
		}
		n := uint64(binary.BigEndian.Uint32(body[6:]))
		if n > uint64(len(body)-10) {
			return nil, false
		}
		return body[:10+n], true
	default:
		return nil, false
	}
	rest, ok := skipPublic(alg, body[head:])
	return body[:len(body)-len(rest)], ok
}

// skipPublic returns what follows the public numbers of a key of this algorithm.
func skipPublic(alg byte, b []byte) (rest []byte, ok bool) {
	a := algorithms[alg]
	if a.mpis+a.fixed == 0 {
		return nil, false
	}
	skip := func(n int) {
		if ok = ok && n <= len(b); ok {
			b = b[n:]
		}
	}
	counted := func() { // a byte with the length of what follows
		if ok = ok && len(b) > 0; ok {
			skip(1 + int(b[0]))
		}
	}
	ok = true
	skip(a.fixed)
	if a.curve {
		counted()
	}
	for range a.mpis {
		if ok = ok && len(b) >= 2; ok {
			skip(2 + (int(binary.BigEndian.Uint16(b))+7)/8)
		}
	}
	if a.kdf {
		counted()
	}
	return b, ok
}
