// Package e2e tests the whole from outside: built programs, a real CRI-O, podman, registry, lookaside and gpg.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// Set once by TestMain.
var (
	theLab *lab.Lab
	gpg    *fixture.GPG
	// corp signs what must be accepted; stranger is a key that no policy names.
	corp, stranger *fixture.Key
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if gpg, err = fixture.NewGPG(); err != nil {
		return 1, err
	}
	defer gpg.Close()
	if corp, err = gpg.NewKey("corp", fixture.KeyOptions{}); err != nil {
		return 1, err
	}
	if stranger, err = gpg.NewKey("stranger", fixture.KeyOptions{}); err != nil {
		return 1, err
	}
	if theLab, err = lab.New(context.Background()); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, theLab.Close()) }()
	return m.Run(), nil
}

// needNode skips the test where no node can run. With NODETRUST_E2E=all that is a failure.
func needNode(t *testing.T) {
	t.Helper()
	reason := lab.Unfit()
	switch {
	case reason == "":
	case os.Getenv("NODETRUST_E2E") == "all":
		t.Fatal(reason)
	default:
		t.Skip(reason)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// result is how a program ended.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit status %d\nstdout:\n%s\nstderr:\n%s", r.code, r.stdout, r.stderr)
}

// program runs one of the built programs as this user, with an empty home and dir as working directory.
func program(t *testing.T, dir, path string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "LANG=C"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %s: %v", filepath.Base(path), strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %s: still running after %s\n%s", filepath.Base(path), strings.Join(args, " "), lab.Patience, &stderr)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
