package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// advance writes the desired set: at once if it was confirmed before, else after the child found that it loads.
// trial.held keeps what stands in the way.
func (a *Agent) advance() {
	if a.active != nil && a.active.digest == a.target.digest {
		a.active = a.target
		a.trial.held = nil
		return
	}
	r := a.store.Rejected
	rejected := r != nil && r.Digest == a.target.digest
	if first := !a.began; first && !rejected {
		a.began = true
		if len(a.compare.Files(a.root, a.target.files)) == 0 {
			a.adopt()
			return
		}
	}
	if a.lastGoodDigest() == a.target.digest {
		a.activate(a.target)
		return
	}
	if rejected {
		if r.Found {
			a.putBack()
		}
		return
	}
	a.trial.digest = a.target.digest
	a.trial.held = a.obstacle()
	if a.trial.held != nil {
		return
	}
	if a.trial.failed != nil && time.Now().Before(a.trial.retryAt) {
		a.trial.held = a.trial.failed
		return
	}
	if !a.trial.loads {
		a.trial.held = &judge.Problem{
			Reason:  judge.ReasonLoadPending,
			Message: "the desired files are being checked before they are written",
		}
		return // startJob sees to it
	}
	a.activate(a.target)
}

// obstacle returns why the desired set must not be written yet, as far as files show.
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

// replacing returns the paths that become obsolete when s is activated.
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

// adopt takes the desired set for active that a starting agent finds on disk, whatever it remembers: the memory may be
// lost or older.
func (a *Agent) adopt() {
	obsolete := a.replacing(a.target)
	a.active = a.target
	a.trial = trial{digest: a.target.digest, adopted: true}
	a.store.Obsolete = obsolete
	if a.confirmed() {
		a.trial.adopted, a.store.Trial = false, nil
	} else {
		a.store.Trial = save(a.active)
	}
	a.changed()
	a.remember()
}

// activate makes s the set that is kept on disk, unless it can't be remembered first: whatever happens after the first
// write, the files of both sets are known as ours, and what was found can be put back. The last good set needs no more
// memory than there is on disk.
func (a *Agent) activate(s *set) {
	if !a.ahead(s, a.replacing(s)) {
		a.trial.held = a.notSaved()
		a.trial.held.Message += "; the desired files are not written"
		return
	}
	a.active = s
	a.trial.held = nil
	a.healed = nil
	a.back = false
	a.changed()
	a.sweep(s)
	a.Log.Info("writing the desired files", "digest", s.digest)
	wrong := map[string]string{}
	for _, f := range s.files {
		if len(a.compare.Files(a.root, trust.FileSet{f})) > 0 {
			wrong[f.Path] = ""
		}
	}
	if len(a.write(wrong, time.Now())) == len(wrong) {
		a.removeObsolete()
	} // else the next looks heal first and remove obsolete files afterwards
}

// ahead remembers, before the first write, what has to be known after a crash, and reports whether s may be written.
// The last good set may be: all that leads back to it is on disk already.
func (a *Agent) ahead(s *set, obsolete []string) bool {
	before := a.store.memory
	a.store.Obsolete, a.store.Trial = obsolete, nil
	if s.digest != a.lastGoodDigest() {
		a.store.Trial = save(s)
	}
	if waits := a.unsaved != nil && time.Now().Before(a.saveAt); !waits && a.saveFor(s.files) {
		return true
	}
	if s.digest == a.store.saved {
		return true
	}
	a.store.Obsolete, a.store.Trial = before.Obsolete, before.Trial
	return false
}

func (a *Agent) confirmed() bool { return a.active.digest == a.lastGoodDigest() }

// write replaces the wrong files of the active set that are due, and returns the replaced ones. It skips
// - a file with a scope that another file still defines: both together fail every pull;
// - the policy of a set on trial while a file that it relies on is missing: the present policy goes on working.
func (a *Agent) write(wrong map[string]string, now time.Time) []string {
	var written []string
	blocked := a.makeWay()
	sound := true
	for _, f := range inOrder(a.active.files) {
		_, is := wrong[f.Path]
		switch {
		case !is:
		case isPolicy(f.Path) && !sound && !a.confirmed():
		case a.contest.wait(f.Path, now) > 0, a.failed.wait(f.Path, now) > 0, blocked[f.Path]:
			sound = false
		case a.replace(f):
			written = append(written, f.Path)
		default:
			sound = false
		}
	}
	return written
}

