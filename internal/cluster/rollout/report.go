package rollout

import "slices"

// Report is what has come of the rollouts in a cluster, pool by pool.
type Report struct {
	Pools []Verdict `json:"pools"`
}

// Bad reports whether somebody has to do something about a pool.
func (r Report) Bad() bool {
	return slices.ContainsFunc(r.Pools, func(v Verdict) bool { return v.State.Bad() })
}

// Done reports whether there are pools, and all of them are rolled out.
func (r Report) Done() bool {
	return len(r.Pools) > 0 && !slices.ContainsFunc(r.Pools, func(v Verdict) bool { return v.State != RolledOut })
}
