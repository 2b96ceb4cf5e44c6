package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/nodetrust/nodetrust/agent/child"
	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

const (
	probeTime   = 2 * time.Minute
	lintTime    = 30 * time.Second
	removeTime  = 10 * time.Second
	maxAuth     = 1 << 20
	maxWhy      = 512 // bytes kept of the child's text
	maxRuntimes = 4
)

// bucket limits the probes after heals: canaries are pulled from registries that count requests.
type bucket struct{ *rate.Limiter }

// probeSpacing is the pause between canary rounds once the burst is used up. It does not add up: after any number of
// heals the next round is at most this far away.
const probeSpacing = 10 * time.Second

func newBucket() bucket { return bucket{rate.NewLimiter(rate.Every(probeSpacing), 20)} }

type job struct {
	cancel context.CancelFunc
}

type answer struct {
	generation int
	err        error
	lint       *lintAnswer
	probe      *probeAnswer
	removed    bool
}

type lintAnswer struct {
	digest string
	loads  bool
	why    string
}

type probeAnswer struct {
	problem  *judge.Problem
	canaries []judge.Canary
	keys     []judge.Key
	runtimes []judge.Runtime
}

func (a *Agent) probeNow() {
	if a.limit.Limiter == nil {
		a.limit = newBucket()
	}
	at := time.Now()
	if !a.limit.Allow() {
		at = at.Add(probeSpacing)
	}
	if a.probeAt.IsZero() || a.probeAt.After(at) {
		a.probeAt = at
	}
}

func (a *Agent) probeDue() bool {
	return a.active != nil && len(a.active.canaries) > 0 && a.probed == nil
}

func (a *Agent) startJob(ctx context.Context) {
	if a.job != nil {
		return
	}
	now := time.Now()
	switch h := a.trial.held; {
	case h != nil && h.Reason == judge.ReasonLoadPending && !now.Before(a.trial.retryAt):
		a.start(ctx, a.lintJob(a.target))
	case a.trial.adopted && a.active == a.target && !now.Before(a.trial.retryAt):
		a.start(ctx, a.lintJob(a.active))
	case a.active != nil && len(a.active.canaries) > 0 && !now.Before(a.probeAt):
		a.probeAt = now.Add(jitter(a.ProbeInterval))
		a.start(ctx, a.probeJob(a.active, slices.Clone(a.store.Owned)))
	}
}

func (a *Agent) start(ctx context.Context, do func(context.Context) answer) {
	ctx, cancel := context.WithCancel(ctx)
	a.job = &job{cancel: cancel}
	generation := a.generation
	a.jobs.Go(func() {
		ans := do(ctx)
		cancel()
		ans.generation = generation
		a.answers <- ans
	})
}

func (a *Agent) take(ans answer) {
	a.job = nil
	select {
	case absent := <-a.announced:
		a.own(absent)
	default:
	}
	switch {
	case ans.lint != nil:
		a.takeLint(ans)
	case ans.probe != nil:
		a.takeProbe(ans)
	}
	if ans.removed {
		a.own(nil)
	}
}

func (a *Agent) takeLint(ans answer) {
	if a.target == nil || ans.lint.digest != a.target.digest {
		return
	}
	switch {
	case errors.Is(ans.err, context.Canceled):
	case ans.err != nil:
		a.Log.Warn("the child could not tell whether the desired files load", "digest", ans.lint.digest, "err", ans.err)
		a.trial.retryAt = time.Now().Add(min(retry, a.Resync))
		a.trial.held = nil
		a.trial.failed = &judge.Problem{
			Reason:  judge.ReasonLoadUnknown,
			Message: "whether the desired files load could not be told: " + ans.err.Error(),
		}
	case !ans.lint.loads:
		a.reject(a.target, judge.ReasonDoesNotLoad, "the desired files do not load: "+ans.lint.why)
	default:
		a.trial.loads, a.trial.failed, a.trial.adopted = true, nil, false
	}
}

