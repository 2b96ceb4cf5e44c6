package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/outside"
)

// outputFlag is -o of every command but render.
type outputFlag string

func (o *outputFlag) add(cmd *cobra.Command) {
	*o = "text"
	cmd.Flags().VarP(o, "output", "o", "output format: text, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output",
		cobra.FixedCompletions([]cobra.Completion{"text", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

func (o *outputFlag) String() string { return string(*o) }
func (o *outputFlag) Type() string   { return "format" }

func (o *outputFlag) Set(s string) error {
	switch s {
	case "text", "json", "yaml":
		*o = outputFlag(s)
		return nil
	}
	return fmt.Errorf("must be text, json or yaml")
}

// write writes v as JSON or YAML (with the JSON field names), or what text makes of it; w gets all of it at once.
// Strings in v, for text as well, are printable and bounded, whoever they came from. An error of w is returned: a
// result that nobody got must not end as one that somebody did.
func write[T any](o outputFlag, w io.Writer, v T, text func(io.Writer, T) error) error {
	v = outside.Clean(v)
	var b bytes.Buffer
	var err error
	switch o {
	case "json":
		enc := json.NewEncoder(&b)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(v)
	case "yaml":
		err = writeYAML(&b, v)
	default:
		err = text(&b, v)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

func writeYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// JSON is YAML: decoding into a node keeps the order of the fields.
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return err
	}
	blockStyle(&n)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return err
	}
	return enc.Close()
}

func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}
