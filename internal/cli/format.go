package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/outside"
)

// Format is the value of -o: text, json or yaml, and more of some commands.
type Format string

// Add adds -o.
func (f *Format) Add(cmd *cobra.Command, more ...string) {
	*f = "text"
	formats := append([]string{"text", "json", "yaml"}, more...)
	Choice(cmd, (*string)(f), "output", "o", "format", "output format: "+Either(formats), formats...)
}

// Write writes v as JSON or YAML (with the JSON field names), or what text makes of it; w gets all of it at once.
// Strings in v, for text as well, are printable and bounded, whoever they came from. The Screen that text writes to has
// the size and the colours of w, if w is a Screen, and is a buffer: writing never fails. An error of w is returned: a
// result that nobody got must not end as one that somebody did.
func Write[T any](o Format, w io.Writer, v T, text func(*Screen, T)) error {
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
		page := plain(w)
		if s, ok := w.(*Screen); ok {
			*page = *s
		}
		page.W = &b
		text(page, v)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

// Finish writes v as Write does. Then the command ends with the exit status code.
func Finish[T any](o Format, w io.Writer, v T, text func(*Screen, T), code int) error {
	return cmp.Or(Write(o, w, v, text), Exit(code))
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
