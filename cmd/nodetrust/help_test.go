package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func TestFill(t *testing.T) {
	const text = "One two three\nfour five.\n\n  files          a tree below a directory\n  short\n\nVery-long-word-that-fits-nowhere x"
	const want = "One two three four\nfive.\n\n  files          a\n                 tree\n                 below\n                 a\n                 directory\n  short\n\n" +
		"Very-long-word-that-fits-nowhere\nx"
	if got := fill(text, 20); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestHelpFits: on a terminal of 80 columns no line of any help is longer, but for examples, usage lines and what has
// no space to break it at.
func TestHelpFits(t *testing.T) {
	const width = 80
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		var out bytes.Buffer
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(out.String(), "\nEXAMPLES\n")
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\n")
			if utf8.RuneCountInString(line) > width && !strings.HasPrefix(line, "  nodetrust ") &&
				strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%s: %d columns: %s", c.CommandPath(), utf8.RuneCountInString(line), line)
			}
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	root := newRoot()
	fitHelp(root, width)
	check(root)
}
