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
	found := 0
	each := func(b bundle) error {
		if b.Schema != bundleSchema {
			return ctx.Err()
		}
		found++
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
	if err == nil && found == 0 {
		err = fmt.Errorf("reading the catalog: %s holds no olm.bundle: it is no file-based catalog", s.dir)
	}
	return err
}

func (b bundle) uses(yield func(audit.Use) error) error {
	by := "catalog:" + b.Package + "/" + b.Name
	err := yield(audit.Use{Image: b.Image, By: by})
	for _, r := range b.Related {
		if err == nil && r.Image != b.Image {
			err = yield(audit.Use{Image: r.Image, By: by})
		}
	}
	return err
}

// documents calls each with every document of a file of concatenated JSON or YAML.
func documents(r io.Reader, each func(bundle) error) error {
	budget := &budgetReader{r: r, left: maxDocument}
	in := bufio.NewReader(budget)
	next := bundles(yaml.NewDecoder(in).Decode, (*yaml.Node).Decode)
	switch first, err := firstByte(in); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	case first == '{':
		next = bundles(json.NewDecoder(in).Decode,
			func(raw *json.RawMessage, v any) error { return json.Unmarshal(*raw, v) })
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

// bundles returns what decodes a bundle after the other. Of a Raw document part decodes what is asked for: of another
// schema, which is anybody's, nothing but the schema.
func bundles[Raw any](decode func(any) error, part func(*Raw, any) error) func() (bundle, error) {
	return func() (b bundle, err error) {
		var raw Raw
		var meta struct {
			Schema string `json:"schema" yaml:"schema"`
		}
		if err := decode(&raw); err != nil {
			return b, err
		}
		if err := part(&raw, &meta); err != nil || meta.Schema != bundleSchema {
			return b, err
		}
		err = part(&raw, &b)
		return b, err
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
