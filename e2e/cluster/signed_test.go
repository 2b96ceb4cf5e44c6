package cluster

import (
	"testing"
)

func TestUp(t *testing.T) {
	c := need(t)
	out, err := c.Kubectl("get", "nodes", "-o", "wide")
	t.Log(out, err)
}
