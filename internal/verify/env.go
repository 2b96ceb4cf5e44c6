package verify

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// Env is the environment that a program was started in. Open changes the environment of the process, so a program takes
// the Env at its start and gives parts of it to whoever wants them. The zero Env is for a library: Open leaves $TMPDIR
// alone then.
type Env struct {
	// Environ is the whole environment, for programs that are started.
	Environ []string
	// RegistriesConf is $CONTAINERS_REGISTRIES_CONF.
	RegistriesConf string
	// CacheDir is the user's directory for caches; "" if there is none.
	CacheDir string
	// taken is true if the process is the caller's to change.
	taken bool
}

// TakeEnv returns the environment. It silences the log of the image library, and has gpgme look for gpg in $PATH
// itself: call it before library and gpgme are used.
func TakeEnv() Env {
	traffic.QuietLog()
	mechanism.SkipGPGConf()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = ""
	}
	return Env{
		Environ: os.Environ(), RegistriesConf: os.Getenv("CONTAINERS_REGISTRIES_CONF"), CacheDir: cache, taken: true,
	}
}

// isolate keeps the image library from reading this user's configuration instead of what it is given.
func isolate() {
	const noConfig = "/nonexistent"
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "XDG_CONFIG_HOME" && value == noConfig:
		case strings.HasPrefix(name, "CONTAINERS_"), strings.HasPrefix(name, "XDG_"), name == "REGISTRY_AUTH_FILE",
			name == "DOCKER_CONFIG":
			os.Unsetenv(name)
		}
	}
	// With a folder given the library asks neither $HOME nor the user database, which may not know this user.
	if os.Getenv("XDG_CONFIG_HOME") != noConfig {
		os.Setenv("XDG_CONFIG_HOME", noConfig)
	}
}

// usePrivateTempDir gives this process a temporary directory of its own, in which the image library makes its gpg
// keyrings, and keeps gpg from starting an agent for each of them. An agent is of no use for judging signatures, takes
// half the time of an import, and outlives a process that is killed. Close undoes the change, and removes what a gpg
// that hangs may hold on to.
func (p *Policy) usePrivateTempDir() error {
	if mechanism.Name != "gpgme" {
		return nil
	}
	dir := filepath.Join(p.Temp, "gpg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	before, had := os.LookupEnv("TMPDIR")
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	p.KeyringDir = dir
	p.restoreTempDir = func() {
		if had {
			os.Setenv("TMPDIR", before)
		} else {
			os.Unsetenv("TMPDIR")
		}
	}
	return nil
}
