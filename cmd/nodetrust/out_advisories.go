package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/trust"
)

type advisoriesOutput struct {
	Advisories []advisoryRow `json:"advisories"`
}

type advisoryRow struct {
	trust.Advisory
	// Readers are the rows of the table whose library has the hole.
	Readers []string `json:"readers"`
}

func advisoriesTable() advisoriesOutput {
	out := advisoriesOutput{Advisories: []advisoryRow{}}
	for _, a := range trust.Advisories() {
		row := advisoryRow{Advisory: a, Readers: []string{}}
		for _, r := range trust.Readers() {
			for _, has := range r.Advisories() {
				if has.ID == a.ID {
					row.Readers = append(row.Readers, r.Name)
				}
			}
		}
		out.Advisories = append(out.Advisories, row)
	}
	return out
}

func writeAdvisories(w io.Writer, v advisoriesOutput) error {
	var b strings.Builder
	for _, a := range v.Advisories {
		fmt.Fprintf(&b, "%s", a.ID)
		if a.CVE != "" {
			fmt.Fprintf(&b, " (%s)", a.CVE)
		}
		fmt.Fprintf(&b, ": %s\n", a.Title)
		fmt.Fprintf(&b, "  libraries: %s\n", affected(a.Advisory))
		fmt.Fprintf(&b, "  fixed in:  %s\n", strings.Join(append([]string{a.Fixed}, a.Backports...), ", "))
		readers := strings.Join(ranges(a.Readers), ", ")
		if a.Build != "" {
			readers = "of programs with the build tag " + a.Build + "; no row is known to be one"
		}
		fmt.Fprintf(&b, "  readers:   %s\n", cli.Dash(readers))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// affected says which versions of the library have a hole.
func affected(a trust.Advisory) string {
	out := "before " + a.Fixed
	if a.Since != "" {
		out = "from " + a.Since + " on, " + out
	}
	for i, v := range a.Backports {
		line := v[:strings.LastIndex(v, ".")]
		if i == 0 {
			out += ", but not"
		} else {
			out += ","
		}
		out += fmt.Sprintf(" %s from %s on", line, v)
	}
	return out
}

// ranges writes rows of one product that follow each other in the table of readers as "FIRST to LAST".
func ranges(names []string) []string {
	has := map[string]bool{}
	for _, n := range names {
		has[n] = true
	}
	var out []string
	var first, last string
	flush := func() {
		switch {
		case first == "":
		case first == last:
			out = append(out, first)
		default:
			out = append(out, first+" to "+last)
		}
		first = ""
	}
	for _, r := range trust.Readers() {
		if !has[r.Name] {
			flush()
			continue
		}
		if first != "" && product(first) != product(r.Name) {
			flush()
		}
		if first == "" {
			first = r.Name
		}
		last = r.Name
	}
	flush()
	return out
}

// product is the name of a reader without its version.
func product(reader string) string { return strings.TrimRight(reader, "0123456789.-") }
