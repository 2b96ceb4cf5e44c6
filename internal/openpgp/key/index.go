package key

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Index lists the public keys in key files, whether or not a mechanism can use them.
type Index struct {
	// Primary are the fingerprints of the primary keys, in file order, upper-case hex.
	Primary []string
	// ByID maps fingerprints and 16-digit key IDs of primary keys and subkeys to the primary key's fingerprint.
	ByID map[string]string
	// Kinds are version and algorithm of the primary keys, by fingerprint.
	Kinds map[string]string
}

// IndexOf lists the OpenPGP keys of versions 4 and 6 in key files, with the public halves of secret keys. Unlike Parse
// it skips damaged parts, so the result is only what the files are meant to hold. A mechanism may import more.
func IndexOf(files [][]byte) Index {
	x := Index{ByID: map[string]string{}, Kinds: map[string]string{}}
	for _, file := range files {
		if f, err := Read(file); err == nil && (f.Secret || f.Packed) {
			file = f.Binary
		}
		for _, ring := range armorBlocks(file) {
			x.add(ring)
		}
	}
	return x
}

func (x *Index) add(ring []byte) {
	primary := ""
	for len(ring) > 0 {
		tag, body, size, err := nextPacket(ring)
		if err != nil {
			return
		}
		ring = ring[size:]
		if tag != tagPublicKey && tag != tagPublicSubkey {
			continue
		}
		k, err := parseKey(body)
		if err != nil || k.Version != 4 && k.Version != 6 {
			continue
		}
		if tag == tagPublicKey {
			primary = k.Fingerprint
			if !slices.Contains(x.Primary, primary) {
				x.Primary = append(x.Primary, primary)
				x.Kinds[primary] = k.kind()
			}
		}
		x.ByID[k.Fingerprint], x.ByID[k.ID()] = primary, primary
	}
}

// kind returns for example "RSA-4096, OpenPGP v4".
func (k Key) kind() string {
	name := k.Algorithm
	switch {
	case k.algorithm == algoRSA, k.algorithm == algoDSA:
		name += fmt.Sprintf("-%d", k.Bits)
	case k.algorithm >= 30 && k.algorithm <= 34:
		name += ", post-quantum"
	}
	return fmt.Sprintf("%s, OpenPGP v%d", name, k.Version)
}

// Add adds primary keys that a mechanism found, by their fingerprints.
func (x *Index) Add(fingerprints []string) {
	for _, fpr := range fingerprints {
		if !slices.Contains(x.Primary, fpr) {
			x.Primary = append(x.Primary, fpr)
		}
		x.ByID[fpr] = fpr
		switch len(fpr) {
		case 40:
			x.ByID[fpr[24:]] = fpr
		case 64:
			x.ByID[fpr[:16]] = fpr
		}
	}
}

// Version6 names the primary keys of OpenPGP version 6 with their algorithms, or "". gpg 2.2 (of RHEL 8 and 9, and
// Debian 12) can't read them.
func (x Index) Version6() string {
	var out []string
	for _, fpr := range x.Primary {
		if len(fpr) == 64 {
			out = append(out, fpr+" ("+x.Kinds[fpr]+")")
		}
	}
	return strings.Join(out, ", ")
}

// Public returns a key file for a mechanism: OpenPGP secret keys become their public halves. Runtimes use no more; gpg
// would start an agent for the secret parts, and fail without one.
func Public(file []byte) []byte {
	f, err := Read(file)
	if err != nil || !f.Secret || f.Packed || f.Kind != OpenPGP {
		return file
	}
	return f.Binary
}

// Join returns one key file of several for a mechanism: armored blocks as binary, and keys of version 6 last, because
// gpg 2.2 drops what follows them.
func Join(files [][]byte) []byte {
	var rings [][]byte
	for _, f := range files {
		rings = append(rings, armorBlocks(Public(f))...)
	}
	slices.SortStableFunc(rings, func(a, b []byte) int { return maxVersion(a) - maxVersion(b) })
	return bytes.Join(rings, nil)
}

// maxVersion returns 6 for a ring with keys of version 6, else 4.
func maxVersion(ring []byte) int {
	x := Index{ByID: map[string]string{}, Kinds: map[string]string{}}
	if x.add(ring); x.Version6() != "" {
		return 6
	}
	return 4
}
