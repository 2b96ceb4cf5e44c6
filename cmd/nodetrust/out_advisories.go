package main

import (
	"fmt"
	"slices"
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
			if slices.ContainsFunc(r.Advisories(), func(has trust.Advisory) bool { return has.ID == a.ID }) {
				row.Readers = append(row.Readers, r.Name)
			}
		}
		out.Advisories = append(out.Advisories, row)
	}
	return out
}

func writeAdvisories(w *cli.Screen, v advisoriesOutput) {
	for _, a := range v.Advisories {
		fmt.Fprintf(w, "%s", a.ID)
		if a.CVE != "" {
			fmt.Fprintf(w, " (%s)", a.CVE)
		}
		fmt.Fprintf(w, ": %s\n", a.Title)
		fmt.Fprintf(w, "  libraries: %s\n", affected(a.Advisory))
		fmt.Fprintf(w, "  fixed in:  %s\n", strings.Join(append([]string{a.Fixed}, a.Backports...), ", "))
		readers := strings.Join(ranges(a.Readers), ", ")
		if a.Build != "" {
			readers = "of programs with the build tag " + a.Build + "; no row is known to be one"
		}
		fmt.Fprintf(w, "  readers:   %s\n", cli.Dash(readers))
	}
}

// affected says which versions of the library have a hole.
func affected(a trust.Advisory) string {
	out := "before " + a.Fixed
	if a.Since != "" {
		out = "from " + a.Since + " on, " + out
	}
	for i, v := range a.Backports {
		if i == 0 {
			out += ", but not"
		} else {
			out += ","
		}
		out += fmt.Sprintf(" %s from %s on", v[:strings.LastIndex(v, ".")], v)
	}
	return out
}

// ranges writes rows of one product that follow each other in the table of readers as "FIRST to LAST".
func ranges(names []string) (out []string) {
	before := false // whether the row before is one of names
	for i, r := range trust.Readers() {
		one := slices.Contains(names, r.Name)
		switch {
		case !one:
		case before && product(trust.Readers()[i-1].Name) == product(r.Name):
			first, _, _ := strings.Cut(out[len(out)-1], " to ")
			out[len(out)-1] = first + " to " + r.Name
		default:
			out = append(out, r.Name)
		}
		before = one
	}
	return out
}

// product is the name of a reader without its version.
func product(reader string) string { return strings.TrimRight(reader, "0123456789.-") }
