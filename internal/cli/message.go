package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/nodetrust/nodetrust/internal/outside"
)

// Kind is what a message on standard error is.
type Kind string

// Kinds of messages.
const (
	Error   Kind = "error"
	Warning Kind = "warning"
	Note    Kind = "note"
	Hint    Kind = "hint"
)

// mostLines bounds what is said of one error: a file can have as many faults, and a server can send more lines.
const mostLines = 1000

// Say writes a message, each line of it as "nodetrust: KIND: LINE". Lines are printable and bounded.
func Say(w io.Writer, kind Kind, format string, args ...any) {
	lines := 0
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		if lines++; lines > mostLines {
			fmt.Fprintf(w, "nodetrust: %s: … and more\n", kind)
			return
		}
		fmt.Fprintf(w, "nodetrust: %s: %s\n", kind, outside.Name(line))
	}
}
