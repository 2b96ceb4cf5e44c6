// Package fingerprint hashes values, files and directories so that two different lists of them have different sums.
package fingerprint

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

	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// Hash is a sum under way.
type Hash struct {
	h   hash.Hash
	err error // the first one
}

// New returns the hash of this program, with the libraries in it, and of the gpg that judges for it.
func New() *Hash {
	f := &Hash{h: sha256.New()}
	f.Add("mechanism", mechanism.Name)
	if info, ok := debug.ReadBuildInfo(); ok {
		f.Add("build", info.String())
	}
	if exe, err := os.Executable(); err == nil {
		f.program(exe)
	}
	if mechanism.Name != "gpgme" {
		return f
	}
	if gpg, err := exec.LookPath("gpg"); err == nil {
		f.program(gpg)
	}
	f.Add("engine", mechanism.Engine())
	_ = f.Tree("gpg.conf", "/etc/gnupg/gpg.conf") // which gpg 2.3 and later read whatever the home
	return f
}

// Add hashes values as JSON.
func (f *Hash) Add(values ...any) {
	if err := json.NewEncoder(f.h).Encode(values); f.err == nil {
		f.err = err
	}
}

// Sum returns the hash in hex, and an error if a value could not be written as JSON.
func (f *Hash) Sum() (string, error) { return hex.EncodeToString(f.h.Sum(nil)), f.err }

// program stands for a program, whose bytes would take too long.
func (f *Hash) program(path string) {
	if st, err := os.Stat(path); err == nil {
		f.Add("program", path, st.Size(), st.ModTime().String())
	}
}

// maxLinks bounds how deep directories are hashed that links lead to, one behind the other: certs.d may be made of
// links.
const maxLinks = 3

// maxFile bounds what is hashed of a file, in bytes.
const maxFile = 4 << 20

// Tree hashes a file, or the files below a directory, links followed, each up to maxFile bytes. A path where
// nothing is counts as absent.
func (f *Hash) Tree(what, path string) error { return f.linked(what, path, maxLinks) }

func (f *Hash) linked(what, path string, links int) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		f.Add(what, "absent")
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
			f.Add(what, rel, "error", err.Error())
			return nil
		}
		defer file.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, io.LimitReader(file, maxFile)); err != nil {
			return err
		}
		f.Add(what, rel, sum.Sum(nil))
		return nil
	})
}
