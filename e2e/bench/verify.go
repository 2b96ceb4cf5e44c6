package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// verifyParts measures where the time of one verification goes: the same command with less and less to do.
func (b *bench) verifyParts(ctx context.Context, w *bytes.Buffer) error {
	key, err := os.ReadFile(filepath.Join(b.dir, "signer.asc"))
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "parts")
	registriesD := filepath.Join(dir, "registries.d")
	if err := os.MkdirAll(registriesD, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(registriesD, "bench.yaml"),
		fmt.Appendf(nil, "docker:\n  %s:\n    lookaside: %s\n", b.store.Registry.Host, b.store.Lookaside.URL()),
		0o644); err != nil {
		return err
	}
	signed := map[string]any{"type": "signedBy", "keyType": "GPGKeys", "keyData": key}
	policy := func(name string, requirements ...any) (string, error) {
		j, err := json.Marshal(map[string]any{"default": requirements})
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, name)
		return path, os.WriteFile(path, j, 0o644)
	}
	accept, err := policy("accept.json", map[string]string{"type": "insecureAcceptAnything"})
	if err != nil {
		return err
	}
	one, err := policy("one.json", signed)
	if err != nil {
		return err
	}
	three, err := policy("three.json", signed, signed, signed)
	if err != nil {
		return err
	}
	bin := filepath.Join(b.bin, "nodetrust")
	verify := func(policy string) []string {
		return []string{bin, "verify", "--policy", policy, "--registries-d", registriesD, "--tls-verify=false", b.signed}
	}
	rows := []struct {
		what string
		argv []string
	}{
		{"the program starts and ends (`nodetrust version`)", []string{bin, "version"}},
		{"+ policy, registry and lookaside: `insecureAcceptAnything`", verify(accept)},
		{"+ gpg: `signedBy`", verify(one)},
		{"+ two more requirements for the same keys", verify(three)},
	}
	var run []func() (usage, error)
	for _, r := range rows {
		run = append(run, func() (usage, error) { return timed(ctx, b.dir, nil, r.argv...) })
	}
	walls, cpus, err := interleave(b.runs, run...)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "## Where the time of one verification goes\n\nThe same image on loopback, %d runs each in turn. The keys are imported while the registry is asked, once for all requirements and signatures.\n\n| | wall p50 | CPU p50 | gpg processes |\n|---|---|---|---|\n", b.runs)
	for i, r := range rows {
		n, err := b.gpgProcesses(ctx, r.argv)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", r.what, ms(walls[i].percentile(50)), ms(cpus[i].percentile(50)), n)
	}
	gpg, err := timedGPG(ctx, b.runs)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n`gpg --version`, which is the least that a gpg process takes: %s. gpgme has gpg say its version first and for each keyring, then the keys are imported, and one process judges each signature. "+
		"Without keyrings that are used again it would be three processes for each signature and requirement.\n\n",
		ms(gpg.percentile(50)))
	return nil
}

// gpgProcesses counts the gpg processes that a command starts.
func (b *bench) gpgProcesses(ctx context.Context, argv []string) (string, error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return "(no strace)", nil
	}
	out := filepath.Join(b.dir, "execve")
	if _, err := timed(ctx, b.dir, nil, append([]string{"strace", "-f", "-qq", "-e", "trace=execve", "-o", out},
		argv...)...); err != nil {
		return "", err
	}
	trace, err := os.ReadFile(out)
	if err != nil {
		return "", err
	}
	n := 0
	for line := range strings.Lines(string(trace)) {
		if strings.Contains(line, "execve(") && strings.Contains(line, `/gpg",`) {
			n++
		}
	}
	return fmt.Sprint(n), nil
}

func timedGPG(ctx context.Context, runs int) (sample, error) {
	var s sample
	for range runs {
		start := time.Now()
		if err := exec.CommandContext(ctx, "gpg", "--version").Run(); err != nil {
			return nil, err
		}
		s = append(s, time.Since(start))
	}
	return s, nil
}
