// Package layer reads a layer of an image as a tar stream, within limits, and proves its digest.
package layer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// Open reads a layer with this digest as a tar stream: reading the stream to io.EOF proves the digest, which until then
// is not known. Of body at most packed bytes are read, and of the stream at most unpacked. Close closes body.
func Open(body io.ReadCloser, want digest.Digest, packed, unpacked int64) (io.ReadCloser, error) {
	l := &layer{Closer: body, want: want, verifier: want.Verifier()}
	l.stored = &limited{r: io.TeeReader(body, l.verifier), left: packed, what: "layer " + want.String()}
	stream, err := gunzip(l.stored)
	if err != nil {
		body.Close()
		return nil, fmt.Errorf("unpacking layer %s: %w", want, err)
	}
	l.unpacked = &limited{r: stream, left: unpacked, what: "unpacked layer " + want.String()}
	return l, nil
}

// gunzip reads a stream that is packed by gzip, or not at all. The image library's own unpacking would bring in all
// of its storage; other formats are rare, and none that a release image has.
func gunzip(r io.Reader) (io.Reader, error) {
	in := bufio.NewReader(r)
	head, err := in.Peek(4)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(in)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, errors.New("it is packed by zstd, which is not read here")
	}
	return in, nil
}

// layer is a layer that is being read.
type layer struct {
	io.Closer
	want             digest.Digest
	verifier         digest.Verifier
	stored, unpacked io.Reader
}

func (l *layer) Read(p []byte) (int, error) {
	n, err := l.unpacked.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	// What a decompressor leaves unread is part of the blob too.
	if _, err := io.Copy(io.Discard, l.stored); err != nil {
		return n, err
	}
	if !l.verifier.Verified() {
		return n, fmt.Errorf("layer %s has another content than its digest says", l.want)
	}
	return n, io.EOF
}

// limited is an error when r has more than left bytes.
type limited struct {
	r    io.Reader
	left int64
	what string
}

func (b *limited) Read(p []byte) (n int, err error) {
	if b.left >= 0 {
		n, err = b.r.Read(p[:min(int64(len(p)), b.left+1)])
		b.left -= int64(n)
	}
	if b.left < 0 {
		return n, fmt.Errorf("%s is larger than is read", b.what)
	}
	return n, err
}
