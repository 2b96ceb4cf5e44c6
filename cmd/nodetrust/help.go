package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// widestHelp is how wide help gets on a wider terminal.
const widestHelp = 120

// fitHelp makes the help of root and of all commands below it fit a terminal of this width. Examples stay as they
// are: they are there to be copied.
func fitHelp(root *cobra.Command, width int) {
	width = min(width, widestHelp)
	root.SetUsageTemplate(strings.ReplaceAll(usageTemplate, ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", width)))
	help := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		c.Long = fill(c.Long, width)
		help(c, args)
	})
}

// fill breaks the paragraphs of text anew, for lines of at most width columns. An indented line stays one of its own;
// what it has behind a gap of two spaces is broken below its own beginning.
func fill(text string, width int) string {
	var out, paragraph []string
	flush := func() {
		out = append(out, wrap("", "", strings.Join(paragraph, " "), width)...)
		paragraph = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case line == "":
			flush()
			out = append(out, "")
		case line[0] == ' ':
			flush()
			name := len(line) - len(strings.TrimLeft(line, " "))
			at := name
			if gap := strings.Index(line[name:], "  "); gap >= 0 {
				at = len(line) - len(strings.TrimLeft(line[name+gap:], " "))
			}
			out = append(out, wrap(line[:at], strings.Repeat(" ", at), line[at:], width)...)
		default:
			paragraph = append(paragraph, line)
		}
	}
	flush()
	return strings.Join(out, "\n")
}

// wrap breaks text at its spaces into lines of at most width columns. The first begins with first, the others with
// rest. A word that is too long has a line of its own. There is no line without a word.
func wrap(first, rest, text string, width int) (lines []string) {
	line, empty := first, true
	for _, word := range strings.Fields(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	if empty {
		return lines
	}
	return append(lines, line)
}
