package verify

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// maxUnpacked bounds what compressed packets of a signature hold together, in bytes, and maxNested how many are inside
// of each other. Container signatures have some hundred bytes of JSON.
const (
	maxUnpacked = 1 << 20
	maxNested   = 8
)

// checkUnpacked reports a signature that holds more than limit bytes when it is unpacked: the mechanism would unpack all
// of it into memory, which can be a thousand times as much, and for bzip2 a million times. Nothing else is judged; bytes
// that are no packets are left to the mechanism, which stops at them too.
func checkUnpacked(sig []byte, limit int) error {
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
			return &tooMuchError{fmt.Errorf("compressed more than %d times", maxNested)}
		}
		in, _ := io.ReadAll(io.LimitReader(z.Body, *left+1)) // a damaged end is the mechanism's to find
		if *left -= int64(len(in)); *left < 0 {
			return &tooMuchError{fmt.Errorf("compressed, and more than %d bytes inside", limit)}
		}
		if err := unpack(in, left, limit, depth+1); err != nil {
			return err
		}
	}
}
