package probe

import (
	"slices"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/lint"
)

// NoCanaries returns the result where file is well and names no canaries: nothing can be proven with it.
func NoCanaries(file string) judge.Probe {
	p := judge.Probe{Canaries: []judge.Canary{}}
	p.State, p.Reason, p.Message = judge.Judge(judge.Input{Problem: &judge.Problem{
		Reason:  judge.ReasonNoCanary,
		Message: file + " names no canaries",
	}})
	return p
}

// Judge turns the answers into a state. Files are not looked at here: looking at them is the agent's part.
func Judge(results []judge.Canary, runtimes []judge.Runtime, o Options) judge.Probe {
	p := judge.Probe{Canaries: results, Runtimes: runtimes}
	p.State, p.Reason, p.Message = judge.Judge(judge.Input{Canaries: results, Runtimes: runtimes})
	if o.Runtime != Auto || slices.ContainsFunc(results, func(c judge.Canary) bool { return c.Runtime != Verify }) {
		return p
	}
	p.State, p.Reason = judge.Unknown, judge.ReasonNoRuntime
	p.Message = "no CRI socket, and no podman outside of a container: nothing here enforces a policy"
	return p
}

// Keys returns the OpenPGP keys of a policy of the host below root, none if the policy can't be read.
func Keys(root, policy string) (out []judge.Key) {
	data, err := hostfs.Root(root).ReadFile(policy, lint.MaxPolicy)
	if err != nil {
		return nil
	}
	for _, k := range lint.PolicyKeys(data, root) {
		key := judge.Key{Fingerprint: k.Fingerprint}
		if !k.Expires.IsZero() {
			key.Expires = k.Expires.Unix()
		}
		out = append(out, key)
	}
	return out
}
