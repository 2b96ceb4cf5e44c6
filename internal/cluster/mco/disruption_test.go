package mco

import (
	"fmt"
	"slices"
	"testing"

	"github.com/nodetrust/nodetrust/internal/trust"
)

func TestRebooting(t *testing.T) {
	files := trust.FileSet{
		{Path: trust.PolicyPath},
		{Path: trust.RegistriesDir + "/a.yaml"},
		{Path: "/etc/pki/containers/k"},
		{Path: noRebootKey},
		{Path: "/etc/crio/policies/ns.json"},
	}
	const key, policy, reg, ns = "/etc/pki/containers/k", trust.PolicyPath, trust.RegistriesDir + "/a.yaml",
		"/etc/crio/policies/ns.json"
	for minor, want := range map[int][]string{
		9:  {policy, reg, ns, key},
		10: {reg, ns, key},
		15: {reg, ns, key},
		16: {ns, key},
		18: {key},
	} {
		t.Run(fmt.Sprintf("4.%d", minor), func(t *testing.T) {
			if got := Rebooting(minor, files); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
