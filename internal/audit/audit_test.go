package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// uses is a source of what was given.
type uses []audit.Use

func (u uses) Uses(_ context.Context, yield func(audit.Use) error) error {
	for _, one := range u {
		if err := yield(one); err != nil {
			return err
		}
	}
	return nil
}

// failing gives one use, then an error.
type failing struct{}

func (failing) Uses(_ context.Context, yield func(audit.Use) error) error {
	_ = yield(audit.Use{Image: "h.example/before:v1", By: "x"})
	return errors.New("connection\x1b[31m lost")
}

// judge answers by a function, and counts.
type judge struct {
	answer func(ctx context.Context, image string) verdict.Verdict

	mu              sync.Mutex
	asked           map[string]int
	inFlight, atMax map[string]int
}

func (j *judge) Image(ctx context.Context, image string) (verdict.Verdict, error) {
	host, _, _ := strings.Cut(image, "/")
	j.mu.Lock()
	if j.asked == nil {
		j.asked, j.inFlight, j.atMax = map[string]int{}, map[string]int{}, map[string]int{}
	}
	j.asked[image]++
	j.inFlight[host]++
	j.atMax[host] = max(j.atMax[host], j.inFlight[host])
	j.mu.Unlock()
	v := j.answer(ctx, image)
	v.Image = image
	j.mu.Lock()
	j.inFlight[host]--
	j.mu.Unlock()
	return v, nil
}

// canonical stands for the image library's: it adds the tag.
func canonical(image string) (string, error) {
	switch {
	case strings.Contains(image, " "):
		return "", errors.New("invalid reference format")
	case strings.Contains(image[strings.LastIndexByte(image, '/')+1:], ":"):
		return image, nil
	}
	return image + ":latest", nil
}

func collect(t *testing.T, sources ...audit.Source) *audit.Inventory {
	t.Helper()
	var named []audit.Named
	for i, s := range sources {
		named = append(named, audit.Named{Name: fmt.Sprint("source", i), Source: s})
	}
	inv, err := audit.Collect(t.Context(), canonical, named...)
	if err != nil {
		t.Log(err)
	}
	return inv
}

// TestRun_short: of a name without a registry it is said what it was taken for.
func TestRun_short(t *testing.T) {
	dockerIO := func(image string) (string, error) {
		return "docker.io/library/" + strings.TrimPrefix(image, "docker.io/library/"), nil
	}
	for image, short := range map[string]bool{
		"nginx:v1": true, "library/nginx:v1": true,
		"docker.io/library/nginx:v1": false,
	} {
		inv, err := audit.Collect(t.Context(), dockerIO, audit.Named{Name: "x", Source: uses{{Image: image, By: "x"}}})
		if err != nil {
			t.Fatal(err)
		}
		j := &judge{answer: func(context.Context, string) verdict.Verdict {
			return verdict.Verdict{Outcome: verdict.Outcome{Answer: verdict.Accept}}
		}}
		r := audit.Run(t.Context(), inv, j, audit.Options{})
		if got := strings.Contains(r.Images[0].Message, "nodes may take a short name elsewhere"); got != short {
			t.Errorf("%s: %q", image, r.Images[0].Message)
		}
	}
}

func TestRun_once(t *testing.T) {
	inv := collect(t, uses{
		{Image: "h.example/a:v1", By: "ns/pod/x@n1", Digest: "sha256:old"},
		{Image: "docker://h.example/a:v1", By: "ns/pod/x@n1", Digest: "sha256:new"},
		{Image: "h.example/a:v1", By: "ns/pod/\u202ey\x1b[31m@n1", Role: audit.Agent},
		{Image: "h.example/b", By: "1"},
		{Image: "h.example/b:latest", By: "2", Role: audit.CNI},
		{Image: "h.example/b:latest", By: "3", Role: audit.ControlPlane},
		{Image: "not an image", By: "4"},
	})
	j := &judge{answer: func(context.Context, string) verdict.Verdict {
		return verdict.Verdict{
			Outcome: verdict.Outcome{Answer: verdict.Accept, Message: "fine\x1b[31m"},
			Digest:  "sha256:new",
		}
	}}
	r := audit.Run(t.Context(), inv, j, audit.Options{})
	if len(j.asked) != 2 || j.asked["h.example/a:v1"] != 1 || j.asked["h.example/b:latest"] != 1 {
		t.Errorf("asked for %v", j.asked)
	}
	by := map[string]audit.Image{}
	for _, m := range r.Images {
		by[m.Image] = m
	}
	a, b, bad := by["h.example/a:v1"], by["h.example/b"], by["not an image"]
	if !slices.Equal(a.UsedBy, []string{"ns/pod/?y?[31m@n1", "ns/pod/x@n1"}) || a.Role != audit.Agent ||
		!slices.Equal(a.InUse, []string{"sha256:old"}) || a.Message != "fine?[31m" {
		t.Errorf("a: %+v", a)
	}
	if len(b.UsedBy) != 3 || b.Role != audit.CNI {
		t.Errorf("b: %+v", b)
	}
	if bad.Answer != verdict.Unknown || bad.Reason != verdict.ImageNotFound ||
		!strings.Contains(bad.Message, "invalid reference") {
		t.Errorf("what is no image: %+v", bad)
	}
	if s := r.Summary; !s.Complete || s.Images != 3 || s.Accept != 2 || s.Unknown != 1 || s.Uses != 6 ||
		r.Answer() != verdict.Unknown {
		t.Errorf("summary: %+v", s)
	}
}