// makeWay removes obsolete files that repeat a scope of the active set. It returns the set's files that must wait,
// because another file still has one of their scopes.
func (a *Agent) makeWay() map[string]bool {
	blocked := map[string]bool{}
	removed := map[string]bool{}
	ds := a.compare.CompareChanged(a.root, a.active.files, nil)
	for _, d := range ds {
		if d.Kind != judge.Duplicate && d.Kind != judge.Masks {
			continue
		}
		if d.Kind == judge.Duplicate && slices.Contains(a.store.Obsolete, d.Path) &&
			(removed[d.Path] || a.removeFile(d.Path)) {
			removed[d.Path] = true
			continue
		}
		blocked[d.Want] = blocked[d.Want] || !isPolicy(d.Want) && !onDisk(ds, d.Want)
	}
	return blocked
}

func (a *Agent) removeFile(p string) bool {
	if a.unsaved != nil {
		return false // after a crash nobody would know that the file was ours
	}
	err := disk.Remove(a.root, p)
	if err != nil && !errors.Is(err, disk.ErrNotDurable) {
		a.fail(p, err, false)
		return false
	}
	delete(a.failed, p)
	a.Log.Info("removed obsolete file", "path", p)
	return true
}

func (a *Agent) removeObsolete() {
	now := time.Now()
	left := slices.DeleteFunc(slices.Clone(a.store.Obsolete), func(p string) bool {
		return a.failed.wait(p, now) == 0 && a.removeFile(p)
	})
	if len(left) == len(a.store.Obsolete) {
		return
	}
	a.store.Obsolete = left
	a.remember()
}

// inOrder sorts policies to the end, behind the files that they rely on.
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

// heal repairs those differences that are ours to repair, and reports whether it changed anything.
func (a *Agent) heal(ds []judge.Difference, now time.Time) bool {
	wrong := map[string]string{}
	for _, d := range ds {
		if _, ours := a.active.files.Get(d.Path); ours && d.Kind != judge.Duplicate {
			wrong[d.Path] += string(d.Kind) + " " + d.Got + "\n"
		}
	}
	maps.DeleteFunc(a.failed, func(p string, x *failure) bool {
		_, is := wrong[p]
		_, ours := a.active.files.Get(p)
		return !is && !(x.inPlace && ours) && !slices.Contains(a.store.Obsolete, p)
	})
	if len(wrong) == 0 {
		a.secure(now)
		a.removeObsolete()
		return false
	}
	written := a.write(wrong, now)
	if len(written) == 0 {
		return false
	}
	for _, p := range written {
		a.contest.note(p, wrong[p], now)
	}
	a.Metrics.drifted()
	for _, d := range ds {
		a.tell(d)
	}
	a.changed()
	return true
}

// tell keeps a healed difference until canaries have answered for the repaired files. Only the latest of a kind is
// kept for each file, which bounds the memory.
func (a *Agent) tell(d judge.Difference) {
	for i, old := range a.healed {
		if old.Path == d.Path && old.Kind == d.Kind && old.Want == d.Want {
			a.healed[i] = d
			return
		}
	}
	if len(a.healed) < maxTold {
		a.healed = append(a.healed, d)
	}
}

// secure rewrites files that are right, but might not survive a loss of power.
func (a *Agent) secure(now time.Time) {
	for _, f := range a.active.files {
		if x := a.failed[f.Path]; x != nil && x.inPlace && a.failed.wait(f.Path, now) == 0 {
			a.replace(f)
		}
	}
}

// onDisk reports whether our file has the right content already, so that replacing it changes nothing.
func onDisk(ds []judge.Difference, p string) bool {
	for _, d := range ds {
		if d.Path == p && d.Kind != judge.Mode && d.Kind != judge.Owner && d.Kind != judge.Label {
			return false
		}
	}
	return true
}

