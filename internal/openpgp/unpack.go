package openpgp

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// MaxUnpacked bounds what compressed packets of a signature hold together, in bytes. Container signatures have some
// hundred bytes of JSON.
const MaxUnpacked = 1 << 20

// maxNested bounds how many compressed packets are inside of each other.
const maxNested = 8

// CheckUnpacked reports a signature that holds more than limit bytes when it is unpacked: the mechanism would unpack
// all of it into memory, which can be a thousand times as much, and for bzip2 a million times. Nothing else is
// judged; bytes that are no packets are left to the mechanism, which stops at them too.
func CheckUnpacked(sig []byte, limit int) error {
	left := int64(limit)
	return unpack(sig, &left, limit, 0)
}

func unpack(b []byte, left *int64, limit, depth int) error {
	packets := packet.NewOpaqueReader(bytes.NewReader(b))
	for {
		p, err := packets.Next()
		if err != nil {
			return nil
		}
		if p.Tag != tagCompressed {
			continue
		}
		parsed, err := p.Parse()
		if err != nil {
			return nil
		}
		z, ok := parsed.(*packet.Compressed)
		if !ok {
			return nil
		}
		if depth == maxNested {
			return fmt.Errorf("compressed more than %d times", maxNested)
		}
		in, _ := io.ReadAll(io.LimitReader(z.Body, *left+1)) // a damaged end is the mechanism's to find
		if *left -= int64(len(in)); *left < 0 {
			return fmt.Errorf("compressed, and more than %d bytes inside", limit)
		}
		if err := unpack(in, left, limit, depth+1); err != nil {
			return err
		}
	}
}
