// Package page writes an audit as one self-contained HTML page. JavaScript only adds searching and sorting.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

//go:embed page.html
var source string

//go:embed page.css
var style string

//go:embed page.js
var script string

// maxBars bounds a chart; its last bar sums up the rest.
const maxBars = 24

type view struct {
	*audit.Report
	Style  template.CSS
	Script template.JS
	// Policy allows the browser this style and this script only, by their hashes.
	Policy     string
	Checked    string
	Answer     verdict.Answer
	Registries []bar
	Reasons    []bar
	// Lockouts would be refused; Doubts could not be judged.
	Lockouts, Doubts []audit.Lockout
	Rows             []row
}

// bar is one bar of a chart; its parts are in percent of the widest bar.
type bar struct {
	Label string
	Query string // the text to search for
	audit.Counts
	Parts []part
}

type part struct {
	Class    verdict.Answer
	X, Width string
}

type row struct {
	audit.Image
	Rank  int
	Uses  int
	First []string // the first of UsedBy
	Rest  []string
}

// Write writes the page. Names and messages appear as text, never as markup.
func Write(w io.Writer, r *audit.Report) error {
	t, err := template.New("page").Parse(source)
	if err != nil {
		return err
	}
	v := view{Report: r, Style: template.CSS(style), Script: template.JS(script), Answer: r.Answer()}
	v.Policy = fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; base-uri 'none'; form-action 'none'",
		hash(style), hash(script))
	v.Checked = r.Summary.CheckedAt.UTC().Format(time.RFC3339)
	for _, l := range r.Summary.Lockout {
		if l.Answer == verdict.Refuse {
			v.Lockouts = append(v.Lockouts, l)
		} else {
			v.Doubts = append(v.Doubts, l)
		}
	}
	v.Registries, v.Reasons = registries(r.Summary.Registries), reasons(r.Summary.Reasons)
	for _, m := range r.Images {
		v.Rows = append(v.Rows, newRow(m))
	}
	var b bytes.Buffer // buffered: a failure leaves no partial page
	if err := t.Execute(&b, v); err != nil {
		return err
	}
	_, err = b.WriteTo(w)
	return err
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func newRow(m audit.Image) row {
	const shown = 3
	out := row{Image: m, Uses: len(m.UsedBy), First: m.UsedBy}
	if out.Uses > shown+1 {
		out.First, out.Rest = m.UsedBy[:shown], m.UsedBy[shown:]
	}
	switch m.Answer {
	case verdict.Accept:
		out.Rank = 2
	case verdict.Unknown:
		out.Rank = 1
	}
	return out
}

func registries(list []audit.Registry) []bar {
	var out []bar
	for _, r := range list {
		out = append(out, bar{Label: r.Registry, Query: r.Registry + "/", Counts: r.Counts})
	}
	return scale(out)
}

func reasons(list []audit.Reason) []bar {
	var out []bar
	for _, r := range list {
		b := bar{Label: string(r.Reason), Query: string(r.Reason)}
		if b.Counts.Add(r.Answer, r.Images); r.Answer == verdict.Accept && b.Label == "" {
			b.Label, b.Query = "accepted", "verdict:accept"
		}
		out = append(out, b)
	}
	return scale(out)
}

// scale sets the rectangles, and sums up the bars beyond maxBars.
func scale(list []bar) []bar {
	if len(list) > maxBars {
		rest := bar{Label: fmt.Sprintf("%d others", len(list)-maxBars+1)}
		for _, b := range list[maxBars-1:] {
			rest.Accept, rest.Refuse, rest.Unknown = rest.Accept+b.Accept, rest.Refuse+b.Refuse, rest.Unknown+b.Unknown
		}
		list = append(list[:maxBars-1:maxBars-1], rest)
	}
	widest := 1
	for _, b := range list {
		widest = max(widest, b.Total())
	}
	for i := range list {
		b := &list[i]
		x := 0.0
		for _, p := range []struct {
			class verdict.Answer
			n     int
		}{{verdict.Refuse, b.Refuse}, {verdict.Unknown, b.Unknown}, {verdict.Accept, b.Accept}} {
			if p.n == 0 {
				continue
			}
			width := 100 * float64(p.n) / float64(widest)
			b.Parts = append(b.Parts, part{p.class, fmt.Sprintf("%.2f", x), fmt.Sprintf("%.2f", width)})
			x += width
		}
	}
	return list
}

// Words returns the numbers as text, for readers who don't see colours.
func (b bar) Words() string {
	var out []string
	for _, p := range []struct {
		n    int
		what string
	}{{b.Refuse, "refused"}, {b.Unknown, "unknown"}, {b.Accept, "accepted"}} {
		if p.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(out, ", ")
}
