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

// key lints key material. where is put before messages; file and line name the place of the finding.
func (l *linter) key(data []byte, file string, line int, where string) *key.File {
	add := func(sev Severity, code Code, msg, hint string) {
		if where != "" {
			msg = where + ": " + msg
		}
		l.add(Finding{Severity: sev, Code: code, File: file, Line: line, Message: msg, Hint: hint})
	}
	f, err := key.Read(data)
	const needless = "a node needs the public key only: gpg --export"
	switch {
	case errors.Is(err, key.ErrSecret):
		add("", "key-secret", err.Error(), needless)
		return nil
	case err == nil && f.Secret: // readers take the public halves
		add("", "key-secret", key.ErrSecret.Error()+": who can read the file can sign", needless)
	case errors.Is(err, key.ErrNoKey):
		add("", "key-unreadable", err.Error(), "every image that needs this key is refused")
		return nil
	case err != nil:
		add("", "key-unreadable", err.Error(), "")
		return nil
	}
	if f.Kind == key.OpenPGP && f.Blocks > 1 {
		add("", "key-several-blocks", fmt.Sprintf("has %d armor blocks: readers without gpgme take the first one only",
			f.Blocks), "write the keys into one block: gpg --export --armor")
	}
	if f.Packed {
		add("", "key-packed", "is compressed: GnuPG unpacks it, readers without gpgme find no key",
			"write it anew: gpg --export")
	}
	if f.Preamble {
		add("", "key-preamble", "there is text before the key", "readers skip it so far")
	}
	l.v6(f, add)
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
		l.oneKey(k, usable > 0, strong > 0, add)
	}
	return f
}

// breakable reports whether the key is so short that it may be forged.
func breakable(k key.Key) bool {
	return (k.Algorithm == "RSA" || k.Algorithm == "DSA") && k.Bits > 0 && k.Bits < 2048
}

// PolicyKeys returns the OpenPGP keys that a policy.json names, each once, with paths looked up below root. What
// can't be read is left out.
func PolicyKeys(data []byte, root string) []key.Key {
	var quiet linter
	var out []key.Key
	seen := map[string]bool{}
	for _, k := range quiet.policy(data, "").keys {
		if !k.gpg {
			continue
		}
		if k.path != "" {
			var err error
			if k.data, err = hostSource(root).read(k.path, maxKeyFile); err != nil {
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
func (l *linter) oneKey(k key.Key, usable, strong bool, add func(sev Severity, code Code, msg, hint string)) {
	dead := Error
	if usable {
		dead = Warning
	}
	name := "key " + k.Fingerprint
	switch {
	case k.Revoked:
		add(dead, "key-revoked", name+" is revoked", "")
	case k.Expired(l.now):
		add(dead, "key-expired", fmt.Sprintf("%s expired on %s", name, k.Expires.UTC().Format(time.DateOnly)),
			"signatures made with it before may be refused as well")
	case !k.Expires.IsZero() && k.Expires.Sub(l.now) < soon:
		add("", "key-expires-soon", fmt.Sprintf("%s expires on %s", name, k.Expires.UTC().Format(time.DateOnly)), "")
	}
	if k.WeakHash != "" {
		add("", "key-sha1", fmt.Sprintf("%s vouches for itself with %s: readers with a strict policy, Sequoia for one, may not take it", name, k.WeakHash), "ask its owner for the key with a newer self-signature")
	}
	if k.Version == 3 {
		add("", "key-v3", name+" is an OpenPGP v3 key, which readers ignore", "")
	}
	if postQuantum(k) {
		add("", "key-pqc", fmt.Sprintf("%s is a post-quantum key (%s): neither GnuPG 2.2 nor the image library can verify with it", name, k.Algorithm), "images need a signature by another key as well")
	}
	if rsa := k.Algorithm == "RSA" || k.Algorithm == "DSA"; rsa && k.Bits < 3072 && k.Bits > 0 {
		sev := Warning
		if breakable(k) && !strong {
			sev = Error
		}
		add(sev, "key-weak", fmt.Sprintf("%s is %s-%d; at least 3072 bits are recommended", name, k.Algorithm, k.Bits), "")
	}
}

// v6 warns of OpenPGP v6 keys, as Red Hat's post-quantum release key is one. GnuPG 2.2, which gpgme readers use,
// gives up on a file at the first of them: it forgets the key before it, and all that follow are not read. That is so
// for one binary ring and for several armor blocks alike.
func (l *linter) v6(f *key.File, add func(sev Severity, code Code, msg, hint string)) {
	first := slices.IndexFunc(f.Keys, func(k key.Key) bool { return k.Version == 6 })
	if first < 0 {
		return
	}
	name := fmt.Sprintf("key %s (%s)", f.Keys[first].Fingerprint, f.Keys[first].Algorithm)
	const hint = "leave it out: gpg --export the others. What trust.yaml ships with file: has it left out"
	if first < 2 {
		add(Error, "key-v6", name+" is an OpenPGP v6 key: GnuPG 2.2 imports nothing of this file, and every image that needs it is refused", hint)
		return
	}
	var lost []string
	for _, k := range append(slices.Clone(f.Keys[first-1:first]), f.Keys[first+1:]...) {
		lost = append(lost, k.Fingerprint)
	}
	add(Warning, "key-v6", fmt.Sprintf("%s is an OpenPGP v6 key: GnuPG 2.2 drops it together with %s", name,
		strings.Join(lost, ", ")), hint)
}

// postQuantum reports whether nothing that reads policies today can verify signatures of such a key.
func postQuantum(k key.Key) bool {
	return strings.HasPrefix(k.Algorithm, "ML-DSA") || strings.HasPrefix(k.Algorithm, "SLH-DSA")
}
