package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nodetrust/nodetrust/trust"
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
}

func newReadersCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "readers",
		Short: "Print which readers of policies understand what",
		Long: `Prints the readers that --reader knows, and the features of policy.json and registries.d that some of them lack. podman, cri-o,
skopeo and containers-image take any version: one between two rows counts as the older row. Readers marked with * are the default.`,
		Example: "  nodetrust readers\n  nodetrust readers -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := readersTable()
			return out.write(cmd.OutOrStdout(), v, func(w io.Writer) error { return writeReaders(w, v) })
		},
	}
	out.add(cmd)
	return cmd
}

func readersTable() readersOutput {
	out := readersOutput{Features: trust.Features(), Places: trust.SearchPaths()}
	isDefault := map[string]bool{}
	for _, r := range trust.DefaultReaders() {
		isDefault[r.Name] = true
	}
	for _, r := range trust.Readers() {
		row := readerRow{Name: r.Name, Library: r.Library.String(), Butane: r.Butane(), Ignition: r.Ignition(), Note: r.Note, Source: r.Source, Default: isDefault[r.Name], Lacks: []trust.Feature{}, Ignores: []trust.Feature{}}
		row.Key = r.LookasideKey()
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

func writeReaders(w io.Writer, v readersOutput) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FEATURE\tSINCE LIBRARY\tOLDER READERS")
	for _, f := range v.Features {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.Feature, f.Library, f.Older)
	}
	fmt.Fprintln(tw, "\t\t")
	fmt.Fprintln(tw, "READER\tLIBRARY\tIGNITION\tBUTANE\tKEY\tLACKS\tNOTE\tSOURCE")
	for _, r := range v.Readers {
		name := r.Name
		if r.Default {
			name += " *"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, r.Library, dash(r.Ignition), dash(r.Butane), r.Key, dash(lacks(r.Lacks)), dash(r.Note), r.Source)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, p := range v.Places {
		how := "the first that exists"
		if p.Merges {
			how = "all of them"
		}
		fmt.Fprintf(w, "\nsince library %s root reads the first of\n  %s\nand of the registries.d directories %s:\n  %s\n", p.Since, strings.Join(p.Policy, "\n  "), how, strings.Join(p.Registries, "\n  "))
	}
	return nil
}

// lacks is the first feature that is missing: those that came later are missing too.
func lacks(f []trust.Feature) string {
	switch len(f) {
	case 0:
		return ""
	case 1:
		return string(f[0])
	}
	return fmt.Sprintf("%s and later", f[0])
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// completeReaders completes --reader of a command with the rows of the table.
func completeReaders(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("reader", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var names []cobra.Completion
		for _, r := range trust.Readers() {
			names = append(names, cobra.CompletionWithDesc(r.Name, strings.TrimSpace("containers-image "+r.Library.String()+" "+r.Note)))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}
