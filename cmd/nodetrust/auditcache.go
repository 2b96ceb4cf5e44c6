package main

import (
	"context"
	"fmt"
	"io"
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

// check completes the directory: below caches, unless it was named.
func (f *cacheFlags) check(caches string) error {
	switch {
	case f.off && f.dir != "":
		return cli.Usagef("--no-cache and --cache-dir contradict each other")
	case f.age <= 0 || f.age > cache.MaxAge:
		return cli.Usagef("--cache-age %s: must be above 0 and at most 24h", f.age)
	}
	if f.off || f.dir != "" {
		return nil
	}
	f.off = caches == "" // no home, no cache
	f.dir = filepath.Join(caches, "nodetrust", "audit")
	return nil
}

// open opens the cache for what judges. Without one it says why, and the audit goes on without.
func (f *cacheFlags) open(j *verify.Judge, notes io.Writer) *keptVerdicts {
	if f.off {
		return nil
	}
	key, until, err := j.Fingerprint(time.Now())
	if err == nil {
		var c *cache.Cache
		if c, err = cache.Open(f.dir, key, cache.Options{Age: f.age, Until: until}); err == nil {
			return &keptVerdicts{c, j}
		}
	}
	cli.Say(notes, cli.Warning, "%v", fmt.Errorf("judging without the cache of verdicts: %w", err))
	return nil
}

// keptVerdicts is the cache as an audit uses it: a tag may have been moved since.
type keptVerdicts struct {
	*cache.Cache
	judge *verify.Judge
}

func (k *keptVerdicts) Get(ctx context.Context, name string) (verdict.Verdict, bool) {
	v, ok := k.Cache.Get(name)
	if !ok || strings.Contains(name, "@") {
		return v, ok
	}
	image, err := verify.ParseImage(name)
	if err != nil || !k.judge.StillCurrent(ctx, image, v) {
		return verdict.Verdict{}, false
	}
	return v, true
}
