// Package agent keeps the files of one host as desired, proves with canaries that they are enforced, and reports the
// result.
//
// The goroutine of Run owns all state. Events only trigger a look, which compares everything. The child that probes
// and lints runs in a goroutine of its own and sends its answer.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/nodetrust/nodetrust/agent/child"
	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/agent/watch"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	// settle is the pause that gathers events after more than vainLooks events in a row changed none of our files:
	// somebody is writing other files in a watched directory.
	settle    = 200 * time.Millisecond
	vainLooks = 10
	// secondLook is the pause between a heal and the next look: our own writes must not count as somebody's.
	secondLook = 5 * time.Millisecond
	// maxBusy is the number of heals in a row that are followed by a second look at once.
	maxBusy = 8
	// retry is the pause before a failed child is started again.
	retry = 30 * time.Second
)

// Options configure Run.
type Options struct {
	HostRoot, Desired, Pool, NodeName string
	// Observe forbids every write below HostRoot.
	Observe bool
	// Once ends Run at the first status that is not preliminary.
	Once       bool
	StatusFile string

	// Child runs the nodetrust CLI.
	Child                        *child.Runner
	CRISocket, Runtime, Authfile string

	Resync, ProbeInterval time.Duration
	ContestedAfter        int

	Log     *slog.Logger
	Metrics *Metrics
	// Report is called with each status that differs from the previous one. It must not block.
	Report func(Status)
	// MCO receives true if the Machine Config Operator manages the node, and is closed once this is known. A nil
	// channel means that nobody can tell.
	MCO <-chan bool
}

// ErrDesired is wrapped by Run's error when Once is set and the desired state can't be read.
var ErrDesired = errors.New("desired state is not usable")

// Agent is the state of the loop, which owns it.
type Agent struct {
	Options
	root    *os.Root
	store   *store
	compare disk.Comparer
	watch   *watch.Watcher
	contest contest
	failed  failures
	limit   bucket
	dirs    []string         // watched directories
	mounts  map[string]mount // mounts below the host root, by mount point

	desiredStamp string
	desiredErr   error
	target       *set // the desired set
	active       *set // the set that is kept on disk; nil until one was activated
	mco          bool
	trial        trial

	differences []judge.Difference
	compared    []judge.Difference // differences of the active set at the last look
	deciding    string             // stands for the files that decide beside those of the active set
	healed      []judge.Difference // healed since the last probe that began after the heal
	probed      *probeAnswer       // nil while no answer is for the files as they are
	runtimes    []judge.Runtime    // took part in the last round with a result
	last        Status
	statusErr   error // of the last write of the status file

	unsaved    error         // why the memory is not on disk
	saveAt     time.Time     // saving is tried again
	savePause  time.Duration // grows
	began      bool          // the first desired set was seen
	back       bool          // what was found is back in place
	generation int           // counts changes of files; answers of older generations don't count
	probeAt    time.Time
	quiet      time.Time     // events before this time wait until it
	vain       *rate.Limiter // counts looks for events that changed nothing
	event      bool          // the next look is for an event
	waiting    bool          // events wait for quiet
	busy       int           // heals in a row

	jobs      sync.WaitGroup
	job       *job
	answers   chan answer
	announced chan []string
}

// trial tracks a desired set from when it is read until its canaries confirm or reject it.
type trial struct {
	digest  string
	loads   bool
	retryAt time.Time
	failed  *judge.Problem // why the child has no answer; it runs again at retryAt
	held    *judge.Problem // why the set is not on disk
	adopted bool           // the set was on disk already: the child looks at it afterwards
}

// Run works until ctx is done, or with Once until the first final status. It returns the last status.
func Run(ctx context.Context, o Options) (Status, error) {
	root, err := os.OpenRoot(o.HostRoot)
	if err != nil {
		return Status{}, fmt.Errorf("opening the host root: %w", err)
	}
	defer root.Close()
	a := &Agent{
		Options: o, root: root, contest: contest{after: o.ContestedAfter}, failed: failures{},
		answers: make(chan answer, 1), announced: make(chan []string, 1),
		vain: rate.NewLimiter(rate.Every(settle), vainLooks),
	}
	if a.store, err = a.open(); err != nil {
		return Status{}, err
	}
	defer a.store.close()
	a.waitForMCO(ctx)
	a.watch = watch.New(o.Log)
	defer a.watch.Close()
	if os.Geteuid() != 0 {
		o.Log.Warn("not root: files are to belong to this user instead")
	}
	err = a.loop(ctx)
	a.end()
	if err == nil && a.Once && a.statusErr != nil {
		err = fmt.Errorf("writing the status file %s: %w", a.StatusFile, a.statusErr)
	}
	return a.last, err
}

