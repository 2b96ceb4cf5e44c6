package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// UsageTemplate is cobra's, with the exit status and the examples last.
const UsageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]

Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}

EXIT STATUS
  0  ok, or accepted
  1  the operation failed
  2  bad usage or invalid input
  3  refused, drifted, or findings of severity error
  4  could not tell (unknown is never 0 and never 3){{if .HasExample}}

EXAMPLES
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" says more about a command.{{end}}
`

// widestHelp is how wide help gets on a wider terminal.
const widestHelp = 120

// FitHelp makes the help of root and of all commands below it fit a terminal of this width; 0 is no limit. Examples
// stay as they are: they are there to be copied.
func FitHelp(root *cobra.Command, width int) {
	if width == 0 {
		return
	}
	width = min(width, widestHelp)
	root.SetUsageTemplate(strings.ReplaceAll(UsageTemplate, ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", width)))
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
		out = append(out, Wrap("", "", strings.Join(paragraph, " "), width)...)
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
			out = append(out, Wrap(line[:at], strings.Repeat(" ", at), line[at:], width)...)
		default:
			paragraph = append(paragraph, line)
		}
	}
	flush()
	return strings.Join(out, "\n")
}

// Wrap breaks text at its spaces into lines of at most width columns. The first begins with first, the others with
// rest. A word that is too long has a line of its own. There is no line without a word.
func Wrap(first, rest, text string, width int) (lines []string) {
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
