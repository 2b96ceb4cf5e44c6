package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/trust"
)

type readersOutput struct {
	Readers  []readerRow   `json:"readers"`
	Features []trust.Since `json:"features"`
	// Places are where readers look, by versions of the library.
	Places []trust.Places `json:"places"`
}

type readerRow struct {
	Name string `json:"name"`
	// Library is the version of the image library that the reader is taken to have.
	Library string `json:"library"`
	// Butane and Ignition are those of rendered MachineConfigs.
	Butane   string `json:"butane,omitempty"`
	Ignition string `json:"ignition,omitempty"`
	// Key is the key of registries.d that names where signatures lie.
	Key  string `json:"key"`
	Note string `json:"note,omitempty"`
	// Source says how it is known that the reader has this library.
	Source  string `json:"source"`
	Default bool   `json:"default,omitempty"`
	// Lacks are features that the reader doesn't know; Ignores are those of them that it loads and never uses.
	Lacks   []trust.Feature `json:"lacks"`
	Ignores []trust.Feature `json:"ignores"`
	// Advisories are the IDs of the known holes in the reader's verifier.
	Advisories []string `json:"advisories"`
}

func newReadersCommand() *cobra.Command {
	var out cli.Format
	var advisories bool
	cmd := &cobra.Command{
		Use:   "readers [--advisories]",
		Short: "Print which readers of policies understand what",
		Long: `Prints the readers that --reader knows, and the features of policy.json and registries.d that some of them lack. podman, cri-o,
skopeo and containers-image take any version: one between two rows counts as the older row. Readers marked with * are the default.

--advisories prints the known holes of the readers' verifiers instead: what each lets through whatever the policy says, which versions of
the image library have it and which readers have such a library. A distribution may have mended its package and kept the number.
docs/advisories.md says what to do.`,
		Example: "  nodetrust readers\n  nodetrust readers -o json\n  nodetrust readers --advisories",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.NewScreen(cmd.OutOrStdout())
			if advisories {
				return cli.Write(out, s, advisoriesTable(), writeAdvisories)
			}
			return cli.Write(out, s, readersTable(), writeReaders)
		},
	}
	out.Add(cmd)
	cmd.Flags().BoolVar(&advisories, "advisories", false, "print the known holes of the readers' verifiers")
	return cmd
}

func readersTable() readersOutput {
	out := readersOutput{Features: trust.Features(), Places: trust.SearchPaths()}
	for _, r := range trust.Readers() {
		row := readerRow{
			Name: r.Name, Library: r.Library.String(), Butane: r.Butane(), Ignition: r.Ignition(), Note: r.Note,
			Source: r.Source, Key: r.LookasideKey(), Lacks: []trust.Feature{}, Ignores: []trust.Feature{},
			Advisories: []string{},
		}
		row.Default = slices.ContainsFunc(trust.DefaultReaders(), func(d trust.Reader) bool { return d.Name == r.Name })
		for _, a := range r.Advisories() {
			row.Advisories = append(row.Advisories, a.ID)
		}
		for _, f := range out.Features {
			switch {
			case r.Supports(f.Feature):
				continue
			case f.Loads:
				row.Ignores = append(row.Ignores, f.Feature)
			}
			row.Lacks = append(row.Lacks, f.Feature)
		}
		out.Readers = append(out.Readers, row)
	}
	return out
}

func writeReaders(s *cli.Screen, v readersOutput) {
	cli.Table(s, v.Features,
		cli.Column[trust.Since]{Head: "FEATURE", Cell: func(f trust.Since) string { return string(f.Feature) }},
		cli.Column[trust.Since]{Head: "SINCE LIBRARY", Cell: func(f trust.Since) string { return f.Library }},
		cli.Column[trust.Since]{Head: "OLDER READERS", Least: 20, Cell: func(f trust.Since) string { return f.Older }})
	fmt.Fprintln(s)
	type column = cli.Column[readerRow]
	cli.Table(s, v.Readers,
		column{Head: "READER", Cell: func(r readerRow) string { return r.Name + map[bool]string{true: " *"}[r.Default] }},
		column{Head: "LIBRARY", Cell: func(r readerRow) string { return r.Library }},
		column{Head: "IGNITION", Drop: 4, Cell: func(r readerRow) string { return cli.Dash(r.Ignition) }},
		column{Head: "BUTANE", Drop: 3, Cell: func(r readerRow) string { return cli.Dash(r.Butane) }},
		column{Head: "KEY", Drop: 5, Cell: func(r readerRow) string { return r.Key }},
		column{Head: "LACKS", Cell: func(r readerRow) string { return lacks(r.Lacks) }},
		column{Head: "NOTE", Drop: 2, Least: 12, Cell: func(r readerRow) string { return cli.Dash(r.Note) }},
		column{Head: "SOURCE", Drop: 1, Least: 20, Cell: func(r readerRow) string { return r.Source }})
	for _, p := range v.Places {
		how := "the first that exists"
		if p.Merges {
			how = "all of them"
		}
		fmt.Fprintf(s, "\nsince library %s root reads the first of\n  %s\nand of the registries.d directories %s:\n  %s\n",
			p.Since, strings.Join(p.Policy, "\n  "), how, strings.Join(p.Registries, "\n  "))
	}
}

// lacks returns the first feature that is missing: the features that came later are missing too.
func lacks(f []trust.Feature) string {
	switch len(f) {
	case 0:
		return "-"
	case 1:
		return string(f[0])
	}
	return fmt.Sprintf("%s and later", f[0])
}

// completeReaders completes --reader of a command with the rows of the table.
func completeReaders(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("reader",
		func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			for _, r := range trust.Readers() {
				names = append(names, cobra.CompletionWithDesc(r.Name,
					strings.TrimSpace("containers-image "+r.Library.String()+" "+r.Note)))
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		})
}
