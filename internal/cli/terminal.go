package cli

import (
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nodetrust/nodetrust/internal/outside"
)

// Colour is the sequence that begins a colour on a terminal.
type Colour string

// Colours of text.
const (
	Red    Colour = "\x1b[31m"
	Green  Colour = "\x1b[32m"
	Yellow Colour = "\x1b[33m"
)

// Sequences that control a terminal. Only a Screen and a Bar write them.
const (
	noColour    = "\x1b[0m"
	hideCursor  = "\x1b[?25l"
	showCursor  = "\x1b[?25h"
	clearScreen = "\x1b[2J"
	home        = "\x1b[H"
	clearBelow  = "\x1b[J"
	clearLine   = "\x1b[K"
)

// NewWriter returns what all that the program writes goes through: lines of printable text pass, for the shell's
// completion, which args may ask for, with tabs. What controls a terminal passes by a Screen and a Bar only, and bytes
// that must arrive as they are by WriteFile.
func NewWriter(w io.Writer, args []string) *outside.Writer {
	if len(args) > 0 {
		switch args[0] {
		case "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
			return outside.NewWriter(w, "\t")
		}
	}
	return outside.NewWriter(w)
}

// unwrap returns the writer behind w, for what must arrive byte by byte, and for asking what it is.
func unwrap(w io.Writer) io.Writer {
	if b, ok := w.(interface{ Unwrap() io.Writer }); ok {
		return b.Unwrap()
	}
	return w
}

// WriteFile writes the bytes of a file, which are no message, as they are.
func WriteFile(w io.Writer, b []byte) error {
	_, err := unwrap(w).Write(b)
	return err
}

// terminalOf returns the terminal that w writes to in the end; false if it is none.
func terminalOf(w io.Writer) (*os.File, bool) {
	f, ok := unwrap(w).(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// Screen is a place to show results: a terminal, or anything else.
type Screen struct {
	// W takes lines of text; on a terminal colours as well.
	W          io.Writer
	TTY, Color bool
	// Width and Height return the size in characters; 0 is no limit.
	Width, Height func() int
	// Drawn says that Draw has shown something.
	Drawn bool
}

// plain returns a screen without a size and without colours.
func plain(w io.Writer) *Screen {
	return &Screen{W: w, Width: func() int { return 0 }, Height: func() int { return 0 }}
}

// NewScreen returns the screen that w writes to.
func NewScreen(w io.Writer) *Screen {
	s := plain(w)
	f, ok := terminalOf(w)
	if !ok {
		return s
	}
	s.TTY = true
	s.W = outside.NewWriter(f, string(Red), string(Green), string(Yellow), noColour, hideCursor, showCursor,
		clearScreen, home, clearBelow, clearLine)
	s.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	size := func() (int, int) {
		w, h, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0
		}
		return w, h
	}
	s.Width = func() int { w, _ := size(); return w }
	s.Height = func() int { _, h := size(); return h }
	return s
}

func (s *Screen) Write(b []byte) (int, error) { return s.W.Write(b) }

// Paint returns text in a colour, where the screen has colours.
func (s *Screen) Paint(c Colour, text string) string {
	if !s.Color {
		return text
	}
	return string(c) + text + noColour
}
