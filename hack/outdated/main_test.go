package main

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"
)

// TestCompare: what could not be compared never looks up to date.
func TestCompare(t *testing.T) {
	current := strings.TrimPrefix(runtime.Version(), "go")
	for _, tt := range []struct {
		name, module, used, known string
		status                    int
		says                      string
	}{
		{"newest", "example.com/m", "v1.2.3", "v1.2.2 v1.2.3", 0, "newest        example.com/m v1.2.3\n"},
		{
			"a fix is out", "example.com/m", "v1.2.3", "v1.2.3 v1.2.10", exitBehind,
			"BEHIND        example.com/m v1.2.3: v1.2.10 is out\n",
		},
		{"a fix and a newer line", "example.com/m", "v1.2.3", "v1.2.4 v1.3.0", exitBehind, "v1.2.4 is out\n"},
		{
			"a newer line", "example.com/m", "v1.2.3", "v1.2.3 v1.3.0", 0,
			"newer line    example.com/m v1.2.3: v1.3.0 is out\n",
		},
		{"a candidate", "example.com/m", "v1.2.3", "v1.2.3 v1.2.4-rc.1", 0, "newest "},
		{
			"one line only", "golang.org/x/crypto", "v0.58.0", "v0.58.0 v0.59.0", exitBehind,
			"BEHIND        golang.org/x/crypto v0.58.0: v0.59.0 is out\n",
		},
		{"the used one is not listed", "example.com/m", "v1.2.3", "v1.2.1", 0, "newest "},
		{"nothing is listed", "example.com/m", "v1.2.3", "", exitNotCompared, "NOT COMPARED: 1 of 2\n"},
		{"a snapshot", "example.com/m", "v1.2.3-0.20240101000000-0123456789ab", "v1.2.3", exitNotCompared, "is no release"},
		{"no proxy", "example.com/m", "v1.2.3", "error", exitNotCompared, "NOT COMPARED  example.com/m: no route\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list := func(args ...string) (string, error) {
				switch {
				case args[len(args)-1] == "go":
					return "go " + current, nil
				case args[0] == "-f":
					return tt.used + "\n", nil
				case tt.known == "error":
					return "", errors.New("no route")
				}
				return tt.module + " " + tt.known + "\n", nil
			}
			var out bytes.Buffer
			status := compare(&out, list, []string{tt.module})
			if status != tt.status || !strings.Contains(out.String(), tt.says) {
				t.Errorf("status %d:\n%s", status, out.String())
			}
		})
	}
}
