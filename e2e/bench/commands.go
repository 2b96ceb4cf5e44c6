package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// render compares `nodetrust render --to machineconfig` with the butane CLI on the Butane config of the same input.
func (b *bench) render(ctx context.Context, w *bytes.Buffer) error {
	bu, err := b.nodetrust(ctx, "render", "--to", "butane", "trust.yaml")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "trust.bu"), bu, 0o644); err != nil {
		return err
	}
	nodetrust := filepath.Join(b.bin, "nodetrust")
	walls, cpus, err := interleave(b.runs,
		func() (usage, error) {
			return timed(ctx, b.dir, nil, nodetrust, "render", "--to", "machineconfig", "trust.yaml")
		},
		func() (usage, error) { return timed(ctx, b.dir, nil, b.butane, "--strict", "trust.bu") },
	)
	if err != nil {
		return err
	}
	ratio := float64(walls[0].percentile(50)) / float64(walls[1].percentile(50))
	fmt.Fprintf(w, "## Rendering\n\nWhole process, %d runs each in turn, same input.\n\n| command | wall p50 | wall p90 | CPU p50 |\n|---|---|---|---|\n", b.runs)
	for i, name := range []string{"`nodetrust render --to machineconfig`", "`butane --strict` on the equivalent .bu"} {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", name, ms(walls[i].percentile(50)), ms(walls[i].percentile(90)),
			ms(cpus[i].percentile(50)))
	}
	fmt.Fprintf(w, "\nRatio of the medians: **%.2f** (goal ≤ 2.5).\n\n", ratio)
	return b.startup(ctx, w, walls[0].percentile(50))
}

var initLine = regexp.MustCompile(`^init (\S+) @\S+ ms, ([0-9.]+) ms clock`)

// startup says which package initialisers the start-up time goes to.
func (b *bench) startup(ctx context.Context, w *bytes.Buffer, whole time.Duration) error {
	version, err := timed(ctx, b.dir, nil, filepath.Join(b.bin, "nodetrust"), "version")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "nodetrust"), "version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("tracing start-up: %w", err)
	}
	type pkg struct {
		name string
		ms   float64
	}
	var pkgs []pkg
	var sum float64
	for line := range strings.Lines(stderr.String()) {
		if m := initLine.FindStringSubmatch(line); m != nil {
			t, _ := strconv.ParseFloat(m[2], 64)
			pkgs, sum = append(pkgs, pkg{m[1], t}), sum+t
		}
	}
	slices.SortFunc(pkgs, func(a, b pkg) int { return int((b.ms - a.ms) * 1e6) })
	fmt.Fprintf(w, "Where start-up goes: `nodetrust version`, which does nothing, takes %s; package initialisers %.2f ms of that, the largest:\n\n| package | init |\n|---|---|\n", ms(version.wall), sum)
	for _, p := range pkgs[:min(6, len(pkgs))] {
		fmt.Fprintf(w, "| `%s` | %.2f ms |\n", p.name, p.ms)
	}
	fmt.Fprintf(w, "\nThe rest of the %s is the kernel's work of mapping a cgo binary and its libraries, and the rendering itself.\n\n", ms(whole))
	return nil
}

// verify compares one verdict with what skopeo needs to copy the same image under the same policy.
func (b *bench) verify(ctx context.Context, w *bytes.Buffer) error {
	if _, err := exec.LookPath("skopeo"); err != nil {
		fmt.Fprintf(w, "## Verifying\n\nNot measured: skopeo is not installed.\n\n")
		return nil
	}
	files := filepath.Join(b.dir, "files")
	if _, err := b.nodetrust(ctx, "render", "--to", "files", "-o", files, "trust.yaml"); err != nil {
		return err
	}
	etc := filepath.Join(files, "etc", "containers")
	policy, registriesD := filepath.Join(etc, "policy.json"), filepath.Join(etc, "registries.d")
	n := 0
	walls, cpus, err := interleave(b.runs,
		func() (usage, error) {
			return timed(ctx, b.dir, nil, filepath.Join(b.bin, "nodetrust"), "verify", "--policy", policy, "--registries-d",
				registriesD, "--tls-verify=false", b.signed)
		},
		func() (usage, error) {
			n++
			return timed(ctx, b.dir, nil, "skopeo", "--policy", policy, "--registries.d", registriesD, "copy", "--quiet",
				"--src-tls-verify=false",
				"docker://"+b.signed, "dir:"+filepath.Join(b.dir, fmt.Sprintf("copy-%d", n)))
		},
	)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "## Verifying\n\nOne signed image on loopback, %d runs each in turn, the same policy.json and registries.d.\n\n| command | wall p50 | wall p90 | CPU p50 |\n|---|---|---|---|\n", b.runs)
	for i, name := range []string{"`nodetrust verify`", "`skopeo copy docker://… dir:…`"} {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", name, ms(walls[i].percentile(50)), ms(walls[i].percentile(90)),
			ms(cpus[i].percentile(50)))
	}
	fmt.Fprintf(w, "\nRatio of the medians: **%.2f** (goal ≤ 0.55).\n\n",
		float64(walls[0].percentile(50))/float64(walls[1].percentile(50)))
	return nil
}
