package verify

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/verify/mechanism"
)

// Enclose gives this process a temporary directory of its own, in which the image library makes its gpg keyrings, and
// keeps gpg from starting an agent for each of them. An agent is of no use for judging signatures, takes half the time
// of an import, and outlives a process that is killed. Close undoes it, and removes what a gpg that hangs may hold on to.
// It changes the environment, so only one policy of a process may be enclosed, and a program does it, not a library.
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

// withoutAgents tells gpg to start no agent for keyrings that are made before the returned function is called. The
// library makes a keyring, then gpgme asks gpg for its version, which takes some milliseconds, and only then gpg reads
// the keyring's configuration: time enough to put it there. Should that be late once, an agent is started as usual and
// ends with its keyring. Looking four times a millisecond is cheaper than inotify, which takes longer to close than gpg
// to judge, and of which a user has 128 instances only.
func (p *Policy) withoutAgents() (stop func()) {
	if p.keyrings == "" {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		seen := map[string]bool{}
		for {
			entries, _ := os.ReadDir(p.keyrings)
			for _, e := range entries {
				if name := e.Name(); !seen[name] && strings.HasPrefix(name, "containers-ephemeral-gpg-") {
					seen[name] = true
					writeNew(filepath.Join(p.keyrings, name, "gpg.conf"), "no-autostart\n")
				}
			}
			select {
			case <-quit:
				return
			case <-time.After(250 * time.Microsecond):
			}
		}
	}()
	return func() { close(quit); <-done }
}

// writeNew writes a file that isn't there yet; one that is there may be read by gpg just now.
func writeNew(name, content string) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	_, _ = f.WriteString(content)
	_ = f.Close()
}