// TestRun_sourceFails: what was listed before is judged, and the report doesn't pass for the whole.
func TestRun_sourceFails(t *testing.T) {
	j := &judge{answer: func(context.Context, string) verdict.Verdict {
		return verdict.Verdict{Outcome: verdict.Outcome{Answer: verdict.Accept}}
	}}
	r := audit.Run(t.Context(), collect(t, failing{}, uses{{Image: "h.example/after:v1", By: "y"}}), j, audit.Options{})
	if r.Summary.Complete || r.Summary.Accept != 2 || r.Answer() != verdict.Unknown || len(r.Summary.Problems) != 1 ||
		strings.Contains(r.Summary.Problems[0], "\x1b") {
		t.Errorf("%+v", r.Summary)
	}
}

// TestRun_bounds: so many of a host, so many of all, and a slow host keeps no other waiting.
func TestRun_bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list uses
		for i := range 100 {
			list = append(list, audit.Use{Image: fmt.Sprintf("slow.example/a%d:v1", i), By: "x"},
				audit.Use{Image: fmt.Sprintf("fast.example/a%d:v1", i), By: "x"})
		}
		fast := 0
		j := &judge{}
		j.answer = func(_ context.Context, image string) verdict.Verdict {
			d := 10 * time.Second
			if strings.HasPrefix(image, "fast") {
				d = time.Millisecond
			}
			time.Sleep(d)
			return verdict.Verdict{Outcome: verdict.Outcome{Answer: verdict.Accept}}
		}
		start := time.Now()
		audit.Run(t.Context(), collect(t, list), j, audit.Options{PerHost: 5, Total: 8, Progress: func(p audit.Progress) {
			if time.Since(start) < 10*time.Second {
				fast = p.Done
			}
		}})
		if j.atMax["slow.example"] != 5 || j.atMax["fast.example"] > 5 {
			t.Errorf("in flight: %v", j.atMax)
		}
		if fast != 100 {
			t.Errorf("%d images of the fast host while the slow one slept", fast)
		}
		if d := time.Since(start); d > 201*time.Second { // 100 of 10 s each, 5 at a time
			t.Errorf("took %s", d)
		}
	})
}

// TestRun_deadRegistry: a registry that answers nothing is given up, and its images are unknown for its reason.
func TestRun_deadRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list uses
		for i := range 200 {
			list = append(list, audit.Use{Image: fmt.Sprintf("dead.example/a%d:v1", i), By: "x"})
		}
		list = append(list, audit.Use{Image: "fine.example/a:v1", By: "x"})
		j := &judge{answer: func(_ context.Context, image string) verdict.Verdict {
			if strings.HasPrefix(image, "fine") {
				return verdict.Verdict{Outcome: verdict.Outcome{Answer: verdict.Accept}}
			}
			time.Sleep(30 * time.Second)
			return verdict.Verdict{Outcome: verdict.Outcome{
				Answer: verdict.Unknown, Reason: verdict.Timeout,
				Message: "no answer", Hint: "try again",
			}}
		}}
		start := time.Now()
		r := audit.Run(t.Context(), collect(t, list), j, audit.Options{})
		if d := time.Since(start); d > time.Minute {
			t.Errorf("took %s", d)
		}
		if n := len(j.asked); n > 40 {
			t.Errorf("%d images asked for", n)
		}
		s := r.Summary
		if s.Unknown != 200 || s.Accept != 1 || len(s.Fixes) != 1 || s.Fixes[0].Images != 200 ||
			s.Fixes[0].Title != "200 images need an answer of dead.example" {
			t.Errorf("%+v", s)
		}
		last := r.Images[len(r.Images)-2]
		if last.Interrupted || last.Reason != verdict.Timeout {
			t.Errorf("%+v", last)
		}
	})
}

