package diff

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nodetrust/nodetrust/internal/lint"
	"github.com/nodetrust/nodetrust/internal/policy/compare"
)

// Side is one of the two that are compared: a policy, or all policies of a host.
type Side struct {
	lint.HostPolicies
	read compare.ReadKey
	// whole says that there are no other policies than these, but for what was left out.
	whole    bool
	policies map[string]heldPolicy // by HostPolicy.Of
}

type heldPolicy struct {
	path   string
	policy *compare.Policy
}

// parse reads the policies, with the keys as of a time. That of root's processes must load; others are left out.
func (s *Side) parse(name string, at time.Time) error {
	s.policies = map[string]heldPolicy{}
	for _, p := range s.Policies {
		where := p.Path
		if p.Of == lint.OfRoot {
			where = name
		}
		err := lint.LoadPolicy(p.Data, where)
		if err == nil {
			var parsed *compare.Policy
			if parsed, err = compare.Parse(p.Data, s.read, at); err == nil {
				s.policies[p.Of] = heldPolicy{p.Path, parsed}
				continue
			}
			err = fmt.Errorf("reading %s: %w", where, err)
		}
		if p.Of == lint.OfRoot {
			return err
		}
		s.LeftOut = append(s.LeftOut, fmt.Sprintf("the policy of %s doesn't load: %v", p.Of, err))
	}
	return nil
}

// taken is what is taken where there may be a policy of its own.
func (s *Side) taken(of string) heldPolicy {
	fallback := []string{of, lint.OfCRIO, lint.OfRoot}
	if of == lint.OfSystem {
		fallback = []string{of, lint.OfRoot}
	}
	for _, f := range fallback {
		if p, ok := s.policies[f]; ok {
			return p
		}
	}
	return s.policies[lint.OfRoot]
}

// Report compares all policies of two sides. The embedded Report is that of root's processes, with the Relation of all.
type Report struct {
	compare.Report
	Policies []PolicyReport `json:"policies,omitempty"`
	// LeftOut names what was not compared, so that nothing is known of it.
	LeftOut []string `json:"leftOut,omitempty"`
}

// PolicyReport compares what a runtime takes in place of the policy of root's processes. A and B are paths.
type PolicyReport struct {
	Of string `json:"of"`
	A  string `json:"a"`
	B  string `json:"b"`
	compare.Report
}

// Compare compares all policies of two sides: where one side has none of its own, what its runtime takes instead.
func Compare(a, b *Side) Report {
	r := Report{Report: compare.Policies(a.policies[lint.OfRoot].policy, b.policies[lint.OfRoot].policy)}
	for _, s := range []struct {
		name string
		side *Side
	}{{"a", a}, {"b", b}} {
		for _, l := range s.side.LeftOut {
			r.LeftOut = append(r.LeftOut, s.name+": "+l)
		}
	}
	all := []compare.Report{r.Report}
	for _, of := range ofBoth(a, b) {
		own, has := a.policies[of]
		if _, known := b.policies[of]; has && !known && !b.whole {
			r.LeftOut = append(r.LeftOut, fmt.Sprintf("a: the policy of %s, %s: b is no host, and says nothing of it",
				of, own.path))
			continue
		}
		pa, pb := a.taken(of), b.taken(of)
		p := PolicyReport{of, pa.path, pb.path, compare.Policies(pa.policy, pb.policy)}
		r.Policies, all = append(r.Policies, p), append(all, p.Report)
	}
	r.Relation = compare.Overall(all...)
	if len(r.LeftOut) > 0 && (r.Relation == compare.Equal || r.Relation == compare.Stronger) {
		r.Relation = compare.Incomparable
	}
	return r
}

// ofBoth are the policies beside that of root's processes which one of the sides has.
func ofBoth(a, b *Side) []string {
	all := maps.Clone(a.policies)
	maps.Copy(all, b.policies)
	delete(all, lint.OfRoot)
	return slices.Sorted(maps.Keys(all))
}

// Weaker reports whether b accepts anything that a refuses.
func (r Report) Weaker() bool { return r.anywhere(compare.Weaker) }

// Unknown reports whether b may accept what a refuses. Incomparable scopes are unknown, not weaker: b may accept there
// what a refuses, or it only can't be told.
func (r Report) Unknown() bool { return len(r.LeftOut) > 0 || r.anywhere(compare.Incomparable) }

func (r Report) anywhere(relation compare.Relation) bool {
	return r.Has(relation) || slices.ContainsFunc(r.Policies, func(p PolicyReport) bool { return p.Has(relation) })
}
