package main

import (
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nodetrust/nodetrust/internal/verify"
)

// TestFlags: flags of one name have one type, and one text and default, but for those that mean another thing.
func TestFlags(t *testing.T) {
	differ := map[string]string{
		"as":       "release verify: the reference that must have been signed",
		"key":      "keys that sign, keys of which all must sign, and files for the names of a trust config",
		"output":   "render writes files; audit has html as well",
		"platform": "signatures bundle takes several",
		"root":     "lint looks at a host, others judge by one",
		"timeout":  "deadlines of other things",
		"to":       "a format, and a directory",
	}
	first := map[string]*pflag.Flag{}
	owner := map[string]string{}
	seen := map[string]bool{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			g, ok := first[f.Name]
			if !ok {
				first[f.Name], owner[f.Name] = f, c.CommandPath()
				return
			}
			if f.Name == "timeout" && f.Value.Set("0s").Error() != g.Value.Set("0s").Error() {
				t.Errorf("--%s of %s and of %s have two errors", f.Name, c.CommandPath(), owner[f.Name])
			}
			if f.Usage == g.Usage && f.DefValue == g.DefValue && f.Value.Type() == g.Value.Type() {
				return
			}
			seen[f.Name] = true
			if differ[f.Name] == "" {
				t.Errorf("--%s\n%s: %s %q (default %q)\n%s: %s %q (default %q)", f.Name, c.CommandPath(), f.Value.Type(),
					f.Usage, f.DefValue, owner[f.Name], g.Value.Type(), g.Usage, g.DefValue)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(verify.Env{}))
	for name, why := range differ {
		if !seen[name] {
			t.Errorf("--%s is the same everywhere, although: %s", name, why)
		}
	}
}
