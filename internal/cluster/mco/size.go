package mco

import (
	"encoding/json"
	"fmt"
)

// MaxRendered bounds a rendered MachineConfig as JSON, in bytes: the API server's limit for a request to etcd, 1.5
// MiB. Beyond it the MCO stops rendering the pool (RenderDegraded).
const MaxRendered = 1_572_864

// metadataSize bounds the metadata of a rendered MachineConfig, managed fields included.
const metadataSize = 8 << 10

// measure sets the size of the spec, which does not depend on the form of the YAML.
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

// RenderedSize bounds the size of the pool's rendered MachineConfig with ours, as JSON: the sum of its sources without
// replaced files.
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

// CheckSize returns an error if the pool's rendered MachineConfig would be too large with ours, and a warning if it is
// near the limit.
func (t Target) CheckSize(ours Config) (warn string, err error) {
	n, err := t.RenderedSize(ours)
	if err != nil || n <= MaxRendered/4*3 {
		return "", err
	}
	const text = "the rendered MachineConfig of the pool %s have up to %d bytes, %d of them ours; the API server takes at most %d"
	if n > MaxRendered {
		return "", fmt.Errorf(text, "would", n, ours.Size(), MaxRendered)
	}
	return fmt.Sprintf(text, "will", n, ours.Size(), MaxRendered), nil
}

// Size returns the size of the spec as JSON, in bytes, or 0 for a Config that is not of a dump.
func (c Config) Size() int {
	n := max(c.rest, 0)
	for _, size := range c.sizes {
		n += size
	}
	return n
}
