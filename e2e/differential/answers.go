package differential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Answers are what everybody says to a case. The runtimes' texts are "" where the image was pulled.
type Answers struct {
	Verify, Audit verdict.Verdict
	CRIO, Podman  string
}

func (a Answers) String() string {
	return fmt.Sprintf("  verify: %s %s: %s\n  audit: %s %s: %s\n  CRI-O: %s\n  podman: %s",
		a.Verify.Answer, a.Verify.Reason, a.Verify.Message, a.Audit.Answer, a.Audit.Reason, a.Audit.Message,
		pulledOr(a.CRIO), pulledOr(a.Podman))
}

func pulledOr(s string) string {
	if s == "" {
		return "pulled"
	}
	return s
}

// crio is CRI-O's answer in nodetrust's words.
func (a Answers) crio() verdict.Answer {
	switch {
	case a.CRIO == "":
		return verdict.Accept
	case strings.Contains(a.CRIO, "SignatureValidationFailed"):
		return verdict.Refuse
	}
	return verdict.Unknown
}

// Differences names what the answers differ in, a line each; none if everybody agrees.
func (a Answers) Differences() []string {
	var out []string
	if a.Verify.Reason == verdict.RegistriesDInvalid {
		a.Audit.Message = a.Verify.Message // of two scopes that are there twice the library names any
	}
	if v, s := mustJSON(a.Verify), mustJSON(a.Audit); v != s {
		out = append(out, "audit differs from verify: "+s+" instead of "+v)
	}
	if c := a.crio(); c != a.Verify.Answer {
		out = append(out, fmt.Sprintf("CRI-O %s, verify %s", c, a.Verify.Answer))
	}
	if (a.Podman == "") != (a.Verify.Answer == verdict.Accept) {
		out = append(out, fmt.Sprintf("podman pulled: %t, verify %s", a.Podman == "", a.Verify.Answer))
	}
	return out
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// ask puts a case that was set before everybody, and removes what was pulled.
func (w *world) ask(nodetrust string, c Case, tmp string) (a Answers, err error) {
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() {
		if err := w.node.Pull(c.Image, ""); err != nil {
			a.CRIO = err.Error()
		}
		errs[0] = w.node.RemoveImage(c.Image)
	})
	wg.Go(func() {
		if out, err := w.node.Podman("pull", "-q", c.Image); err != nil {
			a.Podman = strings.TrimSpace(out)
			return
		}
		out, err := w.node.Podman("rmi", "-f", "-a")
		if err != nil {
			errs[1] = fmt.Errorf("removing podman's image: %w: %s", err, out)
		}
	})
	a.Verify, err = judge(nodetrust, tmp, "", "verify", "--root", w.node.Root, "-o", "json", "--platform",
		"linux/amd64", c.Image)
	if err == nil {
		a.Audit, err = judge(nodetrust, tmp, c.Image+"\n", "audit", "--root", w.node.Root, "-o", "json", "--platform",
			"linux/amd64", "--no-cache", "--images-from", "-")
	}
	wg.Wait()
	return a, errors.Join(err, errs[0], errs[1])
}

// judge runs nodetrust and reads the verdict, which in an audit is that of its only image.
func judge(nodetrust, tmp, stdin string, args ...string) (verdict.Verdict, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, nodetrust, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "TMPDIR=" + tmp, "LANG=C"}
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return verdict.Verdict{}, err
	}
	var out struct {
		verdict.Verdict
		Images []struct {
			verdict.Verdict
			Judged bool `json:"judged"`
		} `json:"images"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
		return verdict.Verdict{}, fmt.Errorf("nodetrust %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	if args[0] == "verify" {
		return out.Verdict, nil
	}
	if len(out.Images) != 1 {
		return verdict.Verdict{}, fmt.Errorf("nodetrust %s: %d images\n%s", strings.Join(args, " "), len(out.Images), &stderr)
	}
	return out.Images[0].Verdict, nil
}
