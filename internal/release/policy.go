package release

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TrustConfig returns a trust.yaml that refuses everything but the digests of the release and its images. Accepting
// them unsigned trusts only the release's signature, as their content can't change. The entries are meant for the
// cluster's trust.yaml.
func (r *Result) TrustConfig() ([]byte, error) {
	if r.Answer != verdict.Accept || len(r.Images) == 0 {
		return nil, errors.New("only a verified release has digests to trust")
	}
	type entry struct {
		Scope   string `yaml:"scope"`
		Require string `yaml:"require"`
		Because string `yaml:"because"`
	}
	var doc struct {
		APIVersion string            `yaml:"apiVersion"`
		Kind       string            `yaml:"kind"`
		Metadata   map[string]string `yaml:"metadata"`
		Spec       struct {
			Pools      []string `yaml:"pools,flow"`
			Default    string   `yaml:"default"`
			Registries []entry  `yaml:"registries"`
		} `yaml:"spec"`
	}
	doc.APIVersion, doc.Kind, doc.Metadata = trust.APIVersion, trust.ObjectKind, map[string]string{"name": "release"}
	doc.Spec.Pools, doc.Spec.Default = []string{"master", "worker"}, "reject"
	seen := map[string]bool{}
	add := func(scope, because string) {
		if !seen[scope] {
			seen[scope] = true
			doc.Spec.Registries = append(doc.Spec.Registries, entry{scope, "accept", because})
		}
	}
	for _, repository := range r.repositories {
		add(repository+"@"+r.Digest, fmt.Sprintf("release %s, whose signature was verified", r.Version))
	}
	for _, i := range r.Images {
		add(i.Image, fmt.Sprintf("%s of release %s", i.Name, r.Version))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `# OpenShift release %s, %s
# %s
#
# These digests are what the release's signature vouches for: the images of the payload have no GPG signatures of their own.
# Take the registries over into the trust.yaml of the cluster; before an update add those of the new release, and after it
# take out those of the old one.
`, oneLine(r.Version), r.Digest, oneLine(r.Message))
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(doc), enc.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Policy returns the policy.json of TrustConfig.
func (r *Result) Policy() ([]byte, error) {
	b, err := r.TrustConfig()
	if err != nil {
		return nil, err
	}
	cfg, err := trust.Parse("release", b, nil)
	if err != nil {
		return nil, err
	}
	files, err := cfg.Files(nil)
	if err != nil {
		return nil, err
	}
	f, ok := files.Get(trust.PolicyPath)
	if !ok {
		return nil, errors.New("a trust config renders to no policy.json")
	}
	return f.Data, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
