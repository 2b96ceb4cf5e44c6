package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Report is the answer of an audit, as it appears in JSON.
type Report struct {
	Summary Summary `json:"summary"`
	// Images are sorted: what locks out first, then refused, unknown, accepted, each by name.
	Images []Image `json:"images"`
}

// Summary is what to read first.
type Summary struct {
	// Images are different references, Uses those who use them.
	Images  int `json:"images"`
	Uses    int `json:"uses"`
	Accept  int `json:"accept"`
	Refuse  int `json:"refuse"`
	Unknown int `json:"unknown"`
	// Signed are those of Accept that a signature stands behind, the image's own or that of a release which names it.
	// Unsigned are the others: the policy asks for none.
	Signed   int `json:"signed"`
	Unsigned int `json:"unsigned"`
	// RequireSigned is true if such others count as refused.
	RequireSigned bool `json:"requireSigned,omitempty"`
	// ByTag are images that are named by tag, and Images less these by digest.
	ByTag int `json:"byTag"`
	// Complete is false when a source could not be read to its end, or the audit was interrupted: then not even the number
	// of images says what it seems to. Problems are why.
	Complete bool     `json:"complete"`
	Problems []string `json:"problems,omitempty"`
	// Policy is the file that was judged by. Desired is the digest of the file set that a trust config renders to; empty
	// when the policy is not one of a trust config.
	Policy    string    `json:"policy"`
	Desired   string    `json:"desired,omitempty"`
	Mechanism string    `json:"mechanism,omitempty"`
	CheckedAt time.Time `json:"checkedAt"`
	// Cached is how many of the answers are those of an earlier audit.
	Cached int `json:"cached"`
	// Releases are those that were asked whether they vouch for images.
	Releases []ReleaseVerdict `json:"releases,omitempty"`
	// Lockout are the images without which the cluster, or nodetrust on it, can't go on, and which would not be accepted.
	Lockout []Lockout `json:"lockout"`
	// Fixes say what to do, the worst first.
	Fixes      []Fix      `json:"fixes"`
	Reasons    []Reason   `json:"reasons"`
	Registries []Registry `json:"registries"`
}

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

// Fix is one thing to do that helps all images of a group. That of accepted images is for the sake of older runtimes.
type Fix struct {
	// ID is what the images of the group have in their field fix.
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

// Reason counts verdicts; an accept has the empty reason, unless a release vouches.
type Reason struct {
	Answer verdict.Answer `json:"verdict"`
	Reason verdict.Reason `json:"reason"`
	Images int            `json:"images"`
}

// signedFor is true if a signature stands behind the accept of an image: its own, or that of the release which
// vouches for it.
func (m *Image) signedFor() bool {
	return m.SignedFor() || m.Answer == verdict.Accept && m.Reason == verdict.TrustedByRelease
}

// Registry counts verdicts of the images of a host.
type Registry struct {
	Registry string `json:"registry"`
	Accept   int    `json:"accept"`
	Refuse   int    `json:"refuse"`
	Unknown  int    `json:"unknown"`
}

// Image is a verdict, and who would notice it.
type Image struct {
	verdict.Verdict
	UsedBy []string `json:"usedBy"`
	Role   Role     `json:"role,omitempty"`
	// Fix is the ID of the group of the summary.
	Fix string `json:"fix,omitempty"`
	// ByTag is true for a name that may be another image tomorrow.
	ByTag bool `json:"byTag,omitempty"`
	// InUse are digests that runtimes have for a tag, and that it doesn't point to now: a pull takes another image.
	InUse []string `json:"inUse,omitempty"`
	// Canary is true for the digest of a refuse-canary: it is refused because the policy carves it out.
	Canary bool `json:"canary,omitempty"`
	// VouchedBy is the verified release that names the image's digest. The policy knows nothing of that.
	VouchedBy string `json:"vouchedBy,omitempty"`
	// Cached is true for the answer of an earlier audit.
	Cached bool `json:"cached,omitempty"`
	// Interrupted is true if the audit ended before.
	Interrupted bool `json:"interrupted,omitempty"`

	name string
}

// add counts an image; finish does the rest.
func (r *Report) finish() {
	s := &r.Summary
	s.Images = len(r.Images)
	slices.SortStableFunc(r.Images, worstFirst)
	fixes := map[string]*group{}
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
		switch m.Answer {
		case verdict.Accept:
			s.Accept++
			if m.signedFor() {
				s.Signed++
			} else {
				s.Unsigned++
			}
			reg.Accept++
		case verdict.Refuse:
			s.Refuse++
			reg.Refuse++
		default:
			s.Unknown++
			reg.Unknown++
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
		g := groupOf(m)
		m.Fix = g.id
		if have := fixes[g.id]; have != nil {
			g = *have
		}
		g.images++
		g.uses += len(m.UsedBy)
		g.lockout = g.lockout || m.Role != "" && !accepted
		fixes[g.id] = &g
	}
	for _, g := range fixes {
		s.Fixes = append(s.Fixes, g.fix())
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
	// Empty lists are lists in JSON.
	s.Lockout, s.Fixes = append([]Lockout{}, s.Lockout...), append([]Fix{}, s.Fixes...)
	s.Reasons, s.Registries = append([]Reason{}, s.Reasons...), append([]Registry{}, s.Registries...)
	r.Images = append([]Image{}, r.Images...)
}

// Answer is that of the whole: refuse if anything would be refused, else unknown if anything is, or if the listing is
// not complete.
func (r *Report) Answer() verdict.Answer {
	switch {
	case r.Summary.Refuse > 0:
		return verdict.Refuse
	case r.Summary.Unknown > 0, !r.Summary.Complete:
		return verdict.Unknown
	}
	return verdict.Accept
}

func worstFirst(a, b Image) int {
	critical := func(m Image) int {
		if m.Role != "" && m.Answer != verdict.Accept {
			return 0
		}
		return 1
	}
	return cmp.Or(
		b.Answer.Compare(a.Answer),
		cmp.Compare(critical(a), critical(b)),
		cmp.Compare(a.Role.rank(), b.Role.rank()),
		strings.Compare(a.name, b.name),
	)
}

func worstFix(a, b Fix) int {
	critical := func(f Fix) int {
		if f.Lockout {
			return 0
		}
		return 1
	}
	return cmp.Or(
		b.Answer.Compare(a.Answer),
		cmp.Compare(critical(a), critical(b)),
		b.Images-a.Images, b.Uses-a.Uses, strings.Compare(a.ID, b.ID),
	)
}

// group is a Fix while it is counted.
type group struct {
	id           string
	verdict      verdict.Answer
	reason       verdict.Reason
	one, many    string // "needs …", "need …"
	hint         string
	images, uses int
	lockout      bool
}

func (g group) fix() Fix {
	title := "1 image " + g.one
	if g.images != 1 {
		title = fmt.Sprintf("%d images %s", g.images, g.many)
	}
	return Fix{
		ID: g.id, Answer: g.verdict, Reason: g.reason, Title: title, Hint: g.hint, Images: g.images, Uses: g.uses,
		Lockout: g.lockout,
	}
}
