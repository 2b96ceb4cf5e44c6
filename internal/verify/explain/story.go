// Package explain puts verdicts into words: message, hint and cause of each, and the story of what led to it. It
// decides nothing, and reads nothing but what a caller's functions get for it.
package explain

import (
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/configuration"
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
	Details []Detail  `json:"details,omitempty"`
	Asked   []Request `json:"asked,omitempty"`
}

// Sources are the configuration files that count, as the host sees them.
type Sources struct {
	Policy         string   `json:"policy"`
	RegistriesD    []string `json:"registriesD,omitempty"`
	RegistriesConf string   `json:"registriesConf,omitempty"`
	// Masked are files that nothing reads because of others.
	Masked []configuration.Masked `json:"masked,omitempty"`
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

// Redacted returns the story without the secrets, in texts that are bounded and printable. The verdict in it stays as
// it is.
func (s Story) Redacted(secrets outside.Secrets) Story {
	v := s.Verdict
	s.Verdict = verdict.Verdict{}
	s = outside.Without(secrets, s)
	s.Verdict = v
	for i := range s.Asked {
		s.Asked[i].Answer = outside.Cut(s.Asked[i].Answer, outside.Most)
	}
	return s
}

// Redacted returns a verdict as it leaves verify: what registries, lookasides and signatures say in it is printable and
// bounded, and tells none of the secrets.
func Redacted(v verdict.Verdict, secrets outside.Secrets) verdict.Verdict {
	v = outside.Without(secrets, v)
	v.Message, v.Hint = outside.Cut(v.Message, outside.Most), outside.Cut(v.Hint, outside.Most)
	for i, r := range v.Requirements {
		for j, s := range r.Signatures {
			if text := outside.Cut(s.Message, outside.Most); text != s.Message {
				v.Requirements[i].Signatures[j].Message = text
			}
		}
	}
	return v
}
