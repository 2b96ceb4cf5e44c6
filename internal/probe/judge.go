package probe

import "github.com/nodetrust/nodetrust/internal/judge"

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
	if o.Runtime != Auto {
		return p
	}
	for _, c := range results {
		if c.Runtime != Verify {
			return p
		}
	}
	p.State, p.Reason = judge.Unknown, judge.ReasonNoRuntime
	p.Message = "no CRI socket, and no podman outside of a container: nothing here enforces a policy"
	return p
}
