package verify

import (
	"context"
	"fmt"
	"strings"

	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// Story is a verdict with all that led to it.
type Story struct {
	verdict.Verdict
	// Platform is os/arch[/variant].
	Platform string  `json:"platform"`
	Files    Sources `json:"files"`
	// Hides are the sections of the policy that would apply if the one that does were not there, the next one first.
	Hides []verdict.Scope `json:"hides,omitempty"`
	// Places are where registries.conf has the image read, in order; only if that isn't just where its name says.
	Places []string `json:"places,omitempty"`
	// From is the place that served the manifest, if it is another than the image's name says.
	From string `json:"from,omitempty"`
	// Local is true if image and signatures were read on this machine, so that neither registry nor lookaside count.
	Local bool `json:"local,omitempty"`
	// Extension is true if the registry serves signatures itself (X-Registry-Supports-Signatures), so that no lookaside
	// is asked.
	Extension bool `json:"extension,omitempty"`
	// Attachments is true if sigstore signatures in the registry are read.
	Attachments bool `json:"attachments"`
	// Details say more of the requirement of the same index.
	Details []Detail `json:"details,omitempty"`
	Asked   []Asked  `json:"asked,omitempty"`
}

// Sources are the configuration files that count, as the host sees them.
type Sources struct {
	Policy         string   `json:"policy"`
	RegistriesD    []string `json:"registriesD,omitempty"`
	RegistriesConf string   `json:"registriesConf,omitempty"`
	// Masked are files that nothing reads because of others.
	Masked []Masked `json:"masked,omitempty"`
	// Notes say where runtimes of another version would read other files.
	Notes []string `json:"notes,omitempty"`
}

// Detail is what a requirement asks for.
type Detail struct {
	// Identity is the rule with its parameters.
	Identity string `json:"identity,omitempty"`
	// Keys are the keys or certificates, in words.
	Keys []string `json:"keys,omitempty"`
	// Problem is why the requirement can't be evaluated.
	Problem string `json:"problem,omitempty"`
}

// Explain judges an image for itself, and tells the story.
func (j *Judge) Explain(ctx context.Context, image Image) (Story, error) {
	e, err := j.evaluation(image)
	if err != nil {
		return Story{}, err
	}
	p := j.policy
	v := j.judge(ctx, e)
	s := Story{
		Verdict: v,
		Platform: strings.TrimSuffix(fmt.Sprintf("%s/%s/%s", e.sys.OSChoice, e.sys.ArchitectureChoice,
			e.sys.VariantChoice), "/"),
		Files: Sources{p.File, p.RegistriesD, p.RegistriesConf, p.Masked, p.Notes},
		Asked: e.asked,
	}
	s.Local, s.Extension = e.target.local(), e.extension
	_, _, s.Hides = p.lookup(e.target.logical)
	if !e.target.local() {
		places := e.pullSources()
		for _, place := range places {
			s.Places = append(s.Places, place.DockerReference().String())
		}
		if len(places) == 1 && sameName(places[0], e.target.logical) {
			s.Places = nil
		}
		physical := e.target.content
		if e.physical != nil && !sameName(e.physical, e.target.logical) {
			s.From, physical = e.physical.DockerReference().Name(), e.physical
		}
		_, _, s.Attachments = p.registries.Lookup(library.Scopes(physical))
	}
	for _, r := range e.sec.requirements {
		s.Details = append(s.Details, r.detail())
	}
	return e.tell(s), nil
}

func sameName(a, b types.ImageReference) bool {
	return a.DockerReference().Name() == b.DockerReference().Name()
}

// detail puts a requirement into words.
func (r *requirement) detail() Detail {
	d := Detail{Problem: r.message, Identity: r.Identity().String()}
	for _, name := range r.keyNames() {
		if kind := r.keys.Kinds[name]; kind != "" {
			name += "  " + kind + ", in " + r.keySource()
		}
		d.Keys = append(d.Keys, name)
	}
	if r.Type == policy.SigstoreSigned {
		d.Keys = append(d.Keys, r.sigstoreKeys()...)
	}
	return d
}

// sigstoreKeys names what a sigstore signature is verified with, where it is no key file.
func (r *requirement) sigstoreKeys() (out []string) {
	if n := len(r.KeyDatas); n > 0 {
		out = append(out, fmt.Sprintf("%d inline keys", n))
	} else if len(r.KeyData) > 0 {
		out = append(out, "inline key")
	}
	if f := r.Fulcio; f != nil {
		out = append(out, fmt.Sprintf("certificate of Fulcio for %s, known to %s", f.SubjectEmail, f.OIDCIssuer))
	}
	if p := r.PKI; p != nil {
		out = append(out, "certificate for "+strings.Trim(p.SubjectEmail+" "+p.SubjectHostname, " "))
	}
	if r.Rekor().Given() {
		out = append(out, "logged in Rekor")
	}
	return out
}
