package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// Enclose gives this process a temporary directory of its own, in which the image library makes its gpg keyrings, and
// keeps gpg from starting an agent for each of them. An agent is of no use for judging signatures, takes half the time
// of an import, and outlives a process that is killed. Close undoes it, and removes what a gpg that hangs may hold on to.
// It changes the environment, so only one policy of a process may be enclosed, and a program does it, not a library.
//
// The library makes a keyring and gpg's configuration is read from it some milliseconds later, after gpgme asked gpg for
// its version: time enough to put a line there. Should it be late once, an agent is started, and ends with its keyring.
func (p *Policy) Enclose() error {
	if Mechanism != "gpgme" {
		return nil
	}
	dir := filepath.Join(p.tmp, "gpg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil // out of inotify instances: agents are started, as without this
	}
	if err := w.Add(dir); err != nil {
		w.Close()
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	before, had := os.LookupEnv("TMPDIR")
	if err := os.Setenv("TMPDIR", dir); err != nil {
		w.Close()
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case e, ok := <-w.Events:
				if !ok {
					return
				}
				if e.Has(fsnotify.Create) && strings.HasPrefix(filepath.Base(e.Name), "containers-ephemeral-gpg-") {
					_ = os.WriteFile(filepath.Join(e.Name, "gpg.conf"), []byte("no-autostart\n"), 0o600)
				}
			case _, ok := <-w.Errors:
				if !ok {
					return
				}
			}
		}
	}()
	p.unenclose = func() {
		w.Close()
		<-done
		if had {
			os.Setenv("TMPDIR", before)
		} else {
			os.Unsetenv("TMPDIR")
		}
	}
	return nil
}
