package audit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Report is the result of an audit, as it appears in JSON.
type Report struct {
	Summary Summary `json:"summary"`
	// Images are sorted: lockouts first, then refused, unknown, accepted, each by name.
	Images []Image `json:"images"`
}

// Summary is the part to read first.
type Summary struct {
	// Images counts different references, Uses their users.
	Images int `json:"images"`
	Uses   int `json:"uses"`
	Counts
	// Signed of Accept have a signature of their own or of a release. Unsigned are the rest: the policy asks for none.
	Signed   int `json:"signed"`
	Unsigned int `json:"unsigned"`
	// RequireSigned is true if Unsigned images count as refused.
	RequireSigned bool `json:"requireSigned,omitempty"`
	// ByTag counts images that are named by tag; the rest of Images are named by digest.
	ByTag int `json:"byTag"`
	// Complete is false if a source failed or the audit was interrupted, for the reasons Problems: images may be missing.
	Complete bool     `json:"complete"`
	Problems []string `json:"problems,omitempty"`
	// Policy is the judged file. Desired is the digest of the file set of a trust config, empty for another policy.
	Policy    string    `json:"policy"`
	Desired   string    `json:"desired,omitempty"`
	Mechanism string    `json:"mechanism,omitempty"`
	CheckedAt time.Time `json:"checkedAt"`
	// Cached counts answers of earlier audits.
	Cached int `json:"cached"`
	// Releases are those that were asked to vouch for images.
	Releases []ReleaseVerdict `json:"releases,omitempty"`
	// Lockout are the images without which the cluster, or nodetrust on it, can't go on, and which would not be accepted.
	Lockout []Lockout `json:"lockout"`
	// Fixes say what to do, the worst first.
	Fixes      []Fix      `json:"fixes"`
	Reasons    []Reason   `json:"reasons"`
	Registries []Registry `json:"registries"`
}

// Counts are numbers of images by their verdict.
type Counts struct {
	Accept  int `json:"accept"`
	Refuse  int `json:"refuse"`
	Unknown int `json:"unknown"`
}

// Add counts n images with an answer.
func (c *Counts) Add(a verdict.Answer, n int) {
	switch a {
	case verdict.Accept:
		c.Accept += n
	case verdict.Refuse:
		c.Refuse += n
	default:
		c.Unknown += n
	}
}

// Total returns the number of images.
func (c Counts) Total() int { return c.Accept + c.Refuse + c.Unknown }

// ReleaseVerdict is the answer on an OpenShift release. Unless it was accepted it vouches for nothing.
type ReleaseVerdict struct {
	Release string `json:"release"`
	verdict.Outcome
}

// Lockout is an image without which the cluster can't go on.
type Lockout struct {
	Role  Role   `json:"role"`
	Image string `json:"image"`
	verdict.Outcome
}

// Fix is one change that helps all images of a group. A Fix for accepted images is for older runtimes.
type Fix struct {
	// ID is the field fix of the group's images.
	ID     string         `json:"id"`
	Answer verdict.Answer `json:"verdict"`
	Reason verdict.Reason `json:"reason"`
	// Title is a sentence: "14 images need a lookaside for quay.io/foo".
	Title  string `json:"title"`
	Hint   string `json:"hint,omitempty"`
	Images int    `json:"images"`
	Uses   int    `json:"uses"`
	// Lockout is true if one of the images has a role.
	Lockout bool `json:"lockout,omitempty"`
}

// Reason counts verdicts; an accept has an empty reason, unless a release vouches.
type Reason struct {
	Answer verdict.Answer `json:"verdict"`
	Reason verdict.Reason `json:"reason"`
	Images int            `json:"images"`
}

// signedFor reports whether an accepted image has a signature, or its release has one.
func (m *Image) signedFor() bool {
	return m.SignedFor() || m.Answer == verdict.Accept && m.Reason == verdict.TrustedByRelease
}

// Registry counts the verdicts of a host's images.
type Registry struct {
	Registry string `json:"registry"`
	Counts
}

// Image is a verdict and the image's users.
type Image struct {
	verdict.Verdict
	UsedBy []string `json:"usedBy"`
	Role   Role     `json:"role,omitempty"`
	// Fix is the ID of a Fix of the summary.
	Fix string `json:"fix,omitempty"`
	// ByTag is true for a name whose image may change.
	ByTag bool `json:"byTag,omitempty"`
	// InUse are digests that runtimes have for the tag, and that it no longer has: a pull takes another image.
	InUse []string `json:"inUse,omitempty"`
	// Canary is true for the digest of a refuse-canary, which the policy refuses on purpose.
	Canary bool `json:"canary,omitempty"`
	// VouchedBy is the verified release that names the image's digest. It plays no part in the policy.
	VouchedBy string `json:"vouchedBy,omitempty"`
	// Cached is true for the answer of an earlier audit.
	Cached bool `json:"cached,omitempty"`
	// Interrupted is true if the audit ended before the image was judged.
	Interrupted bool `json:"interrupted,omitempty"`

	name string
}

