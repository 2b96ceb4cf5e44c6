package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/judge"
	"github.com/nodetrust/nodetrust/trust"
)

// advance brings the desired set to the disk: at once if it was confirmed before, else after the child has said that it
// loads. What stands in the way is left in trial.held.
func (a *Agent) advance() {
	if a.active != nil && a.active.digest == a.target.digest {
		a.active = a.target
		a.trial.held = nil
		return
	}
	if a.lastGoodDigest() == a.target.digest {
		a.activate(a.target)
		return
	}
	if r := a.store.Rejected; r != nil && r.Digest == a.target.digest {
		return
	}
	a.trial.digest = a.target.digest
	a.trial.held = a.obstacle()
	if a.trial.held != nil {
		return
	}
	// A predecessor has got further already: to restore the last good set meanwhile would be a step back.
	a.trial.loads = a.trial.loads || a.store.Loads == a.target.digest
	if a.trial.failed != nil && time.Now().Before(a.trial.retryAt) {
		a.trial.held = a.trial.failed
		return
	}
	if !a.trial.loads {
		a.trial.held = &judge.Problem{Reason: judge.ReasonLoadPending, Message: "the desired files are being checked before they are written"}
		return // startJob sees to it
	}
	a.activate(a.target)
}

// obstacle is why the desired set must not be written yet, as far as files show.
func (a *Agent) obstacle() *judge.Problem {
	for _, d := range a.compare.Compare(a.root, a.target.files, a.replacing(a.target)) {
		switch d.Kind {
		case judge.KeyMissing, judge.KeyUnreadable, judge.Duplicate, judge.Invalid:
			_, reason, message := judge.Judge(judge.Input{Differences: []judge.Difference{d}})
			return &judge.Problem{Reason: reason, Message: message + "; the desired files are not written"}
		}
	}
	return nil
}

// replacing returns the paths that go when s comes.
func (a *Agent) replacing(s *set) []string {
	out := slices.Clone(a.store.Obsolete)
	for _, old := range []*set{a.active, a.lastGood()} {
		if old == nil {
			continue
		}
		for _, f := range old.files {
			out = append(out, f.Path)
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(p string) bool {
		_, stays := s.files.Get(p)
		return stays
	})
}

func (a *Agent) lastGood() *set {
	if a.store.LastGood == nil {
		return nil
	}
	s, err := a.store.LastGood.set()
	if err != nil {
		return nil
	}
	return adopt(s)
}

func (a *Agent) lastGoodDigest() string {
	if a.store.LastGood == nil {
		return ""
	}
	return a.store.LastGood.Digest
}

// activate makes s the set that is kept on disk, and writes it.
func (a *Agent) activate(s *set) {
	obsolete := a.replacing(s)
	a.active = s
	a.trial.held = nil
	a.healed = nil
	a.changed()
	if !slices.Equal(a.store.Obsolete, obsolete) || a.store.Loads != s.digest {
		a.store.Obsolete, a.store.Loads = obsolete, s.digest
		// Before the first write: whatever happens, the files of the other set are known to be ours.
		a.remember()
	}
	a.sweep(s)
	a.Log.Info("writing the desired files", "digest", s.digest)
	a.removeColliding(s, obsolete)
	ok := true
	for _, f := range inOrder(s.files) {
		if len(a.compare.Files(a.root, trust.FileSet{f})) > 0 {
			ok = a.replace(f) && ok
		}
	}
	if !ok {
		return // the next look heals what is missing, and only then removes what is obsolete
	}
	a.removeObsolete()
}

// removeColliding removes those obsolete files that repeat a scope of the new ones: both together would fail every pull.
func (a *Agent) removeColliding(s *set, obsolete []string) {
	for _, d := range a.compare.Compare(a.root, s.files, nil) {
		if d.Kind == judge.Duplicate && slices.Contains(obsolete, d.Path) {
			if err := disk.Remove(a.root, d.Path); err != nil {
				a.Log.Error("removing an obsolete file", "path", d.Path, "err", err)
			}
		}
	}
}

func (a *Agent) removeObsolete() {
	if len(a.store.Obsolete) == 0 {
		return
	}
	left := slices.DeleteFunc(slices.Clone(a.store.Obsolete), func(p string) bool {
		err := disk.Remove(a.root, p)
		if err != nil && !errors.Is(err, disk.ErrNotDurable) {
			a.Log.Warn("removing an obsolete file", "path", p, "err", err)
			return false
		}
		a.Log.Info("removed obsolete file", "path", p)
		return true
	})
	a.store.Obsolete = left
	a.remember()
}

// inOrder sorts files so that what a policy relies on is there before the policy is.
func inOrder(files trust.FileSet) trust.FileSet {
	out := slices.Clone(files)
	slices.SortStableFunc(out, func(x, y trust.File) int {
		if p, q := isPolicy(x.Path), isPolicy(y.Path); p != q {
			if p {
				return 1
			}
			return -1
		}
		return strings.Compare(x.Path, y.Path)
	})
	return out
}

// heal puts right what of ds is ours to put right, and reports whether it did anything.
func (a *Agent) heal(ds []judge.Difference, now time.Time) bool {
	wrong := map[string]string{}
	var collides []string
	for _, d := range ds {
		if d.Kind == judge.Duplicate || d.Kind == judge.Masks {
			collides = append(collides, d.Want)
		}
		if _, ours := a.active.files.Get(d.Path); ours && d.Kind != judge.Duplicate {
			wrong[d.Path] += string(d.Kind) + " " + d.Got + "\n"
		}
	}
	if len(wrong) == 0 {
		if len(a.store.Obsolete) > 0 {
			a.removeObsolete()
		}
		return false
	}
	did := false
	for _, f := range inOrder(a.active.files) {
		what, is := wrong[f.Path]
		if !is || a.contest.wait(f.Path, now) > 0 {
			continue
		}
		if !isPolicy(f.Path) && slices.Contains(collides, f.Path) && !onDisk(ds, f.Path) {
			// Ours beside the other would fail every pull.
			continue
		}
		if a.replace(f) {
			did = true
			a.contest.note(f.Path, what, now)
		}
	}
	if !did {
		return false
	}
	a.Metrics.drifted()
	for _, d := range ds {
		if !slices.Contains(a.healed, d) {
			a.healed = append(a.healed, d)
		}
	}
	a.changed()
	return true
}

// onDisk reports whether our file is there with the right content, so that replacing it adds nothing.
func onDisk(ds []judge.Difference, p string) bool {
	for _, d := range ds {
		if d.Path == p && d.Kind != judge.Mode && d.Kind != judge.Owner && d.Kind != judge.Label {
			return false
		}
	}
	return true
}

// replace writes one file and reports whether it is in place.
func (a *Agent) replace(f trust.File) bool {
	aside, err := disk.Replace(a.root, f)
	if errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTEMPTY) {
		// Somebody was about to put a directory there.
		aside, err = disk.Replace(a.root, f)
	}
	if aside != "" {
		a.Log.Warn("a directory was in the way and has been renamed", "path", f.Path, "aside", aside)
	}
	if errors.Is(err, disk.ErrNotDurable) {
		a.Log.Error("healed file, but it may not outlive a loss of power", "path", f.Path, "err", err)
		a.problem = &judge.Problem{Reason: judge.ReasonWriteFailed, Message: err.Error()}
		return true
	}
	if err != nil {
		a.Log.Error("writing", "path", f.Path, "err", err)
		a.problem = &judge.Problem{Reason: judge.ReasonWriteFailed, Message: err.Error()}
		return false
	}
	a.Log.Info("healed file", "path", f.Path)
	a.Metrics.healed()
	return true
}

