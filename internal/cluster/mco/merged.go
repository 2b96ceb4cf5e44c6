package mco

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// Annotations of a MachineConfig that was merged with files of its pool.
const (
	// MergedAnnotation is the digest of the policy.json that was merged into ours.
	MergedAnnotation = "nodetrust.io/merged"
	// MergedFromAnnotation names the MachineConfig of that policy.json.
	MergedFromAnnotation = "nodetrust.io/merged-from"
	// MergedFilesAnnotation lists other merged files: JSON, a list of path, from and digest.
	MergedFilesAnnotation = "nodetrust.io/merged-files"
	// ConfigAnnotation names the trust config: MachineConfigs of the same trust config were not merged.
	ConfigAnnotation = "nodetrust.io/config"
)

// MergedAnnotations returns annotations that record what was merged into the MachineConfig of a trust config.
func MergedAnnotations(config string, policy Taken, files []Taken) (map[string]string, error) {
	out := map[string]string{ConfigAnnotation: config, MergedAnnotation: policy.Digest, MergedFromAnnotation: policy.From}
	if len(files) > 0 {
		b, err := json.Marshal(files)
		if err != nil {
			return nil, err
		}
		out[MergedFilesAnnotation] = string(b)
	}
	return out, nil
}

// Merged reports whether others were merged into c.
func (c Config) Merged() bool { return c.Annotations[MergedAnnotation] != "" }

// Earlier returns the dump's MachineConfigs of this trust config: those with the plain name, and the merged ones.
func (t Target) Earlier(plain, name string) (out []Config) {
	for _, c := range t.Dump.Configs {
		ours, known := c.Annotations[ConfigAnnotation]
		merged := c.Merged() && c.Role() == t.Pool && (known && ours == name || !known && strings.HasSuffix(c.Name, "-"+name))
		if c.Name == plain || merged {
			out = append(out, c)
		}
	}
	return out
}

// Outdated returns how the pool's files differ from those that were merged into c, a MachineConfig of the dump: c
// hides their present content from the nodes. It is empty if nothing has changed.
func (t Target) Outdated(c Config) (why []string, err error) {
	config := c.Annotations[ConfigAnnotation]
	var earlier []string
	for _, e := range t.Earlier("51-"+c.Role()+"-"+config, config) {
		if e.Name != c.Name {
			earlier = append(earlier, e.Name)
		}
	}
	d := t.Dump.Without(earlier...)
	files, err := d.Without(c.Name).PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return nil, err
	}
	all, err := d.PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return nil, err
	}
	was := []Taken{{
		Path: trust.PolicyPath, From: c.Annotations[MergedFromAnnotation],
		Digest: c.Annotations[MergedAnnotation],
	}}
	if text := c.Annotations[MergedFilesAnnotation]; text != "" {
		var more []Taken
		if err := json.Unmarshal([]byte(text), &more); err != nil {
			return nil, fmt.Errorf("reading annotation %s of %s: %w", MergedFilesAnnotation, c.Name, err)
		}
		was = append(was, more...)
	}
	for _, w := range was {
		switch now, ok := files[w.Path]; {
		case !ok:
			why = append(why, fmt.Sprintf("%s of %s is gone", w.Path, w.From))
		case now.Err != nil:
			return nil, fmt.Errorf("reading %s of %s: %w", w.Path, now.Owner.Name, now.Err)
		case taken(now).Digest != w.Digest:
			why = append(why, fmt.Sprintf("%s has another %s than the one that was merged", now.Owner.Name, w.Path))
		}
	}
	for _, o := range files {
		if slices.ContainsFunc(was, func(w Taken) bool { return w.Path == o.Path }) {
			continue
		}
		if _, ours := c.file(o.Path); ours && path.Dir(o.Path) == trust.RegistriesDir && !template(o.Owner) {
			why = append(why, fmt.Sprintf("%s has a %s now", o.Owner.Name, o.Path))
		}
	}
	for _, conflict := range scopeConflicts(c, all) {
		why = append(why, conflict.String())
	}
	slices.Sort(why)
	return why, nil
}
