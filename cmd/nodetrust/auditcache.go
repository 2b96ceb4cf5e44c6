package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/audit/cache"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// cacheFlags say where verdicts are kept between audits.
type cacheFlags struct {
	off bool
	dir string
	age time.Duration
}

func (f *cacheFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.off, "no-cache", false, "judge all images anew, and keep no verdict")
	fl.StringVar(&f.dir, "cache-dir", "", "`DIR` for verdicts (default nodetrust/audit in the user's cache directory)")
	fl.DurationVar(&f.age, "cache-age", cache.DefaultAge,
		"how long an accept holds, at most 24h; a refusal is only used to go on after an interruption")
}

// check completes the directory. It belongs before the policy is opened: that changes the environment.
func (f *cacheFlags) check() error {
	switch {
	case f.off && f.dir != "":
		return cli.Usagef("--no-cache and --cache-dir contradict each other")
	case f.age <= 0 || f.age > cache.MaxAge:
		return cli.Usagef("--cache-age %s: must be above 0 and at most 24h", f.age)
	}
	if f.off || f.dir != "" {
		return nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		f.off = true // no home, no cache
		return nil
	}
	f.dir = filepath.Join(dir, "nodetrust", "audit")
	return nil
}

// open opens the cache for what judges. Without one it says why, and the audit goes on without.
func (f *cacheFlags) open(s *verify.Session, p *verify.Policy, o verify.Options, notes io.Writer) *keptVerdicts {
	if f.off {
		return nil
	}
	key, until, err := p.Fingerprint(o, time.Now())
	if err == nil {
		var c *cache.Cache
		if c, err = cache.Open(f.dir, key, cache.Options{Age: f.age, Until: until}); err == nil {
			return &keptVerdicts{c, s}
		}
	}
	cli.Say(notes, cli.Warning, "%v", fmt.Errorf("judging without the cache of verdicts: %w", err))
	return nil
}

// keptVerdicts is the cache as an audit uses it: a tag may have been moved since.
type keptVerdicts struct {
	*cache.Cache
	session *verify.Session
}

func (k *keptVerdicts) Get(ctx context.Context, name string) (verdict.Verdict, bool) {
	v, ok := k.Cache.Get(name)
	if !ok || !strings.Contains(name, "@") && !k.session.StillCurrent(ctx, name, v) {
		return verdict.Verdict{}, false
	}
	return v, true
}
