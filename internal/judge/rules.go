package judge

import (
	"fmt"
	"path"
	"strings"

	"github.com/nodetrust/nodetrust/internal/outside"
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
		return Unknown, unknownReason(u), u.describe("could not be judged: "+unknownText(u)) + c.notes()
	}
	if known := describeHoles(in.Runtimes); known != "" {
		return Enforced, ReasonRuntimeAdvisory, c.right() + known + c.notes()
	}
	return Enforced, "", c.right() + c.notes()
}

// describeHoles names the runtimes with known holes, the holes and the fixed version; "" without holes. Distributors
// fix holes without a new number, so the message says that only the number was compared.
func describeHoles(rs []Runtime) string {
	var b strings.Builder
	for _, r := range rs {
		if len(r.Advisories) == 0 {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("; by its version number")
		} else {
			b.WriteString("; and")
		}
		fmt.Fprintf(&b, " %s %s has %s, fixed in image library %s", r.Name, r.Version,
			strings.Join(r.Advisories, ", "), r.Fixed)
	}
	return b.String()
}

// sorted are the deciding canaries by result.
type sorted struct {
	deciding []entry // accept and refuse, right and wrong
	pulled   []entry // refuse-canaries that were accepted
	blocked  []entry // accept-canaries that were refused
	unknown  []entry // neither right, pulled nor blocked
	verify   []entry // verify differs from a runtime
	runtime  bool    // a real runtime took part
}

type entry struct{ Canary }

// sortCanaries ignores the entries of verify once a real runtime took part.
func sortCanaries(cs []Canary) sorted {
	var s sorted
	for _, c := range cs {
		s.runtime = s.runtime || c.Runtime != "verify"
	}
	for _, c := range cs {
		e := entry{c}
		if s.runtime && c.Runtime == "verify" {
			if disagrees(c, cs) {
				s.verify = append(s.verify, e)
			}
			continue
		}
		s.deciding = append(s.deciding, e)
		switch {
		case e.right():
		case c.Expect == verdict.Refuse && c.Answer == verdict.Accept:
			s.pulled = append(s.pulled, e)
		case c.Expect == verdict.Accept && c.Answer == verdict.Refuse:
			s.blocked = append(s.blocked, e)
		default:
			s.unknown = append(s.unknown, e)
		}
	}
	return s
}

// BlockedCanaries returns the deciding accept-canaries that were refused.
func BlockedCanaries(cs []Canary) []Canary { return plain(sortCanaries(cs).blocked) }

// AcceptedCanaries returns the deciding accept-canaries that were accepted.
func AcceptedCanaries(cs []Canary) []Canary {
	var out []Canary
	for _, e := range sortCanaries(cs).deciding {
		if e.Expect == verdict.Accept && e.right() {
			out = append(out, e.Canary)
		}
	}
	return out
}

func plain(es []entry) []Canary {
	var out []Canary
	for _, e := range es {
		out = append(out, e.Canary)
	}
	return out
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

func (e entry) right() bool { return Right(e.Canary) }

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
	for _, c := range all {
		if c.Runtime != "verify" && c.Image == v.Image && c.Namespace == v.Namespace &&
			c.Answer != v.Answer {
			return true
		}
	}
	return false
}

// missing names the side that a participating runtime did not try; "" if all tried both.
func (s sorted) missing() string {
	type sides struct{ accept, refuse bool }
	seen := map[string]*sides{}
	var order []string
	for _, e := range s.deciding {
		if seen[e.Runtime] == nil {
			seen[e.Runtime] = &sides{}
			order = append(order, e.Runtime)
		}
		switch {
		case e.Namespace != "":
		case e.Expect == verdict.Accept:
			seen[e.Runtime].accept = true
		case e.Expect == verdict.Refuse:
			seen[e.Runtime].refuse = true
		}
	}
	if len(order) == 0 {
		return "no canary was run"
	}
	for _, r := range order {
		switch s := seen[r]; {
		case !s.accept && !s.refuse:
			return "no canary was run through " + r
		case !s.accept:
			return "no accept-canary was run through " + r
		case !s.refuse:
			return "no refuse-canary was run through " + r
		}
	}
	return ""
}

func (s sorted) right() string {
	var runtimes []string
	seen := map[string]bool{}
	for _, e := range s.deciding {
		if !seen[e.Runtime] {
			seen[e.Runtime] = true
			runtimes = append(runtimes, e.Runtime)
		}
	}
	return "both canaries right through " + strings.Join(runtimes, " and ")
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
func (e entry) describe(what string) string {
	where := e.Runtime
	if e.Namespace != "" {
		where += " in namespace " + e.Namespace
	}
	return fmt.Sprintf("%s-canary %s through %s %s", e.Expect, e.Image, where, what)
}

// namespacedPolicies holds CRI-O's policies of single namespaces.
const namespacedPolicies = "/etc/crio/policies"

// mask returns a prefix that names the file read instead of ours where the canary was pulled, or "".
func (e entry) mask(files []Difference) string {
	for _, d := range files {
		ofNamespace := path.Dir(d.Path) == namespacedPolicies
		if d.Kind == Masks && ofNamespace == (e.Namespace != "") &&
			(!ofNamespace || path.Base(d.Path) == e.Namespace+".json") {
			return describeDifference(d) + "; "
		}
	}
	return ""
}

func unknownReason(e entry) string {
	if e.Reason == "" {
		return "CouldNotTell"
	}
	return string(e.Reason)
}

func unknownText(e entry) string {
	if e.Answer == verdict.Refuse {
		return fmt.Sprintf("refused, but not for its signatures (%s) %s", e.Reason, e.Message)
	}
	return e.Message
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
	var b strings.Builder
	for i, d := range ds {
		if i > 0 {
			b.WriteString("; ")
		}
		if i == 3 {
			fmt.Fprintf(&b, "and %d more", len(ds)-i)
			break
		}
		b.WriteString(describeDifference(d))
	}
	return b.String()
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
	var b strings.Builder
	for part := range strings.SplitSeq(string(k), "-") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

func list(s []string) string {
	if len(s) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(s[:3], ", "), len(s)-3)
	}
	return strings.Join(s, ", ")
}
