package judge

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// MaxMessage bounds Judge's messages, in bytes.
const MaxMessage = 256

// Reasons of states beside those of verdicts. If a single canary decides, its verdict's reason is the state's.
const (
	ReasonForeignWriter       = "ForeignWriter"       // Contested
	ReasonOtherMachineConfig  = "OtherMachineConfig"  // Shadowed
	ReasonRefuseCanaryPulled  = "RefuseCanaryPulled"  // NotEnforced
	ReasonAcceptCanaryRefused = "AcceptCanaryRefused" // RolledBack
	ReasonDoesNotLoad         = "DoesNotLoad"         // RolledBack
	ReasonStateNotSaved       = "StateNotSaved"       // Held, or Unknown if a set was in force before
	ReasonNoCanary            = "NoCanary"            // Unknown
	ReasonProbePending        = "ProbePending"        // Unknown
	ReasonProbeFailed         = "ProbeFailed"         // Unknown
	ReasonLoadUnknown         = "LoadUnknown"         // Unknown: the child has no answer whether the new files load
	ReasonDesiredInvalid      = "DesiredInvalid"      // Unknown
	ReasonLoadPending         = "LoadPending"         // Unknown: the child will answer soon
	ReasonNoRuntime           = "NoRuntime"           // Unknown: no container runtime to ask
	ReasonWriteFailed         = "WriteFailed"         // Unknown: the files are right, but may not be durable
	ReasonRuntimeAdvisory     = "RuntimeAdvisory"     // Enforced: a runtime's verifier has a known hole
)

// Problem is something that the agent knows and no file or canary shows.
type Problem struct {
	Reason  string
	Message string
}

// Input is everything that a state depends on.
type Input struct {
	// Differences are those of the effective file set from the desired one.
	Differences []Difference
	// Canaries are the entries of one probe round.
	Canaries []Canary
	// Runtimes are those of the canaries. They change no state.
	Runtimes []Runtime

	// Contested are the paths that somebody else keeps writing.
	Contested []string
	// Shadowed is set if the current config of the Machine Config Operator holds other bytes than the desired ones.
	Shadowed *Problem
	// RolledBack is set while the last good set replaces a rejected desired one.
	RolledBack *Problem
	// Gate is set while a gate holds the desired set back: what was in force stays.
	Gate *Problem
	// Held is set while the desired files are deliberately not written. It explains the differences: the state is
	// Unknown with Held's reason instead of Drifted.
	Held *Problem
	// Problem keeps the state from being Enforced.
	Problem *Problem
	// Advice is appended to the message of Drifted.
	Advice string
}

// Judge returns the first state that holds in the order of declaration, its reason, and a message of at most
// MaxMessage bytes without control characters. Enforced means no difference, no problem, and right answers to canaries
// of both sides by every runtime that took part.
func Judge(in Input) (state State, reason, message string) {
	state, reason, message = judge(in)
	return state, outside.Bounded(reason, MaxMessage), outside.Bounded(message, MaxMessage)
}

func judge(in Input) (State, string, string) {
	c := sortCanaries(in.Canaries)
	files, keys := splitKeys(in.Differences)
	switch {
	case len(in.Contested) > 0:
		return Contested, ReasonForeignWriter, "somebody else keeps writing " + list(in.Contested)
	case in.Shadowed != nil:
		return Shadowed, in.Shadowed.Reason, in.Shadowed.Message
	case len(c.pulled) > 0 && len(in.Differences) == 0:
		return NotEnforced, ReasonRefuseCanaryPulled, c.pulled[0].describe("was pulled") + c.notes()
	case len(c.blocked) > 0:
		return Blocked, string(c.blocked[0].Reason),
			c.blocked[0].mask(files) + c.blocked[0].describe("was refused: "+c.blocked[0].Message) + c.notes()
	case in.RolledBack != nil:
		return RolledBack, in.RolledBack.Reason, in.RolledBack.Message
	case in.Gate != nil:
		return Held, in.Gate.Reason, in.Gate.Message
	case len(files) > 0 && in.Held == nil:
		msg := describeDifferences(files)
		if in.Advice != "" {
			msg += "; " + in.Advice
		}
		if len(c.pulled) > 0 {
			msg += "; " + c.pulled[0].describe("was pulled")
		}
		return Drifted, kindReason(files[0].Kind), msg
	case in.Held != nil:
		return Unknown, in.Held.Reason, in.Held.Message
	case len(keys) > 0:
		return Unknown, kindReason(keys[0].Kind), describeDifferences(keys)
	case in.Problem != nil:
		return Unknown, in.Problem.Reason, in.Problem.Message
	case c.missing() != "":
		return Unknown, ReasonNoCanary, c.missing()
	case len(c.unknown) > 0:
		u := c.unknown[0]
		return Unknown, cmp.Or(string(u.Reason), "CouldNotTell"),
			u.describe("could not be judged: "+unknownText(u)) + c.notes()
	}
	if known := describeHoles(in.Runtimes); known != "" {
		return Enforced, ReasonRuntimeAdvisory, c.right() + known + c.notes()
	}
	return Enforced, "", c.right() + c.notes()
}

