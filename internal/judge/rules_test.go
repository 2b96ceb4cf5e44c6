package judge_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

const (
	acceptImage = "registry.example.com/a@sha256:aa"
	refuseImage = "registry.example.com/b@sha256:bb"
)

func canary(expect, got verdict.Answer, reason verdict.Reason, runtime string) judge.Canary {
	image := acceptImage
	if expect == verdict.Refuse {
		image = refuseImage
	}
	return judge.Canary{
		Verdict: verdict.Verdict{Image: image, Outcome: verdict.Outcome{Answer: got, Reason: reason}}, Expect: expect,
		Runtime: runtime,
	}
}

func good(runtimes ...string) []judge.Canary {
	var cs []judge.Canary
	for _, r := range runtimes {
		cs = append(cs, canary("accept", "accept", "", r), canary("refuse", "refuse", verdict.WrongKey, r))
	}
	return cs
}

func with(base []judge.Canary, more ...judge.Canary) []judge.Canary {
	return append(append([]judge.Canary(nil), base...), more...)
}

func inNamespace(c judge.Canary, ns string) judge.Canary {
	c.Namespace = ns
	return c
}

func TestJudge(t *testing.T) {
	policy := "/etc/containers/policy.json"
	drift := []judge.Difference{{Path: policy, Kind: judge.Content, Want: "sha256:11", Got: "sha256:22"}}
	mask := []judge.Difference{{Path: "/root/.config/containers/policy.json", Kind: judge.Masks}}
	key := []judge.Difference{{Path: "/etc/pki/k", Kind: judge.KeyMissing}}
	pulled := canary("refuse", "accept", "", "cri")
	blocked := canary("accept", "refuse", verdict.NoSignature, "cri")
	policies := []judge.Difference{
		{Path: "/etc/crio/policies/other.json", Kind: judge.Masks},
		{Path: "/etc/crio/policies/ns.json", Kind: judge.Masks},
	}
	long := blocked
	long.Message = strings.Repeat("a long story ", 100)
	down := canary("accept", "unknown", verdict.RegistryUnreachable, "cri")
	crio := judge.Runtime{
		Name: "cri-o", Version: "1.34.0", Advisories: []string{"forged-schema1", "other"},
		Fixed: "5.42.1",
	}
	podman := judge.Runtime{Name: "podman", Version: "4.3.1", Advisories: []string{"forged-schema1"}, Fixed: "5.42.1"}
	fine := judge.Runtime{Name: "containerd", Version: "1.7.0", Advisories: []string{}}
	holes := []judge.Runtime{fine, crio}
	problem := func(r string) *judge.Problem { return &judge.Problem{Reason: r, Message: "because " + r} }

	for _, tt := range []struct {
		name   string
		in     judge.Input
		state  judge.State
		reason string
		says   string // part of the message
	}{
		{"all right", judge.Input{Canaries: good("cri")}, judge.Enforced, "", "through cri"},
		{"two runtimes agree", judge.Input{Canaries: good("cri", "podman")}, judge.Enforced, "", "cri and podman"},
		{"nothing known", judge.Input{}, judge.Unknown, "NoCanary", "no canary"},
		{"accept side missing", judge.Input{Canaries: good("cri")[1:]}, judge.Unknown, "NoCanary", "accept-canary"},
		{"refuse side missing", judge.Input{Canaries: good("cri")[:1]}, judge.Unknown, "NoCanary", "refuse-canary"},
		{
			"side missing in one runtime",
			judge.Input{Canaries: with(good("cri"), good("podman")[0])},
			judge.Unknown,
			"NoCanary", "podman",
		},
		{
			"side only in a namespace",
			judge.Input{Canaries: []judge.Canary{good("cri")[0], inNamespace(good("cri")[1], "ns")}},
			judge.Unknown, "NoCanary", "refuse-canary",
		},

		{
			"refuse-canary pulled",
			judge.Input{Canaries: []judge.Canary{good("cri")[0], pulled}},
			judge.NotEnforced,
			"RefuseCanaryPulled", refuseImage,
		},
		{
			"pulled by one of two runtimes",
			judge.Input{Canaries: with(good("podman"), good("cri")[0], pulled)},
			judge.NotEnforced, "RefuseCanaryPulled", "through cri",
		},
		{
			"pulled, but files differ",
			judge.Input{Canaries: []judge.Canary{good("cri")[0], pulled}, Differences: mask},
			judge.Drifted, "Masks", "was pulled",
		},
		{
			"pulled in a namespace",
			judge.Input{Canaries: with(good("cri"), inNamespace(pulled, "team-a"))},
			judge.NotEnforced,
			"RefuseCanaryPulled", "team-a",
		},
		{
			"accept-canary refused",
			judge.Input{Canaries: []judge.Canary{blocked, good("cri")[1]}},
			judge.Blocked,
			"NoSignature", acceptImage,
		},
		{
			"refused by one of two runtimes",
			judge.Input{Canaries: with(good("podman"), blocked, good("cri")[1])},
			judge.Blocked, "NoSignature", "cri",
		},
		{
			"pulled before refused",
			judge.Input{Canaries: []judge.Canary{blocked, pulled}},
			judge.NotEnforced,
			"RefuseCanaryPulled", "",
		},
		{
			"registry down",
			judge.Input{Canaries: []judge.Canary{down, good("cri")[1]}},
			judge.Unknown, "RegistryUnreachable",
			acceptImage,
		},
		{
			"refuse-canary unknown",
			judge.Input{Canaries: []judge.Canary{
				good("cri")[0],
				canary("refuse", "unknown", verdict.LookasideUnreachable, "cri"),
			}},
			judge.Unknown, "LookasideUnreachable",
			refuseImage,
		},
		{
			"refused, but not by signature",
			judge.Input{Canaries: []judge.Canary{
				good("cri")[0],
				canary("refuse", "refuse", verdict.RejectedByPolicy, "cri"),
			}},
			judge.Unknown, "RejectedByPolicy",
			"not for its signatures",
		},
		{"refused without reason", judge.Input{Canaries: []judge.Canary{
			good("cri")[0],
			canary("refuse", "refuse", "", "cri"),
		}}, judge.Unknown, "CouldNotTell", ""},
		{"refused: no signature", judge.Input{Canaries: []judge.Canary{
			good("cri")[0],
			canary("refuse", "refuse", verdict.NoSignature, "cri"),
		}}, judge.Enforced, "", ""},
		{"OK is not believed", judge.Input{Canaries: func() []judge.Canary {
			p := pulled
			p.OK = true
			return []judge.Canary{good("cri")[0], p}
		}()}, judge.NotEnforced, "RefuseCanaryPulled", ""},

		{"verify alone decides", judge.Input{Canaries: good("verify")}, judge.Enforced, "", "no runtime took part"},
		{"verify alone, pulled", judge.Input{Canaries: []judge.Canary{
			good("verify")[0],
			canary("refuse", "accept", "", "verify"),
		}}, judge.NotEnforced, "RefuseCanaryPulled", "no runtime took part"},
		{
			"verify never decides beside a runtime",
			judge.Input{Canaries: with(good("cri"),
				canary("refuse", "accept", "", "verify"), canary("accept", "refuse", verdict.NoSignature, "verify"))},
			judge.Enforced, "", "verify disagrees",
		},
		{
			"verify is no runtime's second side",
			judge.Input{Canaries: with(good("verify"), good("cri")[0])},
			judge.Unknown,
			"NoCanary", "cri",
		},
		{
			"verify unknown beside a runtime",
			judge.Input{Canaries: with(good("cri"),
				canary("accept", "unknown", verdict.LookasideUnreachable, "verify"))},
			judge.Enforced, "",
			"unknown (LookasideUnreachable)",
		},

		{
			"a runtime without a known hole",
			judge.Input{Canaries: good("cri"), Runtimes: []judge.Runtime{fine}},
			judge.Enforced, "", "both canaries right through cri",
		},
		{
			"a runtime with known holes",
			judge.Input{Canaries: good("cri"), Runtimes: holes},
			judge.Enforced, "RuntimeAdvisory", "both canaries right through cri; by its version number cri-o 1.34.0 has forged-schema1, other, fixed in image library 5.42.1",
		},
		{
			"two runtimes with known holes",
			judge.Input{Canaries: good("cri", "podman"), Runtimes: []judge.Runtime{crio, podman}},
			judge.Enforced, "RuntimeAdvisory", "; and podman 4.3.1 has forged-schema1, fixed in image library 5.42.1",
		},
		{
			"a hole, and verify disagrees",
			judge.Input{Canaries: with(good("cri"), canary("accept", "unknown", verdict.Timeout, "verify")), Runtimes: holes},
			judge.Enforced, "RuntimeAdvisory", "library 5.42.1; verify disagrees",
		},
		{
			"a hole is no proof of a refusal",
			judge.Input{Canaries: []judge.Canary{good("cri")[0], pulled}, Runtimes: holes},
			judge.NotEnforced, "RefuseCanaryPulled", "",
		},
		{
			"a hole changes no drift",
			judge.Input{Canaries: good("cri"), Differences: drift, Runtimes: holes},
			judge.Drifted,
			"Content", policy,
		},
		{
			"a hole changes no unknown",
			judge.Input{Canaries: []judge.Canary{down, good("cri")[1]}, Runtimes: holes},
			judge.Unknown, "RegistryUnreachable", acceptImage,
		},
		{"a hole alone proves nothing", judge.Input{Runtimes: holes}, judge.Unknown, "NoCanary", "no canary"},
		{
			"a hole changes no problem",
			judge.Input{Canaries: good("cri"), Problem: problem("DesiredInvalid"), Runtimes: holes},
			judge.Unknown, "DesiredInvalid", "because",
		},

		{"drift", judge.Input{Canaries: good("cri"), Differences: drift}, judge.Drifted, "Content", policy},
		{"drift before unknown", judge.Input{Differences: drift}, judge.Drifted, "Content", policy},
		{
			"blocked before drift",
			judge.Input{Canaries: []judge.Canary{blocked, good("cri")[1]}, Differences: drift},
			judge.Blocked, "NoSignature", "",
		},
		{
			"blocked by a mask",
			judge.Input{Canaries: []judge.Canary{long, good("cri")[1]}, Differences: with2(drift, mask)},
			judge.Blocked, "NoSignature", "/root/.config/containers/policy.json is read instead of our files; accept-canary ",
		},
		{
			"blocked in a namespace",
			judge.Input{
				Canaries:    with(good("cri"), inNamespace(blocked, "ns")),
				Differences: with2(mask, policies),
			},
			judge.Blocked, "NoSignature",
			"/etc/crio/policies/ns.json is read instead of our files; accept-canary ",
		},
		{
			"blocked beside a namespace's policy",
			judge.Input{
				Canaries:    []judge.Canary{blocked, good("cri")[1]},
				Differences: with2(policies, mask),
			},
			judge.Blocked, "NoSignature",
			"/root/.config/containers/policy.json is read instead of our files; accept-canary ",
		},
		{"key missing", judge.Input{Canaries: good("cri"), Differences: key}, judge.Unknown, "KeyMissing", "/etc/pki/k"},
		{"key missing and drift", judge.Input{Differences: with2(key, drift)}, judge.Drifted, "Content", policy},
		{"held back", judge.Input{Differences: drift, Held: problem("KeyMissing")}, judge.Unknown, "KeyMissing", "because"},
		{
			"problem",
			judge.Input{Canaries: good("cri"), Problem: problem("DesiredInvalid")},
			judge.Unknown, "DesiredInvalid",
			"because",
		},
		{"problem does not hide blocked", judge.Input{
			Canaries: []judge.Canary{blocked, good("cri")[1]},
			Problem:  problem("X"),
		}, judge.Blocked, "NoSignature", ""},
		{
			"rolled back",
			judge.Input{Canaries: good("cri"), RolledBack: problem("DoesNotLoad")},
			judge.RolledBack,
			"DoesNotLoad", "because",
		},
		{
			"rolled back before drift",
			judge.Input{Differences: drift, RolledBack: problem("DoesNotLoad")},
			judge.RolledBack,
			"DoesNotLoad", "",
		},
		{
			"held before drift",
			judge.Input{Differences: drift, Gate: problem("StateNotSaved")},
			judge.Held,
			"StateNotSaved", "",
		},
		{
			"rolled back before held",
			judge.Input{RolledBack: problem("DoesNotLoad"), Gate: problem("StateNotSaved")},
			judge.RolledBack,
			"DoesNotLoad", "",
		},
		{"blocked before rolled back", judge.Input{
			Canaries:   []judge.Canary{blocked, good("cri")[1]},
			RolledBack: problem("DoesNotLoad"),
		}, judge.Blocked, "NoSignature", ""},
		{"contested first", judge.Input{
			Canaries: []judge.Canary{pulled}, Contested: []string{policy},
			Shadowed: problem("S"),
		}, judge.Contested, "ForeignWriter", policy},
		{
			"shadowed second",
			judge.Input{Canaries: []judge.Canary{pulled}, Shadowed: problem("OtherMachineConfig")},
			judge.Shadowed, "OtherMachineConfig", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state, reason, message := judge.Judge(tt.in)
			if state != tt.state || reason != tt.reason {
				t.Errorf("got %s/%s, want %s/%s (%s)", state, reason, tt.state, tt.reason, message)
			}
			if !strings.Contains(message, tt.says) {
				t.Errorf("message %q does not say %q", message, tt.says)
			}
		})
	}
}