// open opens the store. With Observe the memory stays in the process.
func (a *Agent) open() (*store, error) {
	if a.Observe {
		return &store{}, nil
	}
	s, err := openStore(a.root, a.Log)
	if s.broken != nil {
		a.Log.Warn("keeping state in memory", "err", s.broken)
		a.unsaved = s.broken
	}
	return s, err
}

// waitForMCO gives the API server a moment to say who manages this node, before the first write.
func (a *Agent) waitForMCO(ctx context.Context) {
	if a.MCO == nil || a.Observe || hasMCO(a.root) {
		return
	}
	select {
	case is, ok := <-a.MCO:
		a.mco = a.mco || is
		if !ok || is {
			a.MCO = nil
		}
	case <-time.After(3 * time.Second):
		a.Log.Warn("whether the node belongs to an MCO is not known yet; the host's files say no")
	case <-ctx.Done():
	}
}

func (a *Agent) loop(ctx context.Context) error {
	resync := time.NewTimer(0)
	wake := time.NewTimer(time.Hour)
	defer resync.Stop()
	defer wake.Stop()
	a.begin()
	a.Metrics.expect(a.Resync)
	for {
		full := false
		select {
		case <-ctx.Done():
			return nil
		case <-resync.C:
			full = true
			resync.Reset(jitter(a.Resync))
			a.look(full)
		case <-a.watch.C():
			if time.Now().Before(a.quiet) {
				a.waiting = true
				a.sleep(wake)
				continue
			}
			a.event = true
			a.look(false)
		case <-wake.C:
			a.look(false)
		case is, ok := <-a.MCO:
			a.mco = a.mco || is
			if !ok {
				a.MCO = nil
			}
			a.look(true)
		case absent := <-a.announced:
			a.own(absent)
			continue
		case ans := <-a.answers:
			full = ans.probe != nil
			a.take(ans)
			a.look(false)
		}
		if full {
			if err := a.checkMounts(a.dirs); err != nil {
				return err
			}
		}
		a.publish(full)
		a.startJob(ctx)
		if a.Once && a.job == nil && !a.probeDue() {
			if a.target == nil {
				return fmt.Errorf("%w: %w", ErrDesired, a.desiredErr)
			}
			return nil
		}
		a.sleep(wake)
	}
}

// sleep sets the timer to the next thing that is due without an event.
func (a *Agent) sleep(t *time.Timer) {
	now := time.Now()
	next := now.Add(time.Hour)
	earlier := func(at time.Time) {
		if at.After(now) && at.Before(next) {
			next = at
		}
	}
	if a.job == nil {
		earlier(a.probeAt)
		earlier(a.trial.retryAt)
	}
	for _, p := range a.contest.contested(now) {
		if w := a.contest.wait(p, now); w > 0 {
			earlier(now.Add(w))
		}
	}
	for _, f := range a.failed {
		earlier(f.until)
	}
	if a.unsaved != nil {
		earlier(a.saveAt)
	}
	if a.waiting || a.busy > 0 {
		earlier(a.quiet)
	}
	t.Reset(max(next.Sub(now), time.Millisecond))
}

func (a *Agent) begin() {
	saved := a.store.Trial
	if saved == nil {
		saved = a.store.LastGood
	}
	if saved == nil {
		return
	}
	s, err := saved.set()
	if err != nil { // openStore has checked it
		return
	}
	a.active = adopt(s)
	if !a.readOnly() {
		a.sweep(a.active)
	}
}

func (a *Agent) sweep(s *set) {
	var paths []string
	for _, f := range s.files {
		paths = append(paths, f.Path)
	}
	if err := disk.Sweep(a.root, paths); err != nil {
		a.Log.Warn("sweeping", "err", err)
	}
}