// describeHoles names the runtimes with known holes, the holes and the fixed version; "" without holes. Distributors
// fix holes without a new number, so the message says that only the number was compared.
func describeHoles(rs []Runtime) string {
	var out []string
	for _, r := range rs {
		if len(r.Advisories) > 0 {
			out = append(out, fmt.Sprintf("%s %s has %s, fixed in image library %s", r.Name, r.Version,
				strings.Join(r.Advisories, ", "), r.Fixed))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "; by its version number " + strings.Join(out, "; and ")
}

// sorted are the deciding canaries by result.
type sorted struct {
	deciding []Canary // accept and refuse, right and wrong
	pulled   []Canary // refuse-canaries that were accepted
	blocked  []Canary // accept-canaries that were refused
	unknown  []Canary // neither right, pulled nor blocked
	verify   []Canary // verify differs from a runtime
	runtime  bool     // a real runtime took part
}

// sortCanaries ignores the entries of verify once a real runtime took part.
func sortCanaries(cs []Canary) sorted {
	var s sorted
	for _, c := range cs {
		s.runtime = s.runtime || c.Runtime != "verify"
	}
	for _, c := range cs {
		if s.runtime && c.Runtime == "verify" {
			if disagrees(c, cs) {
				s.verify = append(s.verify, c)
			}
			continue
		}
		s.deciding = append(s.deciding, c)
		switch {
		case Right(c):
		case c.Expect == verdict.Refuse && c.Answer == verdict.Accept:
			s.pulled = append(s.pulled, c)
		case c.Expect == verdict.Accept && c.Answer == verdict.Refuse:
			s.blocked = append(s.blocked, c)
		default:
			s.unknown = append(s.unknown, c)
		}
	}
	return s
}

// BlockedCanaries returns the deciding accept-canaries that were refused.
func BlockedCanaries(cs []Canary) []Canary { return sortCanaries(cs).blocked }

// AcceptedCanaries returns the deciding accept-canaries that were accepted.
func AcceptedCanaries(cs []Canary) []Canary {
	return slices.DeleteFunc(sortCanaries(cs).deciding,
		func(c Canary) bool { return c.Expect != verdict.Accept || !Right(c) })
}

// Right reports whether the canary was answered as expected; a refuse-canary must be refused for its signatures. Right
// does not read OK: callers set OK from it.
func Right(c Canary) bool {
	switch c.Expect {
	case verdict.Accept:
		return c.Answer == verdict.Accept
	case verdict.Refuse:
		return c.Answer == verdict.Refuse && forSignature(c.Reason)
	}
	return false
}

// forSignature reports whether only a check of signatures can give the reason. A policy that rejects everything or a
// key file without a key does not show that a wrong key is refused.
func forSignature(r verdict.Reason) bool {
	switch r {
	case verdict.NoSignature, verdict.WrongKey, verdict.WrongIdentity, verdict.WrongDigest, verdict.KeyExpired,
		verdict.SignatureExpired, verdict.KeyRevoked, verdict.WeakOrUnsupported:
		return true
	}
	return false
}

// disagrees reports whether a runtime's answer to the same canary differs from verify's.
func disagrees(v Canary, all []Canary) bool {
	return slices.ContainsFunc(all, func(c Canary) bool {
		return c.Runtime != "verify" && c.Image == v.Image && c.Namespace == v.Namespace && c.Answer != v.Answer
	})
}

// runtimes returns the runtimes that took part, each once.
func (s sorted) runtimes() (out []string) {
	for _, c := range s.deciding {
		if !slices.Contains(out, c.Runtime) {
			out = append(out, c.Runtime)
		}
	}
	return out
}

// missing names the side that a participating runtime did not try; "" if all tried both.
func (s sorted) missing() string {
	for _, r := range s.runtimes() {
		tried := func(side verdict.Answer) bool {
			return slices.ContainsFunc(s.deciding,
				func(c Canary) bool { return c.Runtime == r && c.Namespace == "" && c.Expect == side })
		}
		switch accept, refuse := tried(verdict.Accept), tried(verdict.Refuse); {
		case !accept && !refuse:
			return "no canary was run through " + r
		case !accept:
			return "no accept-canary was run through " + r
		case !refuse:
			return "no refuse-canary was run through " + r
		}
	}
	if len(s.deciding) == 0 {
		return "no canary was run"
	}
	return ""
}

func (s sorted) right() string {
	return "both canaries right through " + strings.Join(s.runtimes(), " and ")
}

// notes returns remarks that are appended to every message; they never affect the state.
func (s sorted) notes() string {
	if len(s.deciding) > 0 && !s.runtime {
		return "; no runtime took part"
	}
	if len(s.verify) > 0 {
		v := s.verify[0]
		says := string(v.Answer)
		if v.Reason != "" {
			says += " (" + string(v.Reason) + ")"
		}
		return fmt.Sprintf("; verify disagrees on %s: %s", v.Image, says)
	}
	return ""
}

// describe names what happened, the place, then the image, so that a cut message is still useful.
func (c Canary) describe(what string) string {
	where := c.Runtime
	if c.Namespace != "" {
		where += " in namespace " + c.Namespace
	}
	return fmt.Sprintf("%s-canary %s through %s %s", c.Expect, c.Image, where, what)
}

// mask returns a prefix that names the file read instead of ours where the canary was pulled, or "".
func (c Canary) mask(files []Difference) string {
	for _, d := range files {
		ofNamespace := path.Dir(d.Path) == policy.NamespacedDir
		if d.Kind == Masks && ofNamespace == (c.Namespace != "") &&
			(!ofNamespace || path.Base(d.Path) == c.Namespace+".json") {
			return describeDifference(d) + "; "
		}
	}
	return ""
}

func unknownText(c Canary) string {
	if c.Answer == verdict.Refuse {
		return fmt.Sprintf("refused, but not for its signatures (%s) %s", c.Reason, c.Message)
	}
	return c.Message
}

// splitKeys separates differences of key files: a missing key is no drift of our files, but leaves their meaning open.
func splitKeys(ds []Difference) (files, keys []Difference) {
	for _, d := range ds {
		if d.Kind == KeyMissing || d.Kind == KeyUnreadable {
			keys = append(keys, d)
		} else {
			files = append(files, d)
		}
	}
	return files, keys
}

func describeDifferences(ds []Difference) string {
	var out []string
	for _, d := range ds[:min(len(ds), 3)] {
		out = append(out, describeDifference(d))
	}
	if len(ds) > 3 {
		out = append(out, fmt.Sprintf("and %d more", len(ds)-3))
	}
	return strings.Join(out, "; ")
}

func describeDifference(d Difference) string {
	switch d.Kind {
	case Missing, KeyMissing:
		return d.Path + " is missing"
	case Content:
		return d.Path + " has other content"
	case Masks:
		return d.Path + " is read instead of our files"
	case Duplicate:
		return fmt.Sprintf("%s repeats %s of %s", d.Path, d.Got, d.Want)
	case Invalid:
		return fmt.Sprintf("%s does not parse: %s", d.Path, d.Got)
	case Mode, Owner, Type, Label:
		return fmt.Sprintf("%s has %s %s, not %s", d.Path, d.Kind, d.Got, d.Want)
	}
	return fmt.Sprintf("%s is unreadable: %s", d.Path, d.Got)
}

func kindReason(k Kind) string {
	out := ""
	for part := range strings.SplitSeq(string(k), "-") {
		if part != "" {
			out += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return out
}

func list(s []string) string {
	if len(s) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(s[:3], ", "), len(s)-3)
	}
	return strings.Join(s, ", ")
}
