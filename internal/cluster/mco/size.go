package mco

import (
	"encoding/json"
	"fmt"
)

// MaxRendered is the size in bytes that a rendered MachineConfig may have as JSON: the API server's limit for a
// request to etcd, 1.5 MiB. The MCO stops to render the pool beyond it (RenderDegraded).
const MaxRendered = 1_572_864

// metadataSize is what the metadata of a rendered MachineConfig may take, managed fields included.
const metadataSize = 8 << 10

// measure takes down how large the spec is. What is written differently in YAML has the same size.
func (c *Config) measure(spec json.RawMessage) error {
	var v map[string]any
	if err := json.Unmarshal(spec, &v); err != nil {
		return err
	}
	size := func(v any) int {
		b, _ := json.Marshal(v) // it was JSON before
		return len(b)
	}
	c.rest, c.sizes = size(v), map[string]int{}
	config, _ := v["config"].(map[string]any)
	storage, _ := config["storage"].(map[string]any)
	files, _ := storage["files"].([]any)
	for _, f := range files {
		n := size(f) + 1 // and a comma
		c.rest -= n
		if file, ok := f.(map[string]any); ok {
			if p, ok := file["path"].(string); ok {
				c.sizes[p] = n
			}
		}
	}
	return nil
}

// RenderedSize is how many bytes the pool's rendered MachineConfig has at most with ours, as JSON: the sum of all
// that its sources hold, files that another one replaces left out.
func (t Target) RenderedSize(ours Config) (int, error) {
	sources, err := t.Dump.With(ours).Sources(t.Pool, OrderOf(t.Minor))
	if err != nil {
		return 0, err
	}
	total, files := metadataSize, map[string]int{}
	for _, c := range sources {
		total += max(c.rest, 0)
		for p, n := range c.sizes {
			files[p] = max(n, files[p]) // whichever wins
		}
	}
	for _, n := range files {
		total += n
	}
	return total, nil
}

// CheckSize says that the pool's rendered MachineConfig would be too large with ours, or near it: warn is not empty
// then.
func (t Target) CheckSize(ours Config) (warn string, err error) {
	n, err := t.RenderedSize(ours)
	switch {
	case err != nil:
		return "", err
	case n > MaxRendered:
		return "", fmt.Errorf("the rendered MachineConfig of the pool would have up to %d bytes, %d of them ours; the API server takes at most %d", n, ours.Size(), MaxRendered)
	case n > MaxRendered/4*3:
		return fmt.Sprintf("the rendered MachineConfig of the pool will have up to %d bytes, %d of them ours; the API server takes at most %d", n, ours.Size(), MaxRendered), nil
	}
	return "", nil
}

// Size is the size of the spec as JSON, in bytes. It is 0 for one that was not read from a dump.
func (c Config) Size() int {
	n := max(c.rest, 0)
	for _, size := range c.sizes {
		n += size
	}
	return n
}
