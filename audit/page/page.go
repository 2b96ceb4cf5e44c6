// Package page writes an audit as one HTML page that needs nothing from the network.
package page

import (
	_ "embed"
	"html/template"
	"io"

	"github.com/nodetrust/nodetrust/audit"
)

//go:embed page.html
var source string

// Write writes the page. Whatever names and messages hold is text on it.
func Write(w io.Writer, r *audit.Report) error {
	t, err := template.New("page").Parse(source)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}