// TestRun_refusedFast: a registry that refuses connections costs nothing, so that each of its images says so itself.
func TestRun_refusedFast(t *testing.T) {
	var list uses
	for i := range 200 {
		list = append(list, audit.Use{Image: fmt.Sprintf("down.example/a%d:v1", i), By: "x"})
	}
	j := &judge{answer: func(context.Context, string) verdict.Verdict {
		return verdict.Verdict{Outcome: verdict.Outcome{Answer: verdict.Unknown, Reason: verdict.RegistryUnreachable}}
	}}
	if audit.Run(t.Context(), collect(t, list), j, audit.Options{}); len(j.asked) != 200 {
		t.Errorf("%d asked for", len(j.asked))
	}
}

// TestReport_order: what locks out first, then refused, unknown, accepted; fixes by how many they help.
func TestReport_order(t *testing.T) {
	answers := map[string]verdict.Verdict{
		"h.example/accepted:v1": {Outcome: verdict.Outcome{Answer: verdict.Accept}},
		"h.example/unknown:v1":  {Outcome: verdict.Outcome{Answer: verdict.Unknown, Reason: verdict.ImageNotFound}},
		"h.example/cni:v1":      {Outcome: verdict.Outcome{Answer: verdict.Unknown, Reason: verdict.Unauthorized}},
		"h.example/refused:v1": {
			Outcome: verdict.Outcome{Answer: verdict.Refuse, Reason: verdict.RejectedByPolicy},
			Scope:   &verdict.Scope{Matched: "default"},
		},
		"h.example/zpause:v1": {
			Outcome: verdict.Outcome{Answer: verdict.Refuse, Reason: verdict.WrongKey},
			Scope:   &verdict.Scope{Name: "h.example", Matched: "host"},
		},
		"h.example/many/one:v1": {Outcome: verdict.Outcome{
			Answer: verdict.Refuse, Reason: verdict.NoSignature,
			Cause: verdict.NoLookaside,
		}},
		"h.example/many/two:v1": {Outcome: verdict.Outcome{
			Answer: verdict.Refuse, Reason: verdict.NoSignature,
			Cause: verdict.NoLookaside,
		}},
		"h.example/many/canary:v1": {
			Outcome: verdict.Outcome{Answer: verdict.Refuse, Reason: verdict.WrongKey}, Scope: &verdict.Scope{Matched: "exact"},
			Requirements: []verdict.Requirement{{Keys: []string{"CANARY"}}},
		},
	}
	var list uses
	for image := range answers {
		u := audit.Use{Image: image, By: "x"}
		switch image {
		case "h.example/zpause:v1":
			u.Role = audit.Pause
		case "h.example/cni:v1":
			u.Role = audit.CNI
		}
		list = append(list, u)
	}
	j := &judge{answer: func(_ context.Context, image string) verdict.Verdict { return answers[image] }}
	r := audit.Run(t.Context(), collect(t, list), j, audit.Options{CanaryKey: "CANARY"})
	var got []string
	for _, m := range r.Images {
		got = append(got, m.Image)
	}
	want := []string{
		"h.example/zpause:v1", "h.example/many/canary:v1", "h.example/many/one:v1", "h.example/many/two:v1",
		"h.example/refused:v1",
		"h.example/cni:v1", "h.example/unknown:v1", "h.example/accepted:v1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("images:\n%s", strings.Join(got, "\n"))
	}
	var titles []string
	for _, f := range r.Summary.Fixes {
		titles = append(titles, f.Title)
	}
	want = []string{
		"1 image is signed by key unknown, which is none of scope h.example",
		"2 images need a lookaside for h.example/many",
		"1 image needs an entry for h.example: the policy's default is to reject",
		"1 image is the refuse-canary of the policy and in use: choose another image as the canary",
		"1 image needs a login for h.example",
		"1 image is not to be had from h.example",
	}
	if !slices.Equal(titles, want) {
		t.Errorf("fixes:\n%s", strings.Join(titles, "\n"))
	}
	var roles []audit.Role
	for _, l := range r.Summary.Lockout {
		roles = append(roles, l.Role)
	}
	if !slices.Equal(roles, []audit.Role{audit.Pause, audit.CNI}) || r.Answer() != verdict.Refuse {
		t.Errorf("lockouts %v, %s", roles, r.Answer())
	}
}

// TestFixes_accepted: what only newer runtimes accept is accepted, and told apart all the same.
func TestFixes_accepted(t *testing.T) {
	j := &judge{answer: func(_ context.Context, image string) verdict.Verdict {
		v := verdict.Verdict{
			Outcome: verdict.Outcome{Answer: verdict.Accept},
			Scope:   &verdict.Scope{Transport: "docker", Name: "h.example", Matched: "host"},
		}
		if !strings.Contains(image, "primary") {
			v.Hint = "have the primary key sign"
		}
		return v
	}}
	r := audit.Run(t.Context(), collect(t, uses{
		{Image: "h.example/primary:v1", By: "x"}, {Image: "h.example/a:v1", By: "x"}, {Image: "h.example/b:v1", By: "x"},
	}), j, audit.Options{})
	s := r.Summary
	if s.Accept != 3 || r.Answer() != verdict.Accept || len(s.Lockout) != 0 {
		t.Errorf("%+v", s)
	}
	if len(s.Fixes) != 1 || s.Fixes[0].Images != 2 || s.Fixes[0].Hint == "" ||
		s.Fixes[0].Title != "2 images are signed by a subkey only, which older runtimes refuse" {
		t.Errorf("fixes %+v", s.Fixes)
	}
}

