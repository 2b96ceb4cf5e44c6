package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/cli"
)

// TestStdin_interrupted sends SIGINT to commands that wait for their input, which never comes.
func TestStdin_interrupted(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"reject"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		want int
	}{
		{"audit --no-cache --policy " + policy + " --images-from -", cli.ExitUnknown},
		{"render --to butane -", cli.ExitFailed},
		{"probe --runtime verify --canaries - --policy " + policy, cli.ExitFailed},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Args = append([]string{"nodetrust"}, strings.Fields(tt.args)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It reads once the pipe is empty: what is larger than a pipe goes through only then.
		if _, err := io.WriteString(stdin, strings.Repeat("# wait\n", 10000)); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(ended)
		}()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
			if code := cmd.ProcessState.ExitCode(); code != tt.want {
				t.Errorf("%s: exit status %d, want %d", tt.args, code, tt.want)
			}
			if said := stderr.String(); !strings.HasPrefix(said, "nodetrust: error: interrupted") {
				t.Errorf("%s: says %q", tt.args, said)
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("%s: waits for stdin in spite of the signal", tt.args)
		}
	}
}
