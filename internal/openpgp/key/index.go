package key

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Index is the public keys in key files, whether or not a mechanism can use them.
type Index struct {
	// Primary are the fingerprints of the primary keys, in file order, upper-case hex.
	Primary []string
	// ByID maps fingerprints and 16-digit key IDs of primary keys and subkeys to the primary key's fingerprint.
	ByID map[string]string
	// Kinds are version and algorithm of the primary keys, by fingerprint.
	Kinds map[string]string
}

// IndexOf lists the OpenPGP keys of versions 4 and 6 in key files; of secret keys their public halves. It is more
// lenient than Parse: what is damaged is skipped, so a result says only what the files are meant to hold. A mechanism
// may import more.
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

// kind says what a key is, for example "RSA-4096, OpenPGP v4".
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

// Add adds primary keys by their fingerprints: those that a mechanism found.
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

// Version6 names the primary keys of OpenPGP version 6, which gpg 2.2 (that of RHEL 8 and 9, and Debian 12) can't
// read, with their algorithms; "" if there are none.
func (x Index) Version6() string {
	var out []string
	for _, fpr := range x.Primary {
		if len(fpr) == 64 {
			out = append(out, fpr+" ("+x.Kinds[fpr]+")")
		}
	}
	return strings.Join(out, ", ")
}

// Public returns a key file as a mechanism is to get it: with the public halves alone of OpenPGP secret keys. Runtimes
// use no more of them; gpg would start an agent for the rest, and go wrong without one. A file without secret keys is
// returned as it is.
func Public(file []byte) []byte {
	f, err := Read(file)
	if err != nil || !f.Secret || f.Packed || f.Kind != OpenPGP {
		return file
	}
	return f.Binary
}

// Join returns one key file of several, as a mechanism takes it: armored blocks are joined as binary, keys of version 6
// last, because gpg 2.2 drops what follows them.
func Join(files [][]byte) []byte {
	var rings [][]byte
	for _, f := range files {
		rings = append(rings, armorBlocks(Public(f))...)
	}
	slices.SortStableFunc(rings, func(a, b []byte) int { return maxVersion(a) - maxVersion(b) })
	return bytes.Join(rings, nil)
}

// maxVersion returns 6 for a ring with keys of version 6, 4 for others.
func maxVersion(ring []byte) int {
	x := Index{ByID: map[string]string{}, Kinds: map[string]string{}}
	if x.add(ring); x.Version6() != "" {
		return 6
	}
	return 4
}
