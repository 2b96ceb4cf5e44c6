package verify

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// told is a verdict as it leaves the package. What registries, lookasides and signatures say in it is printable and
// bounded, and tells none of the logins that were used.
func (e *evaluation) told(v verdict.Verdict) verdict.Verdict {
	v = outside.Without(e.secrets, v)
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

// tell does the same for the rest of a story.
func (e *evaluation) tell(s Story) Story {
	v := s.Verdict
	s.Verdict = verdict.Verdict{}
	s = outside.Without(e.secrets, s)
	s.Verdict = v
	for i, a := range s.Asked {
		if text := outside.Cut(a.Answer, outside.Most); text != a.Answer {
			s.Asked[i].Answer = text
		}
	}
	return s
}

// logins are the secrets of a file with logins for registries.
func logins(authFile []byte) (out []string) {
	var doc struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
			RegistryToken string `json:"registrytoken"`
		} `json:"auths"`
	}
	if json.Unmarshal(authFile, &doc) != nil {
		return nil
	}
	for _, a := range doc.Auths {
		out = append(out, a.Auth, a.Password, a.IdentityToken, a.RegistryToken)
		if login, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			_, password, _ := strings.Cut(string(login), ":")
			out = append(out, password)
		}
	}
	return out
}

// discreet is err with a text that is as told has it.
func (e *evaluation) discreet(err error) error {
	return &discreetError{e.secrets.Text(err.Error()), err}
}

type discreetError struct {
	text string
	err  error
}

func (e *discreetError) Error() string { return e.text }
func (e *discreetError) Unwrap() error { return e.err }
