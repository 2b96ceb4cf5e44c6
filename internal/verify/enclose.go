package verify

import (
	"os"
	"path/filepath"

	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// Enclose gives this process a temporary directory of its own, in which the image library makes its gpg keyrings, and
// keeps gpg from starting an agent for each of them. An agent is of no use for judging signatures, takes half the
// time of an import, and outlives a process that is killed. Close undoes it, and removes what a gpg that hangs may
// hold on to. It changes the environment, so only one policy of a process may be enclosed, and a program does it, not
// a library.
func (p *Policy) Enclose() error {
	if mechanism.Name != "gpgme" {
		return nil
	}
	dir := filepath.Join(p.tmp, "gpg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	before, had := os.LookupEnv("TMPDIR")
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	p.keyrings = dir
	p.unenclose = func() {
		if had {
			os.Setenv("TMPDIR", before)
		} else {
			os.Unsetenv("TMPDIR")
		}
	}
	return nil
}
