package cluster

import "testing"

// audited is a point in the audit log.
func (c *Cluster) audited(t *testing.T) int64 {
	t.Helper()
	since, err := c.Audited()
	must(t, err)
	return since
}

// requests are those of the agents in pods since a point in the audit log, by node.
func (c *Cluster) requests(t *testing.T, since int64) map[string][]Request {
	t.Helper()
	all, err := c.Requests(since)
	must(t, err)
	found := map[string][]Request{}
	for _, r := range all {
		if r.Node == "" {
			t.Errorf("%s by an agent of no node", r)
			continue
		}
		found[r.Node] = append(found[r.Node], r)
	}
	return found
}
