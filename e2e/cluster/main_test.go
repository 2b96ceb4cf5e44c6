package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// shared is the cluster that the tests share; nil where none can run.
var shared *Cluster

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if reason := Unfit(); reason == "" {
		var before footprint
		if before, err = machine(); err != nil {
			return 1, err
		}
		if shared, err = Start(context.Background()); err != nil {
			return 1, err
		}
		// After all tests: ended in order, the cluster leaves nothing on the machine.
		defer func() {
			if end := errors.Join(shared.Close(), left(before, filepath.Base(shared.dir))); end != nil {
				code, err = 1, errors.Join(err, end)
			}
		}()
		for _, s := range shared.Started {
			fmt.Printf("start-up: %-16s %s\n", s.Name, s.After)
		}
	} else if os.Getenv("NODETRUST_E2E") == "all" {
		return 1, errors.New(reason)
	}
	return m.Run(), nil
}

// need returns the shared cluster, or skips the test where none can run.
func need(t *testing.T) *Cluster {
	t.Helper()
	if shared == nil {
		t.Skip(Unfit())
	}
	return shared
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
