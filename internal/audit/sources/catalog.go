package sources

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/outside"
)

// catalogSource finds the images of the bundles in a file-based catalog of operators: the bundles' own and their
// related images. It streams documents: a catalog has hundreds of MiB.
type catalogSource struct{ dir string }

const bundleSchema = "olm.bundle"

type bundle struct {
	Schema  string `json:"schema" yaml:"schema"`
	Package string `json:"package" yaml:"package"`
	Name    string `json:"name" yaml:"name"`
	Image   string `json:"image" yaml:"image"`
	Related []struct {
		Image string `json:"image" yaml:"image"`
	} `json:"relatedImages" yaml:"relatedImages"`
}

func (s catalogSource) Uses(ctx context.Context, yield func(audit.Use) error) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return fmt.Errorf("reading the catalog: %w", err)
	}
	defer root.Close()
	bundles := 0
	each := func(b bundle) error {
		if b.Schema != bundleSchema {
			return ctx.Err()
		}
		bundles++
		return b.uses(yield)
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading the catalog: %w", err)
		}
		// A mounted ConfigMap has the targets of its links in hidden directories.
		if e.IsDir() && name != "." && strings.HasPrefix(e.Name(), ".") {
			return fs.SkipDir
		}
		switch path.Ext(name) {
		case ".json", ".yaml", ".yml":
		default:
			return nil
		}
		f, err := bounded.OpenRegular(root.OpenFile, name)
		if errors.Is(err, bounded.ErrDirectory) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the catalog: %w", err)
		}
		defer f.Close()
		if err := documents(f, each); err != nil {
			return fmt.Errorf("reading %s of the catalog: %w", outside.Text(name), err)
		}
		return nil
	})
	if err == nil && bundles == 0 {
		err = fmt.Errorf("reading the catalog: %s holds no olm.bundle: it is no file-based catalog", s.dir)
	}
	return err
}

func (b bundle) uses(yield func(audit.Use) error) error {
	by := "catalog:" + b.Package + "/" + b.Name
	if err := yield(audit.Use{Image: b.Image, By: by}); err != nil {
		return err
	}
	for _, r := range b.Related {
		if r.Image == b.Image {
			continue
		}
		if err := yield(audit.Use{Image: r.Image, By: by}); err != nil {
			return err
		}
	}
	return nil
}

// documents calls each with every document of a file of concatenated JSON or YAML.
func documents(r io.Reader, each func(bundle) error) error {
	budget := &budgetReader{r: r, left: maxDocument}
	in := bufio.NewReader(budget)
	next := yamlDocuments(in)
	switch first, err := firstByte(in); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	case first == '{':
		next = jsonDocuments(in)
	}
	for {
		b, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = each(b)
		}
		if err != nil {
			return err
		}
		budget.left = maxDocument
	}
}

// firstByte returns the first byte that is no white space, without consuming it.
func firstByte(in *bufio.Reader) (byte, error) {
	for {
		head, err := in.Peek(1)
		if err != nil {
			return 0, err
		}
		if !bytes.Contains([]byte(" \t\r\n"), head) {
			return head[0], nil
		}
		_, _ = in.Discard(1)
	}
}

// Documents of another schema are anybody's: nothing but the schema is decoded of them.

func jsonDocuments(in io.Reader) func() (bundle, error) {
	dec := json.NewDecoder(in)
	return func() (b bundle, err error) {
		var raw json.RawMessage
		var meta struct {
			Schema string `json:"schema"`
		}
		if err := dec.Decode(&raw); err != nil {
			return b, err
		}
		if err := json.Unmarshal(raw, &meta); err != nil || meta.Schema != bundleSchema {
			return b, err
		}
		return b, json.Unmarshal(raw, &b)
	}
}

func yamlDocuments(in io.Reader) func() (bundle, error) {
	dec := yaml.NewDecoder(in)
	return func() (b bundle, err error) {
		var node yaml.Node
		var meta struct {
			Schema string `yaml:"schema"`
		}
		if err := dec.Decode(&node); err != nil {
			return b, err
		}
		if err := node.Decode(&meta); err != nil || meta.Schema != bundleSchema {
			return b, err
		}
		return b, node.Decode(&b)
	}
}

// budgetReader reads at most left bytes of r until left is set again.
type budgetReader struct {
	r    io.Reader
	left int
}

func (b *budgetReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("a document of more than %d bytes", maxDocument)
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