func (a *Agent) takeProbe(ans answer) {
	p := ans.probe
	if ans.generation != a.generation || errors.Is(ans.err, context.Canceled) {
		a.probeNow()
		return
	}
	if ans.err != nil {
		a.Log.Warn("canaries gave no result", "err", ans.err)
		p.problem = &judge.Problem{Reason: judge.ReasonProbeFailed, Message: "canaries gave no result: " + ans.err.Error()}
		a.probeAt = earliest(a.probeAt, time.Now().Add(jitter(min(retry, a.ProbeInterval))))
	}
	p.runtimes = remembered(p.runtimes, a.runtimes, p.canaries)
	if len(p.canaries) > 0 {
		a.runtimes = p.runtimes
	}
	a.Metrics.probed(p.canaries, p.keys, p.runtimes)
	a.healed = nil
	a.probed = p
	if p.problem != nil || a.readOnly() {
		return
	}
	a.compareAgain()
	a.judgeTrial(p.canaries)
}

func earliest(x, y time.Time) time.Time {
	if y.Before(x) {
		return y
	}
	return x
}

// own remembers which images in the runtime's store were pulled by us. A nil list means none.
func (a *Agent) own(absent []string) {
	next := slices.Clone(absent)
	if absent != nil {
		next = append(next, a.store.Owned...)
		slices.Sort(next)
		next = slices.Compact(next)
	}
	if slices.Equal(next, a.store.Owned) {
		return
	}
	a.store.Owned = next
	a.remember()
}

// probeJob runs one round of canaries. After a failed round it removes the images that may be left.
func (a *Agent) probeJob(s *set, owned []string) func(context.Context) answer {
	canaries := s.canaries
	return func(ctx context.Context) answer {
		ans := answer{probe: &probeAnswer{}}
		stdin, err := json.Marshal(canaries)
		if err != nil {
			ans.err = err
			return ans
		}
		files, auth, err := a.authfile()
		if err != nil {
			ans.err = err
			return ans
		}
		absent := owned
		res, err := a.Child.Run(ctx, child.Command{
			Args: func(tmp string) []string {
				args := []string{
					"probe", "--canaries", "-", "--announce", "--keep-accepted", "--root", a.HostRoot, "--cri-socket",
					a.CRISocket, "--runtime", a.Runtime,
				}
				if auth != "" {
					args = append(args, "--authfile", tmp+"/"+auth)
				}
				return append(ownedArgs(args, owned), "-o", "json")
			},
			Stdin: stdin, Files: files, Deadline: probeTime,
			FirstLine: func(line []byte) {
				var first struct {
					Absent []string `json:"absent"`
				}
				if json.Unmarshal(line, &first) != nil {
					return
				}
				// Only images that were asked for are remembered and removed later, whatever the child says.
				ours := slices.DeleteFunc(first.Absent, func(image string) bool {
					return !slices.ContainsFunc(canaries, func(c trust.Canary) bool { return c.Image == image })
				})
				if len(ours) > 0 {
					absent = append(slices.Clone(absent), ours...)
					a.announced <- ours
				}
			},
		})
		if err == nil {
			*ans.probe, err = parseProbe(res, a.Runtime, canaries)
		}
		if err == nil {
			return ans
		}
		ans.err = err
		if len(absent) > 0 {
			// Also when ctx is done: end waits for it, with its own limit.
			rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
			defer cancel()
			if rerr := a.remove(rctx, absent); rerr != nil {
				a.Log.Warn("removing canary images", "err", rerr)
			} else {
				ans.removed = true
			}
		}
		return ans
	}
}

func ownedArgs(args, owned []string) []string {
	for _, o := range owned {
		args = append(args, "--owned", o)
	}
	return args
}

func (a *Agent) remove(ctx context.Context, owned []string) error {
	res, err := a.Child.Run(ctx, child.Command{
		Args: func(string) []string {
			return ownedArgs([]string{"probe", "--remove", "--cri-socket", a.CRISocket, "--runtime", a.Runtime}, owned)
		},
		Deadline: removeTime,
	})
	if err == nil && res.Exit != 0 {
		err = childError(res)
	}
	return err
}

// authfile returns a copy of the logins for the child: the original may be readable by root only.
func (a *Agent) authfile() ([]child.File, string, error) {
	if a.Authfile == "" {
		return nil, "", nil
	}
	b, err := bounded.ReadRegular(os.OpenFile, a.Authfile, maxAuth)
	if err != nil {
		return nil, "", fmt.Errorf("reading the authfile: %w", err)
	}
	return []child.File{{Path: "auth.json", Data: b, Secret: true}}, "auth.json", nil
}

