package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// Status is the content of the status file.
type Status struct {
	Node    string      `json:"node"`
	State   judge.State `json:"state"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
	// Desired is the digest of the desired set, Observed of the files on disk at its paths.
	Desired  string `json:"desired"`
	Observed string `json:"observed"`
	// CheckedAt is the time of the last comparison.
	CheckedAt   time.Time          `json:"checkedAt"`
	Differences []judge.Difference `json:"differences"`
	Canaries    []judge.Canary     `json:"canaries"`
	// Runtimes are those of the canaries that named themselves.
	Runtimes []judge.Runtime `json:"runtimes,omitempty"`
}

// maxTold bounds the differences of a status: foreign files can cause any number.
const maxTold = 256

// publish reports the status if it differs from the last. It writes the status file then, or always.
func (a *Agent) publish(always bool) {
	a.emit(a.status(), always)
	if len(a.healed) > 0 && !a.probeDue() && a.job == nil {
		// No later answer covers the healed files.
		a.healed = nil
		a.emit(a.status(), false)
	}
}

func (a *Agent) emit(s Status, always bool) {
	same := equal(s, a.last)
	if same && !always {
		return
	}
	if s.State != a.last.State || s.Reason != a.last.Reason {
		a.Log.Info("state changed", "state", string(s.State), "reason", s.Reason, "message", s.Message, "digest", s.Observed)
	}
	a.last = s
	a.Metrics.state(s.State)
	if a.StatusFile != "" {
		if a.statusErr = writeStatus(a.StatusFile, s); a.statusErr != nil {
			a.Log.Error("writing the status file", "path", a.StatusFile, "err", a.statusErr)
		}
	}
	if a.Report != nil && !same {
		a.Report(s)
	}
}

func equal(x, y Status) bool {
	x.CheckedAt = y.CheckedAt
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

func (a *Agent) status() Status {
	s := Status{
		Node: a.NodeName, CheckedAt: time.Now().UTC(),
		Differences: slices.Concat(a.differences, a.healed), Canaries: []judge.Canary{},
	}
	if s.Differences == nil {
		s.Differences = []judge.Difference{}
	}
	slices.SortStableFunc(s.Differences, func(x, y judge.Difference) int { return weight(x.Kind) - weight(y.Kind) })
	if a.target != nil {
		s.Desired = a.target.digest
	}
	s.Observed = a.observed()
	in := judge.Input{
		Differences: s.Differences,
		Contested:   a.contest.contested(time.Now()),
		Problem:     a.worst(),
		Advice:      a.advice(),
	}
	if a.target != nil && a.active != a.target {
		in.Held = a.trial.held
		if in.Held != nil && in.Held.Reason == judge.ReasonStateNotSaved {
			in.Held, in.Gate = nil, in.Held
		}
		if a.collides() {
			// This is a difference, not a doubt, and comes first.
			in.Held, in.Advice = nil, "the desired files are not written"
		}
		if r := a.store.Rejected; r != nil && r.Digest == a.target.digest {
			p := &judge.Problem{Reason: r.Reason, Message: r.Message}
			if a.active != nil || r.Found {
				in.RolledBack = p
			} else {
				in.Held = p
			}
		}
	}
	if a.readOnly() && a.target != nil && hasMCO(a.root) {
		in.Shadowed = shadowed(a.root, a.differences, a.target.name)
	}
	if a.probed != nil {
		if a.probed.canaries != nil {
			s.Canaries = a.probed.canaries
		}
		s.Runtimes = a.probed.runtimes
		if a.probed.problem == nil {
			in.Canaries, in.Runtimes = a.probed.canaries, a.probed.runtimes
		}
	}
	s.State, s.Reason, s.Message = judge.Judge(in)
	s.Differences = s.Differences[:min(len(s.Differences), maxTold)]
	return s
}

func (a *Agent) collides() bool {
	h := a.trial.held
	return h != nil && (h.Reason == "Duplicate" || h.Reason == "Invalid")
}

// weight sorts differences that fail every pull first.
func weight(k judge.Kind) int {
	if k == judge.Duplicate || k == judge.Invalid {
		return 0
	}
	return 1
}

func (a *Agent) worst() *judge.Problem {
	switch {
	case a.desiredErr != nil:
		return &judge.Problem{Reason: judge.ReasonDesiredInvalid, Message: a.desiredErr.Error()}
	case len(a.failed) > 0:
		return &judge.Problem{Reason: judge.ReasonWriteFailed, Message: a.failed.first()}
	case a.unsaved != nil && !a.readOnly():
		return a.notSaved()
	case a.probed != nil && a.probed.problem != nil:
		return a.probed.problem
	case a.probeDue():
		return &judge.Problem{
			Reason:  judge.ReasonProbePending,
			Message: "the canaries have not answered yet for the files as they are",
		}
	case a.active != nil && len(a.active.canaries) == 0:
		return &judge.Problem{Reason: judge.ReasonNoCanary, Message: "the desired state names no canaries"}
	}
	return nil
}

func (a *Agent) advice() string {
	switch {
	case len(a.failed) > 0:
		return a.failed.first()
	case a.target != nil && !a.Observe && a.readOnly():
		return applyAdvice(a.target.name)
	case len(a.differences) == 0 && len(a.healed) > 0:
		return "healed, the canaries run again"
	}
	return ""
}

func (a *Agent) observed() string {
	s := a.active
	if s == nil {
		s = a.target
	}
	if s == nil {
		return ""
	}
	if a.active != nil && !slices.ContainsFunc(a.differences, func(d judge.Difference) bool {
		_, ours := a.active.files.Get(d.Path)
		return ours
	}) {
		return a.active.digest
	}
	found := disown(disk.Found(a.root, s.files))
	if len(found) == 0 {
		return ""
	}
	return found.Digest()
}

// disown is the inverse of adopt.
func disown(files trust.FileSet) trust.FileSet {
	if os.Geteuid() == 0 {
		return files
	}
	out := slices.Clone(files)
	for i := range out {
		if out[i].UID == uint32(os.Geteuid()) && out[i].GID == uint32(os.Getegid()) {
			out[i].UID, out[i].GID = 0, 0
		}
	}
	return out
}

func writeStatus(p string, s Status) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	dir, err := os.OpenRoot(filepath.Dir(p))
	if err != nil {
		return fmt.Errorf("opening its directory: %w", err)
	}
	defer dir.Close()
	_, err = disk.Replace(dir, trust.File{
		Path: "/" + filepath.Base(p), Mode: 0o644, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Data: append(b, '\n'),
	})
	return err
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