// reject takes the desired set back: the last good one is restored, if there is one.
func (a *Agent) reject(s *set, reason, why string) {
	a.Log.Error("desired state is rejected", "digest", s.digest, "reason", reason, "err", why)
	last := a.lastGood()
	if last != nil {
		why += "; the last good set stands in"
	} else {
		why += "; nothing was written"
	}
	a.store.Rejected = &rejection{Digest: s.digest, Reason: reason, Message: why}
	a.remember()
	a.trial = trial{}
	if last != nil && (a.active == nil || a.active.digest != last.digest) {
		a.activate(last)
	}
}

// confirm remembers the active set as the one to go back to.
func (a *Agent) confirm(accepted []string) {
	if a.lastGoodDigest() == a.active.digest && slices.Equal(a.store.Accepted, accepted) && slices.Equal(a.store.LastGood.Canaries, a.active.canaries) {
		return
	}
	if a.lastGoodDigest() != a.active.digest {
		a.Log.Info("desired state is confirmed", "digest", a.active.digest)
	}
	s := *a.active
	s.files = disown(s.files)
	a.store.LastGood = save(&s)
	a.store.Accepted = accepted
	a.remember()
}

// judgeTrial draws the consequence of a round of canaries: confirmed, taken back, or neither.
func (a *Agent) judgeTrial(canaries []judge.Canary) {
	confirmed := a.active.digest == a.lastGoodDigest()
	if !confirmed && a.store.LastGood != nil {
		for _, c := range judge.BlockedCanaries(canaries) {
			if slices.Contains(a.store.Accepted, c.Image) {
				a.reject(a.active, judge.ReasonAcceptCanaryRefused,
					fmt.Sprintf("accept-canary %s was accepted before and was refused (%s)", c.Image, c.Reason))
				return
			}
		}
	}
	state, _, _ := judge.Judge(judge.Input{Canaries: canaries, Differences: a.differences})
	if state != judge.Enforced {
		return
	}
	var accepted []string
	for _, c := range judge.AcceptedCanaries(canaries) {
		accepted = append(accepted, c.Image)
	}
	slices.Sort(accepted)
	a.confirm(slices.Compact(accepted))
}