// readOnly reports whether only the agent's own state may be written below the host root.
func (a *Agent) readOnly() bool { return a.Observe || a.mco || hasMCO(a.root) }

// adopt returns s with files owned by this process, unless it is root: only root can chown.
func adopt(s *set) *set {
	if os.Geteuid() == 0 {
		return s
	}
	out := *s
	out.files = slices.Clone(s.files)
	for i := range out.files {
		out.files[i].UID, out.files[i].GID = uint32(os.Geteuid()), uint32(os.Getegid())
	}
	return &out
}

// load reads the desired state if it may have changed, or always.
func (a *Agent) load(always bool) {
	stamp := desiredStamp(a.Desired)
	if stamp == a.desiredStamp && !always {
		return
	}
	a.desiredStamp = stamp
	s, err := desired.Load(a.Desired)
	if err == nil && a.Pool != "" && s.Pool != "" && s.Pool != a.Pool {
		err = fmt.Errorf("is for pool %q, not %q", s.Pool, a.Pool)
	}
	if err != nil {
		if a.desiredErr == nil || a.desiredErr.Error() != err.Error() {
			a.Log.Warn("desired state is not usable, keeping what there is", "path", a.Desired, "err", err)
		}
		a.desiredErr = err
		return
	}
	a.desiredErr = nil
	next := adopt(&set{name: s.Name, digest: s.Files.Digest(), files: s.Files, canaries: s.Canaries})
	if a.target != nil && a.target.digest == next.digest {
		if !slices.Equal(a.target.canaries, next.canaries) {
			a.Log.Info("other canaries are desired", "digest", next.digest)
			a.target.canaries = next.canaries
			a.changed() // a round that runs was asked about others
		}
		a.target.name = next.name
		return
	}
	a.Log.Info("desired state", "digest", next.digest, "name", next.name)
	a.target = next
	a.trial = trial{}
	if r := a.store.Rejected; r != nil && r.Digest != next.digest {
		a.store.Rejected = nil
		a.remember()
	}
	// The running job answers for another set and holds up the lint of this one.
	if a.job != nil {
		a.job.cancel()
	}
}

func desiredStamp(p string) string {
	var b strings.Builder
	if target, err := os.Readlink(filepath.Join(p, "..data")); err == nil {
		b.WriteString(target)
	}
	for _, f := range []string{p, filepath.Join(p, desired.IgnitionFile), filepath.Join(p, desired.CanariesFile)} {
		if info, err := os.Stat(f); err == nil {
			fmt.Fprintf(&b, "|%d %d %v %v", info.Size(), info.ModTime().UnixNano(), info.Mode(), inode(info))
		}
	}
	return b.String()
}

// look compares everything, heals what may be healed, and advances a new desired set. A full look reads every file;
// others skip files whose metadata is unchanged.
func (a *Agent) look(full bool) {
	a.load(full)
	if a.unsaved != nil && !time.Now().Before(a.saveAt) {
		a.remember()
	}
	event := a.event || a.waiting
	a.event, a.waiting = false, false
	switch {
	case a.readOnly():
		if a.target != nil {
			if a.active == nil || a.active.digest != a.target.digest {
				a.changed()
			}
			a.active = a.target
		}
		a.trial = trial{}
		clear(a.failed)
	case a.target != nil:
		a.advance()
	}
	now := time.Now()
	before := a.compared
	a.differences = nil
	busy := a.busy
	a.busy = 0
	if a.active != nil {
		compare := a.compare.CompareChanged
		if full {
			compare = a.compare.Compare
		}
		ds := compare(a.root, a.active.files, a.store.Obsolete)
		if !a.readOnly() && a.heal(ds, now) {
			a.busy = busy + 1
			a.differences = a.compare.CompareChanged(a.root, a.active.files, a.store.Obsolete)
		} else {
			a.differences = ds
		}
	}
	beside := a.deciding
	if a.active != nil {
		a.deciding = disk.Deciding(a.root, a.active.files)
	}
	a.compared = slices.Clone(a.differences)
	if !slices.Equal(a.compared, before) || beside != "" && a.deciding != beside {
		// The last answer of the canaries was for other files: NotEnforced must not outlive the mask that caused it.
		a.changed()
	}
	switch {
	case a.busy > 0 && a.busy <= maxBusy:
		a.quiet = time.Now().Add(secondLook)
	case a.busy == 0 && busy > 0:
		a.quiet = time.Time{} // the events were our own: no pause before the next one
	case event && !a.vain.Allow():
		a.quiet = time.Now().Add(settle)
	}
	if a.target != nil && a.active != a.target && a.trial.held != nil {
		// The active set is on disk as it should be; the differences are those of the target.
		a.differences = append(a.differences, a.compare.Compare(a.root, a.target.files, a.replacing(a.target))...)
		a.differences = slices.CompactFunc(a.differences, func(x, y judge.Difference) bool { return x == y })
	}
	if a.readOnly() || full {
		a.Log.Debug("looked", "differences", len(a.differences))
	}
	a.Metrics.checked(now)
	a.rewatch()
}

