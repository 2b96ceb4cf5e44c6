package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/e2e/cluster"
	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// options say how long and how often something is measured.
type options struct {
	idle          time.Duration
	runs, tampers int
}

// bench holds what the sections share: built programs, keys, a registry, a lookaside and signed images.
type bench struct {
	options
	repo, bin, dir string
	butane         string
	gpg            *fixture.GPG
	store          *lab.Store
	signed         string           // repository@digest of a signed image
	canary         string           // repository@digest of another signed image, to be refused
	cluster        *cluster.Cluster // nil until a section wants it
}

func newBench(repo string, o options) (b *bench, err error) {
	repo, err = filepath.Abs(repo)
	if err != nil {
		return nil, err
	}
	b = &bench{options: o, repo: repo, bin: filepath.Join(repo, "bin")}
	if b.dir, err = os.MkdirTemp("", "nt-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	b.butane = filepath.Join(b.dir, "butane")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.butane,
		"github.com/coreos/butane/internal")
	cmd.Dir = repo
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building butane: %w: %s", err, out)
	}
	if b.gpg, err = fixture.NewGPG(); err != nil {
		return nil, err
	}
	key, err := b.gpg.NewKey("bench signer", fixture.KeyOptions{})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "signer.asc"), key.Armored, 0o644); err != nil {
		return nil, err
	}
	if b.store, err = lab.NewStore(filepath.Join(b.dir, "lookaside")); err != nil {
		return nil, err
	}
	for _, img := range []struct {
		repo string
		ref  *string
	}{{"team/app", &b.signed}, {"team/canary", &b.canary}} {
		p, err := b.store.Push(img.repo, "v1", img.repo, key)
		if err != nil {
			return nil, err
		}
		*img.ref = p.ByDigest
	}
	return b, b.writeConfigs()
}

func (b *bench) close() error {
	b.store.Close()
	if b.gpg != nil {
		b.gpg.Close()
	}
	err := os.RemoveAll(b.dir)
	if b.cluster != nil {
		err = errors.Join(err, b.cluster.Close())
	}
	return err
}

// writeConfigs makes a host root, trust.yaml (one scope) and wide.yaml (50 files on the node).
func (b *bench) writeConfigs() error {
	root := filepath.Join(b.dir, "root", "etc", "containers")
	if err := os.MkdirAll(filepath.Join(root, "registries.d"), 0o755); err != nil {
		return err
	}
	conf := fmt.Sprintf("unqualified-search-registries = []\n[[registry]]\nlocation = %q\ninsecure = true\n",
		b.store.Registry.Host)
	if err := os.WriteFile(filepath.Join(root, "registries.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	head := `apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: bench}
spec:
  pools: [worker]
  default: accept
  keys:
  - {name: signer, file: signer.asc}
  registries:
`
	entry := func(scope, lookaside string) string {
		return fmt.Sprintf("  - scope: %q\n    require:\n    - signedBy: [signer]\n    lookaside: %s\n", scope, lookaside)
	}
	tail := fmt.Sprintf("  canaries:\n  - {image: %q, expect: accept}\n  - {image: %q, expect: refuse}\n",
		b.signed, b.canary)
	small := head + entry(b.store.Registry.Host, b.store.Lookaside.URL()) + tail
	if err := os.WriteFile(filepath.Join(b.dir, "trust.yaml"), []byte(small), 0o644); err != nil {
		return err
	}
	var wide strings.Builder
	wide.WriteString(head + entry(b.store.Registry.Host, b.store.Lookaside.URL()))
	for i := range 48 { // with policy.json and the registry above: 50 files
		wide.WriteString(entry(fmt.Sprintf("registry-%02d.example.com", i), "https://lookaside.example.com/"+fmt.Sprint(i)))
	}
	wide.WriteString(tail)
	return os.WriteFile(filepath.Join(b.dir, "wide.yaml"), []byte(wide.String()), 0o644)
}

// nodetrust runs the CLI in the bench's folder and returns its standard output.
func (b *bench) nodetrust(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "nodetrust"), args...)
	cmd.Dir = b.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("nodetrust %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out, nil
}
