package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// Fingerprint is a hash of all that verdicts depend on and that can be known beforehand: policy.json, registries.d,
// registries.conf, certificates, the bytes of all keys, the options, this program with the libraries in it, the OpenPGP
// mechanism and its gpg. Where it is the same, a manifest with the same signatures gets the same verdict. It holds no
// secret, but may not be given away: credentials are in it.
//
// Until is when the first of the keys expires, now if that can't be told of one, and zero if none will. From then on
// verdicts differ.
func (j *Judge) Fingerprint(now time.Time) (sum string, until time.Time, err error) {
	p := j.policy
	f := &hashing{h: sha256.New(), policy: p, now: now}
	f.program()
	if err := f.settings(&j.settings); err != nil {
		return "", time.Time{}, err
	}
	if err := f.json("policy", p.doc); err != nil {
		return "", time.Time{}, err
	}
	for r := range p.doc.Requirements() {
		for _, s := range r.KeySources() {
			f.keys(s)
		}
	}
	for _, part := range []string{"registries.conf", "registries.conf.d", "merged.d", "certs.d"} {
		if err := f.tree(part, filepath.Join(p.tmp, part)); err != nil {
			return "", time.Time{}, err
		}
	}
	return hex.EncodeToString(f.h.Sum(nil)), f.until, nil
}

type hashing struct {
	h      hash.Hash
	policy *Policy
	now    time.Time
	until  time.Time
}

// add hashes values so that no two lists of them look the same.
func (f *hashing) add(values ...string) {
	fmt.Fprintf(f.h, "%d\n", len(values))
	for _, v := range values {
		fmt.Fprintf(f.h, "%d %s\n", len(v), v)
	}
}

func (f *hashing) json(what string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f.add(what, string(b))
	return nil
}

// program is this program, and the gpg that judges for it.
func (f *hashing) program() {
	f.add("mechanism", mechanism.Name)
	if info, ok := debug.ReadBuildInfo(); ok {
		f.add("build", info.String())
	}
	if exe, err := os.Executable(); err == nil {
		f.file("program", exe)
	}
	if mechanism.Name != "gpgme" {
		return
	}
	if gpg, err := exec.LookPath("gpg"); err == nil {
		f.file("gpg", gpg)
	}
	f.add("engine", mechanism.Engine())
	_ = f.tree("gpg.conf", "/etc/gnupg/gpg.conf") // which gpg 2.3 and later read whatever the home
}

// file stands for a program, whose bytes would take too long.
func (f *hashing) file(what, path string) {
	if st, err := os.Stat(path); err == nil {
		f.add(what, path, fmt.Sprint(st.Size()), st.ModTime().String())
	}
}

func (f *hashing) settings(s *settings) error {
	f.add("platform", s.sys.OSChoice, s.sys.ArchitectureChoice, s.sys.VariantChoice)
	f.add("limits", fmt.Sprint(s.maxSignatures), fmt.Sprint(s.maxSize))
	f.add("tls", fmt.Sprint(s.sys.DockerInsecureSkipTLSVerify))
	if s.authFile != nil {
		f.add("authfile", string(s.authFile))
	}
	if s.certDir != "" {
		return f.tree("cert-dir", s.certDir)
	}
	return nil
}

// keys hashes the files that a requirement names, and notes when the keys expire. Keys that stand in the policy are
// hashed with it already.
func (f *hashing) keys(s policy.KeySource) {
	for _, path := range s.Files() {
		data, err := f.policy.readKey(path)
		if err != nil {
			f.add("key", path, "error", err.Error())
			continue
		}
		f.add("key", path, string(data))
		f.expiry(data)
	}
	for _, data := range s.Inline() {
		f.expiry(data)
	}
}

func (f *hashing) expiry(data []byte) {
	file, err := key.Read(data)
	if err != nil { // what of it a mechanism takes, and when that expires, can't be told
		f.until = f.now
		return
	}
	for _, k := range file.Keys {
		for _, k := range append([]key.Key{k}, k.Subkeys...) {
			if k.Expires.After(f.now) && (f.until.IsZero() || k.Expires.Before(f.until)) {
				f.until = k.Expires
			}
		}
	}
}

// maxLinks bounds how deep directories are hashed that links lead to, one behind the other: certs.d may be made of
// links.
const maxLinks = 3

// tree hashes a file, or the files below a directory, links followed; what is not there is hashed as that.
func (f *hashing) tree(what, path string) error { return f.linked(what, path, maxLinks) }

func (f *hashing) linked(what, path string, links int) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		f.add(what, "absent")
		return nil
	}
	return filepath.WalkDir(real, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(real, name)
		if err != nil {
			return err
		}
		if e.Type()&fs.ModeSymlink != 0 {
			if links == 0 {
				return fmt.Errorf("%s: too many links to directories", name)
			}
			return f.linked(what+"/"+rel, name, links-1)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		file, err := os.Open(name)
		if err != nil {
			f.add(what, rel, "error", err.Error())
			return nil
		}
		defer file.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, io.LimitReader(file, maxConfigFile)); err != nil {
			return err
		}
		f.add(what, rel, hex.EncodeToString(sum.Sum(nil)))
		return nil
	})
}
