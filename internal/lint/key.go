package lint

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
)

// soon is how long before its end an expiring key is worth a warning.
const soon = 30 * 24 * time.Hour

// key lints key material, which stands or is named at a place.
func (l *linter) key(data []byte, at place) *key.File {
	f, err := key.Read(data)
	const needless = "a node needs the public key only: gpg --export"
	switch {
	case errors.Is(err, key.ErrSecret):
		l.add("key-secret", at, "%v", err).Hint = needless
		return nil
	case err == nil && f.Secret: // readers take the public halves
		l.add("key-secret", at, "%v: who can read the file can sign", key.ErrSecret).Hint = needless
	case errors.Is(err, key.ErrNoKey):
		l.add("key-unreadable", at, "%v", err).Hint = "every image that needs this key is refused"
		return nil
	case err != nil:
		l.add("key-unreadable", at, "%v", err)
		return nil
	}
	l.addIf(f.Kind == key.OpenPGP && f.Blocks > 1, "key-several-blocks", at,
		"has %d armor blocks: readers without gpgme take the first one only", f.Blocks)
	l.addIf(f.Packed, "key-packed", at, "is compressed: GnuPG unpacks it, readers without gpgme find no key")
	l.addIf(f.Preamble, "key-preamble", at, "there is text before the key")
	l.v6(f, at)
	usable, strong := 0, 0
	for _, k := range f.Keys {
		if !k.Revoked && !k.Expired(l.now) {
			usable++
			if !breakable(k) {
				strong++
			}
		}
	}
	for _, k := range f.Keys {
		l.oneKey(k, usable > 0, strong > 0, at)
	}
	return f
}

// breakable reports whether the key is so short that it may be forged.
func breakable(k key.Key) bool {
	return (k.Algorithm == "RSA" || k.Algorithm == "DSA") && k.Bits > 0 && k.Bits < 2048
}

// PolicyKeys returns the OpenPGP keys that a policy.json names and that can be read below root, each once.
func PolicyKeys(data []byte, root string) []key.Key {
	var quiet linter
	var out []key.Key
	seen := map[string]bool{}
	for _, k := range quiet.policy(file{data: data}).keys {
		if !k.gpg {
			continue
		}
		if k.path != "" {
			var err error
			if k.data, err = keysOfHost(root).ReadFile(k.path, maxKeyFile); err != nil {
				continue
			}
		}
		f, err := key.Read(k.data)
		if err != nil {
			continue
		}
		for _, key := range f.Keys {
			if !seen[key.Fingerprint] {
				seen[key.Fingerprint] = true
				out = append(out, key)
			}
		}
	}
	return out
}

// oneKey checks a key. A dead key beside usable ones is only a warning, and so is a breakable one beside strong ones.
func (l *linter) oneKey(k key.Key, usable, strong bool, at place) {
	dead := Error
	if usable {
		dead = Warning
	}
	name := "key " + k.Fingerprint
	switch {
	case k.Revoked:
		l.add("key-revoked", at, "%s is revoked", name).Severity = dead
	case k.Expired(l.now):
		bad := l.add("key-expired", at, "%s expired on %s", name, k.Expires.UTC().Format(time.DateOnly))
		bad.Severity, bad.Hint = dead, "signatures made with it before may be refused as well"
	case !k.Expires.IsZero() && k.Expires.Sub(l.now) < soon:
		l.add("key-expires-soon", at, "%s expires on %s", name, k.Expires.UTC().Format(time.DateOnly))
	}
	l.addIf(k.WeakHash != "", "key-sha1", at, "%s vouches for itself with %s: readers with a strict policy, Sequoia for one, may not take it",
		name, k.WeakHash)
	l.addIf(k.Version == 3, "key-v3", at, "%s is an OpenPGP v3 key, which readers ignore", name)
	l.addIf(postQuantum(k), "key-pqc", at, "%s is a post-quantum key (%s): neither GnuPG 2.2 nor the image library can verify with it",
		name, k.Algorithm)
	if rsa := k.Algorithm == "RSA" || k.Algorithm == "DSA"; rsa && k.Bits < 3072 && k.Bits > 0 {
		sev := Warning
		if breakable(k) && !strong {
			sev = Error
		}
		l.add("key-weak", at, "%s is %s-%d; at least 3072 bits are recommended", name, k.Algorithm, k.Bits).Severity = sev
	}
}

// v6 warns of OpenPGP v6 keys, as Red Hat's post-quantum release key is one. GnuPG 2.2, which gpgme readers use,
// gives up on a file at the first of them: it forgets the key before it, and all that follow are not read. That is so
// for one binary ring and for several armor blocks alike.
func (l *linter) v6(f *key.File, at place) {
	first := slices.IndexFunc(f.Keys, func(k key.Key) bool { return k.Version == 6 })
	if first < 0 {
		return
	}
	name := fmt.Sprintf("key %s (%s)", f.Keys[first].Fingerprint, f.Keys[first].Algorithm)
	const hint = "leave it out: gpg --export the others. What trust.yaml ships with file: has it left out"
	if first < 2 {
		l.add("key-v6", at, "%s is an OpenPGP v6 key: GnuPG 2.2 imports nothing of this file, and every image that needs it is refused", name).Hint = hint
		return
	}
	var lost []string
	for _, k := range append(slices.Clone(f.Keys[first-1:first]), f.Keys[first+1:]...) {
		lost = append(lost, k.Fingerprint)
	}
	bad := l.add("key-v6", at, "%s is an OpenPGP v6 key: GnuPG 2.2 drops it together with %s", name,
		strings.Join(lost, ", "))
	bad.Severity, bad.Hint = Warning, hint
}

// postQuantum reports whether nothing that reads policies today can verify signatures of such a key.
func postQuantum(k key.Key) bool {
	return strings.HasPrefix(k.Algorithm, "ML-DSA") || strings.HasPrefix(k.Algorithm, "SLH-DSA")
}
