package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden files of testdata/script")

// TestMain makes the test binary serve as the command "nodetrust" in scripts: the same run as in main.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nodetrust": main})
}

// TestScript runs testdata/script/*.txtar. Beside testscript's own commands there is
//
//	status N command args…
//
// which runs a command and fails unless its exit status is N; stdout, stderr and cmp see its output. HOME is the
// script's folder. NODETRUST_REALDATA is passed on; [env:NAME] is true when the variable NAME is set.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			if v, ok := os.LookupEnv("NODETRUST_REALDATA"); ok {
				e.Setenv("NODETRUST_REALDATA", v)
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if name, ok := strings.CutPrefix(cond, "env:"); ok {
				return os.Getenv(name) != "", nil
			}
			return false, errors.New("unknown condition " + strconv.Quote(cond))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command args…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("running %s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}
