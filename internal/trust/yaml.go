package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of one file: the length of a list, and the problems that are reported.
const (
	maxItems    = 10_000
	maxProblems = 100
)

// document parses data as exactly one YAML document. It returns nil after it added a problem.
func (w *walker) document(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		w.addf(0, "", "is empty")
		return nil
	case err != nil:
		w.syntax(data, err)
		return nil
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		w.addf(next.Line, "", "must be the only document of the file")
		return nil
	case !errors.Is(err, io.EOF):
		w.syntax(data, err)
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].Tag == "!!null" {
		w.addf(0, "", "is empty")
		return nil
	}
	return doc.Content[0]
}

// syntax turns an error of the YAML library into a problem with a line, which the library only has as text.
func (w *walker) syntax(data []byte, err error) {
	for i, line := range strings.Split(string(data), "\n") {
		if indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; strings.Contains(indent, "\t") {
			w.addf(i+1, "", "is indented with a tab; YAML wants spaces")
			return
		}
	}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if n, text, ok := strings.Cut(rest, ": "); ok {
			if l, err := strconv.Atoi(n); err == nil {
				line, msg = l, text
			}
		}
	}
	w.addf(line, "", "is no YAML: %s", msg)
}

// walker reads a tree of YAML nodes and collects problems.
type walker struct {
	file     string
	problems Problems
}

func (w *walker) addf(line int, path, format string, args ...any) {
	switch len(w.problems) {
	case maxProblems:
		w.problems = append(w.problems, Problem{File: w.file, Line: 1 << 30, Message: "has more problems"})
	case maxProblems + 1:
	default:
		w.problems = append(w.problems, Problem{File: w.file, Line: line, Path: path, Message: fmt.Sprintf(format, args...)})
	}
}

// field reads one value of a mapping.
type field struct {
	name     string
	required bool
	read     func(n *yaml.Node, path string)
}

func required(name string, read func(*yaml.Node, string)) field {
	return field{name: name, required: true, read: read}
}

func optional(name string, read func(*yaml.Node, string)) field {
	return field{name: name, read: read}
}

// mapping reads a mapping whose keys must be those of fields, each at most once.
func (w *walker) mapping(n *yaml.Node, path string, fields ...field) {
	if !w.kind(n, path, yaml.MappingNode, "a mapping") {
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := join(path, k.Value)
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			w.addf(k.Line, path, "has a key that is no plain name")
			continue
		}
		j := slices.IndexFunc(fields, func(f field) bool { return f.name == k.Value })
		switch {
		case j < 0:
			w.addf(k.Line, at, "is no known field (known: %s)", names(fields))
		case seen[k.Value]:
			w.addf(k.Line, at, "is given twice")
		default:
			seen[k.Value] = true
			fields[j].read(v, at)
		}
	}
	for _, f := range fields {
		if f.required && !seen[f.name] {
			w.addf(n.Line, join(path, f.name), "is missing")
		}
	}
}

func names(fields []field) string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	return strings.Join(out, ", ")
}

func join(path, name string) string {
	if !printable(name) {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) || r == ' ' })
}

// list calls read for each item of a list that must not be empty.
func (w *walker) list(n *yaml.Node, path string, read func(n *yaml.Node, path string)) {
	if !w.kind(n, path, yaml.SequenceNode, "a list") {
		return
	}
	if len(n.Content) == 0 {
		w.addf(n.Line, path, "must not be empty")
	}
	if len(n.Content) > maxItems {
		w.addf(n.Line, path, "has more than %d entries", maxItems)
		return
	}
	for i, c := range n.Content {
		read(c, fmt.Sprintf("%s[%d]", path, i))
	}
}

func (w *walker) strings(out *[]string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		w.list(n, path, func(n *yaml.Node, path string) {
			s, ok := w.text(n, path)
			if ok && slices.Contains(*out, s) {
				w.addf(n.Line, path, "%q is given twice", s)
				return
			}
			if ok {
				*out = append(*out, s)
			}
		})
	}
}

func (w *walker) string(out *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) { *out, _ = w.text(n, path) }
}

// text reads a string that is not empty.
func (w *walker) text(n *yaml.Node, path string) (string, bool) {
	if !w.kind(n, path, yaml.ScalarNode, "a string") {
		return "", false
	}
	switch {
	case n.Tag == "!!null" || n.Tag == "!!str" && n.Value == "":
		w.addf(n.Line, path, "must not be empty")
	case n.Tag != "!!str":
		w.addf(n.Line, path, "must be a string, not %s (put it in quotes)", strings.TrimPrefix(n.Tag, "!!"))
	default:
		return n.Value, true
	}
	return "", false
}

func (w *walker) bool(out *bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		switch {
		case !w.kind(n, path, yaml.ScalarNode, "true or false"):
		case n.Tag != "!!bool":
			w.addf(n.Line, path, "must be true or false")
		default:
			*out = strings.EqualFold(n.Value, "true")
		}
	}
}

func (w *walker) kind(n *yaml.Node, path string, want yaml.Kind, name string) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		w.addf(n.Line, path, "anchors and aliases are not supported")
	case n.Kind == want && !strings.HasPrefix(n.Tag, "!!"):
		w.addf(n.Line, path, "has the tag %s, which is not supported", n.Tag)
	case n.Kind == want:
		return true
	case n.Tag == "!!null":
		w.addf(n.Line, path, "must not be empty")
	default:
		w.addf(n.Line, path, "must be %s", name)
	}
	return false
}
