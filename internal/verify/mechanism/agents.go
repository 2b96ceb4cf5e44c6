package mechanism

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// WithoutAgents tells gpg to start no agent for keyrings that are made in dir before the returned function is called.
// The library makes a keyring, then gpgme asks gpg for its version, which takes some milliseconds, and only then gpg
// reads the keyring's configuration: time enough to put it there. Should that be late once, an agent is started as
// usual and ends with its keyring. Looking four times a millisecond is cheaper than inotify, which takes longer to
// close than gpg to judge, and of which a user has 128 instances only.
func WithoutAgents(dir string) (stop func()) {
	if dir == "" {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		seen := map[string]bool{}
		for {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if name := e.Name(); !seen[name] && strings.HasPrefix(name, "containers-ephemeral-gpg-") {
					seen[name] = true
					writeNew(filepath.Join(dir, name, "gpg.conf"), "no-autostart\n")
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