func with2(a, b []judge.Difference) []judge.Difference {
	return append(append([]judge.Difference(nil), a...), b...)
}

func TestMessageIsClean(t *testing.T) {
	c := canary("accept", "unknown", verdict.Timeout, "cri")
	c.Message = "evil\x1b[31m\nline\u202e \xff" + strings.Repeat("ä", 400)
	_, _, m := judge.Judge(judge.Input{Canaries: []judge.Canary{c, good("cri")[1]}})
	if len(m) > judge.MaxMessage || !utf8.ValidString(m) {
		t.Errorf("message of %d bytes, valid UTF-8 %v", len(m), utf8.ValidString(m))
	}
	if strings.ContainsAny(m, "\x1b\n\u202e") {
		t.Errorf("message %q carries control characters", m)
	}
	if !strings.Contains(m, "evil?[31m line? ?ä") {
		t.Errorf("message %q lost its text", m)
	}
}

func TestDifferencesAreCounted(t *testing.T) {
	var ds []judge.Difference
	for _, p := range []string{"/a", "/b", "/c", "/d", "/e"} {
		ds = append(ds, judge.Difference{Path: p, Kind: judge.Missing})
	}
	_, _, m := judge.Judge(judge.Input{Differences: ds})
	if want := "/a is missing; /b is missing; /c is missing; and 2 more"; m != want {
		t.Errorf("got %q, want %q", m, want)
	}
}