// parseProbe reads the last JSON document of the child's output. It must hold each canary of asked for each runtime
// that decides, and no other canary.
func parseProbe(res child.Result, runtime string, asked []trust.Canary) (probeAnswer, error) {
	if res.Exit != 0 && res.Exit != 3 && res.Exit != 4 {
		return probeAnswer{}, childError(res)
	}
	dec := json.NewDecoder(bytes.NewReader(res.Stdout))
	var first struct {
		Absent *[]string `json:"absent"`
	}
	if err := dec.Decode(&first); err != nil || first.Absent == nil {
		return probeAnswer{}, errors.New("reading the child's output: the first line does not announce")
	}
	var p struct {
		Canaries []judge.Canary `json:"canaries"`
		Keys     []struct {
			Fingerprint string          `json:"fingerprint"`
			Expires     json.RawMessage `json:"expires"`
		} `json:"keys"`
		Runtimes []judge.Runtime `json:"runtimes"`
	}
	if err := dec.Decode(&p); err != nil {
		return probeAnswer{}, fmt.Errorf("reading the child's output: %w", err)
	}
	if err := checkAnswers(p.Canaries, asked); err != nil {
		return probeAnswer{}, fmt.Errorf("reading the child's output: %w", err)
	}
	out := probeAnswer{canaries: p.Canaries, runtimes: knownRuntimes(p.Runtimes)}
	for _, k := range p.Keys {
		out.keys = append(out.keys, judge.Key{Fingerprint: k.Fingerprint, Expires: expiry(k.Expires)})
	}
	if runtime == "auto" && !slices.ContainsFunc(out.canaries,
		func(c judge.Canary) bool { return c.Runtime != "verify" }) {
		out.problem = &judge.Problem{
			Reason:  judge.ReasonNoRuntime,
			Message: "no container runtime to ask: nothing here enforces a policy",
		}
	}
	return out, nil
}

// knownRuntimes drops names and versions of the child that can't be real, and looks up the holes of the versions here.
func knownRuntimes(told []judge.Runtime) []judge.Runtime {
	var out []judge.Runtime
	for _, r := range told[:min(len(told), maxRuntimes)] {
		known := judge.Runtime(trust.LookupRuntime(r.Name, r.Version))
		if known.Name != "" && !slices.ContainsFunc(out, func(o judge.Runtime) bool { return o.Name == known.Name }) {
			out = append(out, known)
		}
	}
	return out
}

// remembered returns the runtimes of a round. A busy runtime that took part without a version keeps the version of the
// last round: else reports and alerts would follow the load of a node.
func remembered(told, before []judge.Runtime, cs []judge.Canary) []judge.Runtime {
	through := func(r judge.Runtime) string {
		if r.Name == "podman" {
			return r.Name
		}
		return "cri"
	}
	told = slices.DeleteFunc(slices.Clone(told), func(r judge.Runtime) bool { return r.Version == "" })
	out := slices.Clone(told)
	for _, r := range before {
		tookPart := slices.ContainsFunc(cs, func(c judge.Canary) bool { return c.Runtime == through(r) })
		if tookPart && !slices.ContainsFunc(told, func(o judge.Runtime) bool { return through(o) == through(r) }) {
			out = append(out, r)
		}
	}
	return out
}

// checkAnswers returns why the answers don't match the canaries that were asked for.
func checkAnswers(got []judge.Canary, asked []trust.Canary) error {
	answered := map[string]int{} // by runtime: canaries answered under the system's policy
	seen := map[string]bool{}
	for _, c := range got {
		switch c.Runtime {
		case "cri", "podman", "verify":
		default:
			return errors.New("an answer is of no known runtime")
		}
		switch c.Answer {
		case verdict.Accept, verdict.Refuse, verdict.Unknown:
		default:
			return errors.New("an answer is neither accept, refuse nor unknown")
		}
		if !slices.Contains(asked, trust.Canary{Image: c.Image, Expect: c.Expect}) {
			return errors.New("an answer is to no canary that was asked for")
		}
		answered[c.Runtime] += 0 // a runtime that answers only in namespaces has answered 0
		if key := c.Runtime + " " + c.Image; c.Namespace == "" && !seen[key] {
			seen[key] = true
			answered[c.Runtime]++
		}
	}
	for runtime, n := range answered {
		// Answers of verify beside those of a runtime decide nothing.
		if n != len(asked) && (runtime != "verify" || len(answered) == 1) {
			return fmt.Errorf("%d of %d canaries were answered through %s", n, len(asked), runtime)
		}
	}
	return nil
}

