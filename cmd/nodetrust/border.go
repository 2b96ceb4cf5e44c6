package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nodetrust/nodetrust/internal/outside"
)

// Sequences of control characters that the program itself writes to a terminal: colours and pictures to a screen,
// progress to a bar.
var (
	screenControls = []string{red, green, yellow, plain, hideCursor, showCursor, clearScreen, home, clearBelow, clearLine}
	barControls    = []string{"\r", clearLine}
)

const (
	red         = "\x1b[31m"
	green       = "\x1b[32m"
	yellow      = "\x1b[33m"
	plain       = "\x1b[0m"
	hideCursor  = "\x1b[?25l"
	showCursor  = "\x1b[?25h"
	clearScreen = "\x1b[2J"
	home        = "\x1b[H"
	clearBelow  = "\x1b[J"
	clearLine   = "\x1b[K"
)

// border is what all that the program writes goes through: lines of printable text pass, for the shell's completion
// with tabs. What controls a terminal passes by screens and bars only, and bytes that must arrive as they are by
// exactly.
func border(w io.Writer, args []string) *outside.Writer {
	if len(args) > 0 {
		switch args[0] {
		case "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
			return outside.NewWriter(w, "\t")
		}
	}
	return outside.NewWriter(w)
}

// behind is the writer behind the border.
func behind(w io.Writer) io.Writer {
	if b, ok := w.(interface{ Unwrap() io.Writer }); ok {
		return b.Unwrap()
	}
	return w
}

// exactly writes the bytes of a file, which are no message.
func exactly(w io.Writer, b []byte) error {
	_, err := behind(w).Write(b)
	return err
}

// terminalOf is the terminal that w writes to in the end; false if it is none.
func terminalOf(w io.Writer) (*os.File, bool) {
	f, ok := behind(w).(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// mostLines bounds what is said of one error: a file can have that many faults, and a server can send more lines.
const mostLines = 1000

// say writes an error or a warning, one line for each that it joins.
func say(w io.Writer, what string, err error) {
	lines := 0
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if lines++; lines > mostLines {
			fmt.Fprintf(w, "nodetrust: %s: … and more\n", what)
			return
		}
		fmt.Fprintf(w, "nodetrust: %s: %s\n", what, outside.Name(line))
	}
}
