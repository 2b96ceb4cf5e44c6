// Command brief reads `go test -json` and writes what a reader wants of it: all that failed and was skipped, with their
// output, and the line of each package.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
}

func main() {
	if err := brief(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "brief:", err)
		os.Exit(1)
	}
}

func brief(in io.Reader, out io.Writer) error {
	type test struct{ pkg, name string }
	output := map[test][]string{}
	skipped := 0
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				// What the go command says beside the events.
				fmt.Fprintf(out, "%s", line)
				continue
			}
			t := test{e.Package, e.Test}
			switch {
			case e.Action == "output" && strings.HasPrefix(e.Output, "=== "), e.Output == "PASS\n":
			case e.Action == "output" && e.Test == "", e.Action == "build-output":
				fmt.Fprint(out, e.Output)
			case e.Action == "output":
				output[t] = append(output[t], e.Output)
			case e.Test == "":
			case e.Action == "fail", e.Action == "skip":
				if e.Action == "skip" {
					skipped++
				}
				fmt.Fprint(out, strings.Join(output[t], ""))
				delete(output, t)
			case e.Action == "pass":
				delete(output, t)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	// Of tests that never ended: a panic, or the deadline.
	for _, lines := range output {
		fmt.Fprint(out, strings.Join(lines, ""))
	}
	if skipped > 0 {
		fmt.Fprintf(out, "%d skipped, for the reasons above\n", skipped)
	}
	return nil
}