// expiry takes Unix seconds or a time in RFC 3339; 0 means never.
func expiry(raw json.RawMessage) int64 {
	var seconds int64
	if json.Unmarshal(raw, &seconds) == nil {
		return seconds
	}
	var t time.Time
	if json.Unmarshal(raw, &t) == nil && !t.IsZero() {
		return t.Unix()
	}
	return 0
}

func childError(res child.Result) error {
	if res.Stderr == "" {
		return fmt.Errorf("exit status %d", res.Exit)
	}
	return fmt.Errorf("exit status %d: %s", res.Exit, strings.TrimPrefix(res.Stderr, "nodetrust: error: "))
}

// lintJob asks the child whether the current library loads the set beside the other files of the host.
func (a *Agent) lintJob(s *set) func(context.Context) answer {
	files, err := a.stage(s)
	return func(ctx context.Context) answer {
		ans := answer{lint: &lintAnswer{digest: s.digest}, err: err}
		if err != nil {
			return ans
		}
		res, err := a.Child.Run(ctx, child.Command{
			Args:  func(tmp string) []string { return []string{"lint", "--root", tmp + "/stage", "-o", "json"} },
			Files: files, Deadline: lintTime,
		})
		if err == nil {
			ans.lint.loads, ans.lint.why, err = parseLint(res)
		}
		ans.err = err
		return ans
	}
}

// stage returns the host's /etc/containers and /usr/share/containers as they would be with s, and the key files of its
// policy.
func (a *Agent) stage(s *set) ([]child.File, error) {
	var out []child.File
	add := func(p string, data []byte) { out = append(out, child.File{Path: "stage" + p, Data: data}) }
	gone := a.replacing(s)
	replaced := func(p string) bool {
		_, ours := s.files.Get(p)
		return ours || slices.Contains(gone, p)
	}
	others, err := disk.Others(a.root, replaced)
	if err != nil {
		return nil, fmt.Errorf("reading the host's registries.d: %w", err)
	}
	for _, f := range append(others, a.keyFiles(s)...) {
		if !replaced(f.Path) {
			add(f.Path, f.Data)
		}
	}
	for _, f := range s.files {
		add(f.Path, f.Data)
	}
	return out, nil
}

func (a *Agent) keyFiles(s *set) trust.FileSet {
	var out trust.FileSet
	for _, k := range disk.KeyPaths(s.files) {
		if f, err := disk.Read(a.root, k); err == nil {
			out = append(out, f)
		} else if !errors.Is(err, fs.ErrNotExist) {
			a.Log.Debug("staging a key", "path", path.Clean(k), "err", err)
		}
	}
	return out
}

func cut(s string) string {
	if len(s) > maxWhy {
		s = s[:maxWhy]
	}
	return strings.ToValidUTF8(s, "?")
}

// parseLint returns whether the reader loads the files. Output without a reader is an error.
func parseLint(res child.Result) (loads bool, why string, err error) {
	if res.Exit != 0 && res.Exit != 3 {
		return false, "", childError(res)
	}
	var report struct {
		Readers []struct {
			Reader string `json:"reader"`
			Loads  *bool  `json:"loads"`
			Error  string `json:"error"`
		} `json:"readers"`
	}
	if err := json.Unmarshal(res.Stdout, &report); err != nil {
		return false, "", fmt.Errorf("reading the child's output: %w", err)
	}
	if len(report.Readers) == 0 {
		return false, "", errors.New("reading the child's output: no reader answered")
	}
	for _, r := range report.Readers {
		switch {
		case r.Loads == nil:
			return false, "", fmt.Errorf("reading the child's output: reader %q did not answer", r.Reader)
		case !*r.Loads:
			return false, cut(r.Error), nil
		}
	}
	return true, "", nil
}
