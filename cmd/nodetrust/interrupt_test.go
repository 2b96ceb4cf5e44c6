package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestVerify_interrupted sends SIGINT to a verify that waits for its lookaside, or for gpg: it ends soon, with exit
// status 4, 0 when the signal came too late, and leaves no file and no process.
func TestVerify_interrupted(t *testing.T) {
	p := fixture.Parts{TB: t}
	key := p.Key(p.GPG(), "signer", fixture.KeyOptions{})
	dir := t.TempDir()
	registry, lookaside := p.Registry(), p.Lookaside(filepath.Join(dir, "sigs"))
	image := registry.Host + "/team/app:v1"
	p.Sign(lookaside, key, "team/app", p.Push(registry, "team/app", "v1", "one"), image, 1)
	files := map[string]string{
		"policy.json": fmt.Sprintf(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":%q}]}`,
			base64.StdEncoding.EncodeToString(key.Binary)),
		"d/lab.yaml": fmt.Sprintf("docker: {%q: {lookaside: %q}}\n", registry.Host, lookaside.URL()),
	}
	for name, content := range files {
		p.Write(filepath.Join(dir, name), []byte(content))
	}
	for _, after := range []time.Duration{-1, 0, 5, 10, 20, 30, 45} {
		tmp, err := os.MkdirTemp("", "nt-")
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan struct{}, 1)
		lookaside.Fault(func(w http.ResponseWriter, r *http.Request) {
			if after < 0 { // never answer
				asked <- struct{}{}
				<-r.Context().Done()
				return
			}
			if strings.HasSuffix(r.URL.Path, "signature-2") { // the last request: gpg comes next
				asked <- struct{}{}
			}
			lookaside.Serve(w, r)
		})
		cmd := exec.Command(os.Args[0])
		cmd.Args = []string{
			"nodetrust", "verify", "--policy", filepath.Join(dir, "policy.json"), "--registries-d",
			filepath.Join(dir, "d"), "--tls-verify=false", "--timeout", "10m", image,
		}
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-asked
		time.Sleep(after * time.Millisecond) // any moment is a fair one
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Log(err)
		}
		start := time.Now()
		_ = cmd.Wait()
		if d := time.Since(start); d > time.Minute {
			t.Errorf("after %v: ended %s after the signal", after, d)
		}
		if code := cmd.ProcessState.ExitCode(); code != cli.ExitUnknown && (after < 0 || code != cli.ExitOK) {
			t.Errorf("after %v: exit status %d", after, code)
		}
		if left := fixture.LeftIn(tmp); len(left) > 0 {
			t.Errorf("after %v: left behind: %v", after, left)
		}
		os.RemoveAll(tmp)
	}
}

// TestInterrupted_pipe: a command that opens a pipe to which nobody writes ends all the same.
func TestInterrupted_pipe(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "trust.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Args = []string{"nodetrust", "render", "--to", "butane", pipe}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	time.Sleep(2 * time.Second) // a signal that comes before anybody listens ends it anyway
	for deadline := time.After(time.Minute); ; {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			if cmd.ProcessState.Success() {
				t.Error("it succeeded")
			}
			return
		case <-deadline:
			_ = cmd.Process.Kill()
			<-ended
			t.Fatal("it waits for the pipe in spite of the signal")
		case <-time.After(time.Second):
		}
	}
}