func (r *Report) finish() {
	s := &r.Summary
	s.Images = len(r.Images)
	// JSON has [] instead of null.
	s.Lockout, s.Fixes, s.Reasons, s.Registries = []Lockout{}, []Fix{}, []Reason{}, []Registry{}
	slices.SortStableFunc(r.Images, worstFirst)
	fixes := map[string]*Fix{}
	reasons, registries := map[Reason]int{}, map[string]*Registry{}
	for i := range r.Images {
		m := &r.Images[i]
		s.Uses += len(m.UsedBy)
		if m.ByTag = ref.Digest(m.name) == ""; m.ByTag {
			s.ByTag++
		}
		if m.Cached {
			s.Cached++
		}
		reg := registries[ref.Host(m.name)]
		if reg == nil {
			reg = &Registry{Registry: ref.Host(m.name)}
			registries[reg.Registry] = reg
		}
		s.Counts.Add(m.Answer, 1)
		reg.Counts.Add(m.Answer, 1)
		if m.signedFor() {
			s.Signed++
		} else if m.Answer == verdict.Accept {
			s.Unsigned++
		}
		reasons[Reason{Answer: m.Answer, Reason: m.Reason}]++
		accepted := m.Answer == verdict.Accept
		if accepted && m.Hint == "" {
			continue
		}
		if m.Role != "" && !accepted {
			s.Lockout = append(s.Lockout, Lockout{
				Role: m.Role, Image: m.Image, Outcome: verdict.Outcome{Answer: m.Answer, Reason: m.Reason, Message: m.Message},
			})
		}
		fix := fixOf(m)
		m.Fix = fix.ID
		if have := fixes[fix.ID]; have != nil {
			fix = *have
		}
		fix.Images++
		fix.Uses += len(m.UsedBy)
		fix.Lockout = fix.Lockout || m.Role != "" && !accepted
		fixes[fix.ID] = &fix
	}
	for _, f := range fixes {
		f.Title = title(f.Images, f.Title)
		s.Fixes = append(s.Fixes, *f)
	}
	slices.SortFunc(s.Fixes, worstFix)
	for q, n := range reasons {
		q.Images = n
		s.Reasons = append(s.Reasons, q)
	}
	slices.SortFunc(s.Reasons, func(a, b Reason) int {
		return cmp.Or(b.Answer.Compare(a.Answer), b.Images-a.Images, cmp.Compare(a.Reason, b.Reason))
	})
	for _, reg := range registries {
		s.Registries = append(s.Registries, *reg)
	}
	slices.SortFunc(s.Registries, func(a, b Registry) int {
		return cmp.Or(b.Refuse-a.Refuse, b.Unknown-a.Unknown, b.Accept-a.Accept, strings.Compare(a.Registry, b.Registry))
	})
}

// Answer returns refuse if any image would be refused, else unknown if one is or some may be missing, else accept.
func (r *Report) Answer() verdict.Answer {
	switch {
	case r.Summary.Refuse > 0:
		return verdict.Refuse
	case r.Summary.Unknown > 0, !r.Summary.Complete:
		return verdict.Unknown
	}
	return verdict.Accept
}

// ParseReport reads the JSON of an audit.
func ParseReport(b []byte) (*Report, error) {
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("is no JSON of nodetrust audit -o json: %w", err)
	}
	// Whatever else is JSON has neither.
	if r.Summary.CheckedAt.IsZero() || r.Images == nil {
		return nil, errors.New("is no JSON of nodetrust audit -o json")
	}
	return &r, nil
}

// Warnings returns what would lock out a cluster that gets what the trust config renders to, and why the audit, which
// file holds, may say nothing of it. The digests are those of the file sets that config renders to.
func (r *Report) Warnings(file, config string, digests ...string) (out []string) {
	s := r.Summary
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch {
	case s.Desired == "":
		warn("%s is an audit by policy %s, not by a trust config: it may say nothing of %s", file, outside.Text(s.Policy), config)
	case !slices.Contains(digests, s.Desired):
		warn("%s is an audit of another state (desired %s) than %s has now: audit again", file, outside.Text(s.Desired), config)
	}
	if !s.Complete {
		warn("%s is not complete: images that it doesn't name may be in use", file)
	}
	for _, l := range s.Lockout {
		about := fmt.Sprintf("LOCKOUT: %s image %s", l.Role, outside.Text(l.Image))
		switch why := fmt.Sprintf("%s: %s", l.Reason, outside.Text(l.Message)); l.Answer {
		case verdict.Refuse:
			warn("%s would be refused: %s", about, why)
		case verdict.Unknown:
			warn("could be a %s could not be judged: %s", about, why)
		}
	}
	if s.Refuse > 0 || s.Unknown > 0 {
		images := "images"
		if s.Images == 1 {
			images = "image"
		}
		warn("of %d %s in use on %s, %d would be refused and %d could not be judged", s.Images, images,
			s.CheckedAt.Format(time.RFC3339), s.Refuse, s.Unknown)
	}
	return out
}

func worstFirst(a, b Image) int {
	critical := func(m Image) bool { return m.Role != "" && m.Answer != verdict.Accept }
	return cmp.Or(b.Answer.Compare(a.Answer), trueFirst(critical(a), critical(b)),
		cmp.Compare(a.Role.rank(), b.Role.rank()), strings.Compare(a.name, b.name))
}

func worstFix(a, b Fix) int {
	return cmp.Or(b.Answer.Compare(a.Answer), trueFirst(a.Lockout, b.Lockout), b.Images-a.Images, b.Uses-a.Uses,
		strings.Compare(a.ID, b.ID))
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}
