package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/lint"
	"github.com/nodetrust/nodetrust/internal/policy/compare"
)

// diffSide is one of the two things that are compared: a policy, or all policies of a host.
type diffSide struct {
	found []lint.HostPolicy
	read  compare.ReadKey
	// whole says that there are no other policies than these, but for what was left out.
	whole    bool
	leftOut  []string
	policies map[string]heldPolicy // by HostPolicy.Of
}

type heldPolicy struct {
	path   string
	policy *compare.Policy
}

// parse reads the policies, with the keys as they are at a time. The one of root's processes must load; any other that
// doesn't is left out.
func (s *diffSide) parse(name string, at time.Time) error {
	s.policies = map[string]heldPolicy{}
	for _, p := range s.found {
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
			return cli.Usage(err)
		}
		s.leftOut = append(s.leftOut, fmt.Sprintf("the policy of %s doesn't load: %v", p.Of, err))
	}
	return nil
}

// taken is what is taken where there may be a policy of its own.
func (s *diffSide) taken(of string) heldPolicy {
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

// diffReport is a comparison of all policies of two sides. The Report is that of root's processes, but its Relation
// is that of all.
type diffReport struct {
	compare.Report
	Policies []policyReport `json:"policies,omitempty"`
	// LeftOut names what was not compared, so that nothing is known of it.
	LeftOut []string `json:"leftOut,omitempty"`
}

// policyReport compares what a runtime takes in place of the policy of root's processes. A and B are paths.
type policyReport struct {
	Of string `json:"of"`
	A  string `json:"a"`
	B  string `json:"b"`
	compare.Report
}

func compareSides(a, b *diffSide) diffReport {
	r := diffReport{Report: compare.Policies(a.policies[lint.OfRoot].policy, b.policies[lint.OfRoot].policy)}
	for _, s := range []struct {
		name string
		side *diffSide
	}{{"a", a}, {"b", b}} {
		for _, l := range s.side.leftOut {
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
		p := policyReport{of, pa.path, pb.path, compare.Policies(pa.policy, pb.policy)}
		r.Policies, all = append(r.Policies, p), append(all, p.Report)
	}
	r.Relation = compare.Overall(all...)
	if len(r.LeftOut) > 0 && (r.Relation == compare.Equal || r.Relation == compare.Stronger) {
		r.Relation = compare.Incomparable
	}
	return r
}

// ofBoth are the policies beside that of root's processes which one of the sides has.
func ofBoth(a, b *diffSide) []string {
	all := maps.Clone(a.policies)
	maps.Copy(all, b.policies)
	delete(all, lint.OfRoot)
	return slices.Sorted(maps.Keys(all))
}

// exit is the exit status. Incomparable scopes are unknown, not weaker: B may accept there what A refuses, or it only
// can't be told.
func (r diffReport) exit() int {
	unknown := len(r.LeftOut) > 0 || r.Has(compare.Incomparable)
	weaker := r.Has(compare.Weaker)
	for _, p := range r.Policies {
		unknown, weaker = unknown || p.Has(compare.Incomparable), weaker || p.Has(compare.Weaker)
	}
	switch {
	case weaker:
		return cli.ExitRefused
	case unknown:
		return cli.ExitUnknown
	}
	return cli.ExitOK
}

func writeDiff(w io.Writer, r diffReport, all bool) error {
	writeScopes(w, r.Scopes, all)
	for _, p := range r.Policies {
		if p.Relation == compare.Equal && !all {
			continue
		}
		fmt.Fprintf(w, "policy of %s: a: %s, b: %s\n", p.Of, p.A, p.B)
		writeScopes(w, p.Scopes, all)
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(w, "left out: %s\n", l)
	}
	_, err := fmt.Fprintf(w, "b is %s\n", map[compare.Relation]string{
		compare.Equal: "equal to a", compare.Weaker: "weaker than a", compare.Stronger: "stronger than a",
		compare.Incomparable: "not comparable with a",
	}[r.Relation])
	return err
}

func writeScopes(w io.Writer, scopes []compare.Scope, all bool) {
	for _, s := range scopes {
		if s.Relation == compare.Equal && !all {
			continue
		}
		name := s.Transport + ": " + s.Scope
		switch {
		case s.Transport == "":
			name = "default"
		case s.Scope == "":
			name = s.Transport
		}
		fmt.Fprintf(w, "%s: %s", name, s.Relation)
		if s.Reason != "" {
			fmt.Fprintf(w, ": %s", s.Reason)
		}
		fmt.Fprintf(w, "\n  a: %s\n  b: %s\n", s.A, s.B)
	}
}
