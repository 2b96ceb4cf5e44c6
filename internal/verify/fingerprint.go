package verify

import (
	"path/filepath"
	"time"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/verify/fingerprint"
)

// Fingerprint is a hash of all that verdicts depend on and that can be known beforehand: policy.json, registries.d,
// registries.conf, certificates, the bytes of all keys, the options, this program with the libraries in it, the OpenPGP
// mechanism and its gpg. Where it is the same, a manifest with the same signatures gets the same verdict. It holds no
// secret, but may not be given away: credentials are in it.
//
// Until is when the first of the keys expires, now if that can't be told of one, and zero if none will. From then on
// verdicts differ.
func (j *Judge) Fingerprint(now time.Time) (sum string, until time.Time, err error) {
	f := fingerprint.New()
	f.Add("platform", j.sys.OSChoice, j.sys.ArchitectureChoice, j.sys.VariantChoice)
	f.Add("limits", j.maxSignatures, j.maxSize)
	f.Add("tls", j.sys.DockerInsecureSkipTLSVerify)
	f.Add("authfile", j.authFile)
	if j.certDir != "" {
		if err := f.Tree("cert-dir", j.certDir); err != nil {
			return "", time.Time{}, err
		}
	}
	f.Add("policy", j.policy.Document)
	for r := range j.policy.Document.Requirements() {
		for _, s := range r.KeySources() {
			for _, path := range s.Files() {
				data, err := j.policy.ReadKey(path)
				if err != nil {
					f.Add("key", path, "error", err.Error())
					continue
				}
				f.Add("key", path, data)
				until = earlier(until, expiry(data, now))
			}
			for _, data := range s.Inline() { // hashed with the policy
				until = earlier(until, expiry(data, now))
			}
		}
	}
	for _, part := range []string{"registries.conf", "registries.conf.d", "merged.d", "certs.d"} {
		if err := f.Tree(part, filepath.Join(j.policy.Temp, part)); err != nil {
			return "", time.Time{}, err
		}
	}
	sum, err = f.Sum()
	return sum, until, err
}

// expiry returns when the first of the keys in a file expires, zero if none will: now if that can't be told.
func expiry(data []byte, now time.Time) (first time.Time) {
	file, err := key.Read(data)
	if err != nil { // what of it a mechanism takes is not known
		return now
	}
	for _, k := range file.Keys {
		for _, k := range append([]key.Key{k}, k.Subkeys...) {
			if k.Expires.After(now) {
				first = earlier(first, k.Expires)
			}
		}
	}
	return first
}

// earlier returns the first of two times, where the zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
