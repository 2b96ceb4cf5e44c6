package lookaside

import (
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// Mirrors say from where nodes may pull an image beside its own repository. Either field may be nil.
type Mirrors struct {
	// Config is a trust.yaml that names mirrors.
	Config *trust.Config
	// Nodes is a policy that was opened with a registries.conf of the nodes.
	Nodes *verify.Policy
}

// Places returns the repositories, host and path, from which nodes may pull an image: its own, then sorted mirrors.
func (m Mirrors) Places(image string) ([]string, error) {
	name := ref.Name(image)
	mirrors := m.configured(name)
	if m.Nodes != nil {
		i, err := verify.ParseImage(image)
		if err != nil {
			return nil, err
		}
		more, err := m.Nodes.Places(i)
		if err != nil {
			return nil, err
		}
		mirrors = append(mirrors, more...)
	}
	slices.Sort(mirrors)
	mirrors = slices.DeleteFunc(slices.Compact(mirrors), func(s string) bool { return s == name })
	return append([]string{name}, mirrors...), nil
}

// configured returns the repositories that the trust.yaml names as mirrors of one: those of the most specific entry.
func (m Mirrors) configured(name string) (out []string) {
	if m.Config == nil {
		return nil
	}
	for _, scope := range policy.Names(name) {
		i := slices.IndexFunc(m.Config.Registries, func(r trust.Registry) bool { return r.Scope == scope })
		if i < 0 {
			continue
		}
		for _, mirror := range m.Config.Registries[i].Mirrors {
			out = append(out, mirror.Scope+strings.TrimPrefix(name, scope))
		}
		break
	}
	return out
}