func (a *Agent) compareAgain() {
	a.differences = a.compare.Compare(a.root, a.active.files, a.store.Obsolete)
}

func (a *Agent) rewatch() {
	var files trust.FileSet
	for _, s := range []*set{a.active, a.target} {
		if s != nil {
			files = append(files, s.files...)
		}
	}
	var dirs []string
	for _, d := range append(disk.Dirs(a.root, files), "/"+mcdDir) {
		dirs = append(dirs, filepath.Join(a.HostRoot, d))
	}
	a.watch.Set(map[string][]string{
		filepath.Clean(a.HostRoot):   dirs,
		filepath.Dir(a.desiredDir()): {a.desiredDir()},
	})
	a.dirs = dirs
}

func (a *Agent) desiredDir() string {
	p, err := filepath.Abs(a.Desired)
	if err != nil {
		p = a.Desired
	}
	if info, err := os.Stat(p); err == nil && info.IsDir() {
		return p
	}
	return filepath.Dir(p)
}

// changed makes all answers so far outdated.
func (a *Agent) changed() {
	a.generation++
	a.probed = nil
	a.probeNow()
}

// remember saves the memory and what was found, and reports whether both are on disk. Looks repeat a save that failed.
func (a *Agent) remember() bool {
	if a.active == nil || a.readOnly() {
		return a.saveFor(nil)
	}
	return a.saveFor(a.active.files)
}

func (a *Agent) saveFor(files trust.FileSet) bool {
	err := a.save(files)
	if err == nil {
		a.unsaved, a.savePause = nil, 0
		return true
	}
	if a.unsaved == nil || a.unsaved.Error() != err.Error() {
		a.Log.Error("remembering", "path", stateFile, "err", err)
	}
	a.unsaved = err
	a.savePause = min(max(2*a.savePause, minBackoff), retry)
	a.saveAt = time.Now().Add(a.savePause)
	return false
}

func (a *Agent) save(files trust.FileSet) error {
	if a.store.broken != nil {
		if err := a.store.open(a.Log); err != nil {
			return err
		}
	}
	if len(files) > 0 {
		if err := a.store.keep(files); err != nil {
			return err
		}
	}
	return a.store.write()
}

// notSaved is the problem while the memory is not on disk.
func (a *Agent) notSaved() *judge.Problem {
	return &judge.Problem{
		Reason:  judge.ReasonStateNotSaved,
		Message: "what is to be remembered could not be saved: " + a.unsaved.Error(),
	}
}

// end waits for the child and removes the images that it left in the runtime's store.
func (a *Agent) end() {
	if a.job != nil {
		a.job.cancel()
	}
	a.jobs.Wait()
	select {
	case ans := <-a.answers:
		if ans.removed {
			a.own(nil)
		}
	default:
	}
	select {
	case absent := <-a.announced:
		a.own(absent)
	default:
	}
	if len(a.store.Owned) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeTime)
	defer cancel()
	if err := a.remove(ctx, a.store.Owned); err != nil {
		a.Log.Warn("removing canary images", "err", err)
		return
	}
	a.own(nil)
}

// jitter returns d with up to a tenth added or taken away.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()*0.2-0.1)*float64(d))
}

// isPolicy reports whether p is written last: everything else must be in place when a policy is read.
func isPolicy(p string) bool {
	return path.Dir(p) != trust.RegistriesDir && path.Ext(p) == ".json"
}
