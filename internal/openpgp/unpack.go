package openpgp

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// MaxUnpacked bounds the content of a signature's compressed packets together, in bytes. Container signatures have
// some hundred bytes of JSON.
const MaxUnpacked = 1 << 20

const maxNested = 8

// CheckUnpacked returns an error if a signature holds more than limit bytes unpacked: a mechanism unpacks it into
// memory, to a thousand times its size, and with bzip2 a million times. It judges nothing else, and leaves bytes that
// are no packets to the mechanism, which stops at them too.
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
		body, err := content(p)
		if err != nil {
			return nil
		}
		if depth == maxNested {
			return fmt.Errorf("compressed more than %d times", maxNested)
		}
		in, _ := io.ReadAll(io.LimitReader(body, *left+1)) // a damaged end is the mechanism's to find
		if *left -= int64(len(in)); *left < 0 {
			return fmt.Errorf("compressed, and more than %d bytes inside", limit)
		}
		if err := unpack(in, left, limit, depth+1); err != nil {
			return err
		}
	}
}