// TestFixes: every reason and cause has a group, which names what it is about.
func TestFixes(t *testing.T) {
	scope := &verdict.Scope{Transport: "docker", Name: "h.example/team", Matched: "namespace"}
	lookaside := &verdict.Lookaside{URL: "https://sigs.example/base/team/app", File: "/etc/containers/registries.d/x.yaml"}
	one := func(v verdict.Verdict) audit.Fix {
		v.Scope, v.Lookaside = scope, lookaside
		j := &judge{answer: func(context.Context, string) verdict.Verdict { return v }}
		r := audit.Run(t.Context(), collect(t, uses{{Image: "h.example/team/app:v1", By: "x"}}), j, audit.Options{})
		if len(r.Summary.Fixes) != 1 || r.Images[0].Fix != r.Summary.Fixes[0].ID {
			t.Errorf("%s %s: fixes %+v", v.Reason, v.Cause, r.Summary.Fixes)
			return audit.Fix{}
		}
		return r.Summary.Fixes[0]
	}
	seen := map[string]string{}
	check := func(v verdict.Verdict) {
		f := one(v)
		what := string(v.Reason) + " " + string(v.Cause)
		if f.Title == "" || strings.Contains(f.Title, "is refuse:") || strings.Contains(f.Title, "is unknown:") {
			t.Errorf("%s has no words of its own: %q", what, f.Title)
		}
		if other, ok := seen[f.ID]; ok {
			t.Errorf("%s and %s are one group", what, other)
		}
		seen[f.ID] = what
	}
	for _, reason := range verdict.Reasons() {
		answer := verdict.Unknown
		switch reason {
		case verdict.TrustedByRelease, verdict.FileMissing, verdict.RuntimeFailed: // no audit says so of what isn't accepted
			continue
		case verdict.WrongKey, verdict.WrongIdentity, verdict.WrongDigest, verdict.KeyExpired, verdict.SignatureExpired,
			verdict.KeyRevoked,
			verdict.KeyUnreadable, verdict.WeakOrUnsupported, verdict.RejectedByPolicy, verdict.ManifestForged,
			verdict.NotSignedFor:
			answer = verdict.Refuse
		case verdict.NoSignature:
			for _, cause := range verdict.Causes() {
				if cause != verdict.NotInLayout {
					check(verdict.Verdict{Outcome: verdict.Outcome{Answer: verdict.Refuse, Reason: reason, Cause: cause}})
				}
			}
			continue
		}
		check(verdict.Verdict{Outcome: verdict.Outcome{Answer: answer, Reason: reason}})
	}
	got := one(verdict.Verdict{Outcome: verdict.Outcome{
		Answer: verdict.Refuse, Reason: verdict.NoSignature,
		Cause: verdict.NotSigned,
	}})
	if want := "1 image needs a signature in https://sigs.example/base for h.example/team"; got.Title != want {
		t.Errorf("%q, want %q", got.Title, want)
	}
}

func TestList(t *testing.T) {
	read := func(text string) (out []audit.Use, err error) {
		l := audit.List{
			Name: "l.txt", Reader: strings.NewReader(text),
			Check: func(image string) error { _, err := canonical(image); return err },
		}
		err = l.Uses(t.Context(), func(u audit.Use) error { out = append(out, u); return nil })
		return out, err
	}
	got, err := read("\ufeffa.example/x:v1\r\n\r\n# comment\n  b.example/y@sha256:00 digest=sha256:11 by=ns/pod/p@n role=pause # why\n")
	want := []audit.Use{
		{Image: "a.example/x:v1", By: "l.txt:1"},
		{Image: "b.example/y@sha256:00", Digest: "sha256:11", By: "ns/pod/p@n", Role: audit.Pause},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"a.example/x:v1\nb.example/y:v1 oops\nb.example/y:v1 role=king": "l.txt:2: \"oops\": after the image only digest=, by= and role= are understood\nl.txt:3: role \"king\": must be release, pause, cni, agent or control-plane",
		strings.Repeat("x", 10_000):                                     "l.txt:1: is longer than 8192 bytes",
	} {
		if got, err := read(text); err == nil || err.Error() != want || len(got) > 0 {
			t.Errorf("%v: %+v", err, got)
		}
	}
	if _, err := read(strings.Repeat("a b\n", 1000)); err == nil || strings.Count(err.Error(), "\n") != 20 {
		t.Errorf("too many problems: %v", err)
	}
}