func (a *Agent) replace(f trust.File) bool {
	if err := a.keep(f); err != nil {
		a.fail(f.Path, err, false)
		return false
	}
	aside, err := disk.Replace(a.root, f)
	if errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTEMPTY) {
		// A directory stood at the path of the file.
		aside, err = disk.Replace(a.root, f)
	}
	if aside != "" {
		a.Log.Warn("a directory was in the way and has been renamed", "path", f.Path, "aside", aside)
	}
	if err != nil {
		inPlace := errors.Is(err, disk.ErrNotDurable)
		a.fail(f.Path, err, inPlace)
		return inPlace
	}
	delete(a.failed, f.Path)
	a.Log.Info("healed file", "path", f.Path)
	a.Metrics.healed()
	return true
}

// keep makes sure that what is found at f's path is kept before it is replaced.
func (a *Agent) keep(f trust.File) error {
	if a.store.root == nil {
		return nil
	}
	if k := a.store.found; k != nil && k.Knows(f) {
		return k.MakeWay(f.Path)
	}
	if err := a.store.keep(trust.FileSet{f}); err != nil {
		return fmt.Errorf("keeping what is found at %s: %w", f.Path, err)
	}
	k := a.store.found
	if k == nil || !k.Knows(f) {
		return fmt.Errorf("what is found at %s can't be kept", f.Path)
	}
	return k.MakeWay(f.Path)
}

// reject rolls the desired set back to the last good one, if there is one.
func (a *Agent) reject(s *set, reason, why string) {
	a.Log.Error("desired state is rejected", "digest", s.digest, "reason", reason, "err", why)
	last := a.lastGood()
	toFound := last == nil && a.active != nil && a.active.digest == s.digest
	switch {
	case last != nil:
		why += "; the last good set stands in"
	case toFound:
		why += "; what was found on the host stands in"
	default:
		why += "; nothing was written"
	}
	a.store.Rejected = &rejection{Digest: s.digest, Reason: reason, Message: why, Found: toFound}
	back := last != nil && (a.active == nil || a.active.digest != last.digest)
	if back {
		// Saved together with the rejection: an agent that starts now continues from here.
		a.store.Obsolete, a.store.Trial = a.replacing(last), nil
	}
	if toFound {
		a.store.Obsolete, a.store.Trial = nil, nil
		a.active, a.back = nil, false
		a.changed()
	}
	a.remember()
	a.trial = trial{}
	switch {
	case back:
		a.activate(last)
	case toFound:
		a.putBack()
	}
}

// putBack puts back what was found on the host, until all of it is there. It is not healed afterwards: the host's own
// files are its owner's to change, and what the next set replaces is kept anew.
func (a *Agent) putBack() {
	if a.back || a.store.found == nil || a.failed.wait(foundDir, time.Now()) > 0 {
		return
	}
	left, err := a.store.found.Restore()
	if err == nil && len(left) == 0 {
		err = a.store.found.Forget()
	}
	if err != nil {
		a.fail(foundDir, err, false)
		return
	}
	delete(a.failed, foundDir)
	a.back = true
	a.Log.Info("what was found on the host is back", "left", fmt.Sprint(left))
}

func (a *Agent) confirm(accepted []string) {
	if a.lastGoodDigest() == a.active.digest && slices.Equal(a.store.Accepted, accepted) &&
		slices.Equal(a.store.LastGood.Canaries, a.active.canaries) {
		return
	}
	if a.lastGoodDigest() != a.active.digest {
		a.Log.Info("desired state is confirmed", "digest", a.active.digest)
	}
	a.store.LastGood, a.store.Trial = save(a.active), nil
	a.store.Accepted = accepted
	a.remember()
}

// judgeTrial confirms or rejects the set on trial by a round of canaries, or leaves it on trial.
func (a *Agent) judgeTrial(canaries []judge.Canary) {
	if !a.confirmed() {
		for _, c := range judge.BlockedCanaries(canaries) {
			// Whoever serves the registry can forge a manifest at any time: a forged one says nothing about the set.
			if c.Reason != verdict.ManifestForged && a.acceptedBefore(c.Image) {
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

// acceptedBefore reports whether there is a better set than the one on trial to go back to: the last good one accepted
// the image, or, as long as no set was confirmed, what was found accepts it without a signature.
func (a *Agent) acceptedBefore(image string) bool {
	if a.store.LastGood != nil {
		return slices.Contains(a.store.Accepted, image)
	}
	if a.store.found == nil {
		return false
	}
	policy, ok := a.store.found.File(trust.PolicyPath)
	return ok && disk.Accepts(policy, image)
}
