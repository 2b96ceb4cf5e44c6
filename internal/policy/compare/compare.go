package compare

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
)

// Relation is how the second of two policies compares with the first.
type Relation string

// The relations.
const (
	Equal    Relation = "equal"    // both accept the same
	Weaker   Relation = "weaker"   // the second accepts all that the first does, and more
	Stronger Relation = "stronger" // the second accepts less, and nothing else
	// Incomparable: each accepts something that the other refuses, or the relation is unknown.
	Incomparable Relation = "incomparable"
)

// Scope is the comparison at one scope.
type Scope struct {
	// Transport and Scope are as in policy.json. Both are empty for the policies' default.
	Transport string   `json:"transport"`
	Scope     string   `json:"scope"`
	Relation  Relation `json:"relation"`
	// Reason is empty for Equal, unless there is a remark.
	Reason string `json:"reason,omitempty"`
	// A and B are what the policies demand at the scope, also if they say it at another scope.
	A string `json:"a"`
	B string `json:"b"`
}

// Report is the comparison of two policies.
type Report struct {
	Scopes   []Scope  `json:"scopes"`
	Relation Relation `json:"relation"`
}

// Has reports whether the relation holds at some scope.
func (r Report) Has(relation Relation) bool {
	return slices.ContainsFunc(r.Scopes, func(s Scope) bool { return s.Relation == relation })
}

// Policies compares b with a at the default and at every scope that one of them names. The most specific of these
// scopes that covers an image decides on it. Keys are compared as far as their content is known, OpenPGP keys by
// fingerprint and state. Where signatures are looked up is not compared.
func Policies(a, b *Policy) Report {
	var out Report
	for _, at := range policy.AllPlaces(&a.Document, &b.Document) {
		out.Scopes = append(out.Scopes, compareAt(a, b, at))
	}
	out.Relation = Overall(out)
	return out
}

func compareAt(a, b *Policy, at policy.Place) Scope {
	listA, ofA := a.At(at)
	listB, ofB := b.At(at)
	ra, rb := requirements(listA), requirements(listB)
	s := Scope{Transport: at.Transport, Scope: at.Scope, A: describe(ra, ofA, at), B: describe(rb, ofB, at)}
	if at.Transport == policy.Docker && at.Scope != "" {
		if err := policy.CheckScope(at.Scope); err != nil {
			s.Relation, s.Reason = Equal, "no image has this scope: "+strings.TrimPrefix(err.Error(), "never matches: ")
			return s
		}
	}
	ra, rb = ra.normal(at), rb.normal(at)
	more := ra.allows("a", "b", rb) // accepted by b, not by a
	less := rb.allows("b", "a", ra)
	switch {
	case more.none() && less.none():
		s.Relation = Equal
	case more.none():
		s.Relation, s.Reason = Stronger, less.why
	case more.unsure && less.none():
		s.Relation, s.Reason = Incomparable, more.why
	case less.none():
		s.Relation, s.Reason = Weaker, more.why
	case more.why == less.why:
		s.Relation, s.Reason = Incomparable, more.why
	default:
		s.Relation, s.Reason = Incomparable, more.why+"; "+less.why
	}
	return s
}

// gap is what one policy accepts and another refuses. unsure means that there may be such a thing.
type gap struct {
	why    string
	unsure bool
}

func (g gap) none() bool { return g.why == "" }

func describe(r requirements, of, at policy.Place) string {
	switch {
	case of == at:
		return r.String()
	case of == policy.Place{}:
		return r.String() + " (default)"
	case of.Scope == "":
		return fmt.Sprintf("%s (all of %s)", r, of.Transport)
	}
	return fmt.Sprintf("%s (%s)", r, of.Scope)
}

// Overall returns the relation that holds over several comparisons.
func Overall(reports ...Report) Relation {
	has := func(relation Relation) bool {
		return slices.ContainsFunc(reports, func(r Report) bool { return r.Has(relation) })
	}
	switch {
	case has(Incomparable) || has(Weaker) && has(Stronger):
		return Incomparable
	case has(Weaker):
		return Weaker
	case has(Stronger):
		return Stronger
	}
	return Equal
}

// allows returns what others accept that r, the requirements of policy a, refuses. A requirement asks for one
// signature and ignores further ones. So others imply r only if each requirement of r is implied by a single one of
// others: else an image with just the signatures that others ask for, as unlike as possible, passes others and not r.
func (r requirements) allows(a, b string, others requirements) gap {
	if slices.ContainsFunc(others, requirement.none) {
		return gap{}
	}
	for _, q := range r {
		g, unsure := gap{}, false
		for _, o := range others {
			if g = o.implies(q, a, b); g.none() {
				break
			}
			unsure = unsure || g.unsure
		}
		switch {
		case len(others) > 0 && g.none():
		case q.kind == never && len(others) == 0:
			return gap{why: b + " accepts every image, " + a + " refuses every image"}
		case q.kind == never:
			return gap{b + " accepts signed images, " + a + " refuses every image", unsure}
		case len(others) == 0:
			return gap{why: b + " accepts images without any signature"}
		case len(others) == 1 && len(r) == 1:
			return g
		default:
			return gap{fmt.Sprintf("%s does not ask for %s", b, q), unsure}
		}
	}
	return gap{}
}

// implies returns why a signature that satisfies r, of policy b, may not satisfy q, of policy a.
func (r requirement) implies(q requirement, a, b string) gap {
	switch {
	case r.none():
		return gap{}
	case q.kind == never, r.kind != q.kind:
		return gap{fmt.Sprintf("%s accepts another kind of signature: %s", b, r), r.keys.unclear != ""}
	}
	if g := r.keys.lacks(q.keys, a, b); !g.none() {
		return g
	}
	if !r.more.lacks(q.more, a, b).none() {
		return gap{why: fmt.Sprintf("%s accepts intermediate certificates that %s does not have", b, a)}
	}
	if len(q.rekor.sources) > 0 && (len(r.rekor.sources) == 0 || !r.rekor.lacks(q.rekor, a, b).none()) {
		return gap{why: fmt.Sprintf("%s accepts signatures that are not in the log that %s asks", b, a)}
	}
	for _, f := range []struct{ name, r, q string }{
		{"issuer", r.issuer, q.issuer},
		{"subject e-mail", r.email, q.email},
		{"subject host name", r.hostname, q.hostname},
	} {
		if f.q != "" && f.r != f.q {
			return gap{why: fmt.Sprintf("%s does not ask for the %s %s", b, f.name, f.q)}
		}
	}
	if !r.identity.Implies(q.identity) {
		return gap{why: fmt.Sprintf("%s accepts identities that %s does not: %s, not %s", b, a, r.identity, q.identity)}
	}
	return gap{}
}
