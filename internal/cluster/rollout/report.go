package rollout

import "slices"

// Report is the state of the rollouts in a cluster, pool by pool.
type Report struct {
	Pools []Verdict `json:"pools"`
}

// Bad reports whether a pool needs an action.
func (r Report) Bad() bool {
	return slices.ContainsFunc(r.Pools, func(v Verdict) bool { return v.State.Bad() })
}

// Done reports whether there are pools, and all of them are rolled out.
func (r Report) Done() bool {
	return len(r.Pools) > 0 && !slices.ContainsFunc(r.Pools, func(v Verdict) bool { return v.State != RolledOut })
}
