package verdict

import (
	"reflect"
	"testing"
)

func TestVerdict_RequireSigned(t *testing.T) {
	scope := &Scope{Transport: "docker", Name: "registry.example/team", Matched: "namespace"}
	good, bad := Signature{Answer: Accept}, Signature{Answer: Refuse, Reason: WrongKey}
	anything := Requirement{Type: "insecureAcceptAnything", Answer: Accept}
	signed := Requirement{Type: "signedBy", Answer: Accept, Signatures: []Signature{bad, good}}
	for _, tc := range []struct {
		name         string
		answer       Answer
		scope        *Scope
		requirements []Requirement
		want         string // the message of a refusal; "" for the verdict as it is
	}{
		{"signed", Accept, scope, []Requirement{signed}, ""},
		{
			"sigstore", Accept, scope,
			[]Requirement{{Type: "sigstoreSigned", Answer: Accept, Signatures: []Signature{good}}},
			"",
		},
		{"signed, and anything", Accept, scope, []Requirement{anything, signed}, ""},
		{
			"anything", Accept, scope,
			[]Requirement{anything},
			"scope registry.example/team of transport docker accepts without a signature",
		},
		{
			"anything, with signatures", Accept, scope,
			[]Requirement{{Type: "insecureAcceptAnything", Answer: Accept, Signatures: []Signature{good}}},
			"scope registry.example/team of transport docker accepts without a signature",
		},
		{
			"a base layer", Accept, scope,
			[]Requirement{{Type: "signedBaseLayer", Answer: Accept}},
			"scope registry.example/team of transport docker accepts without a signature",
		},
		{"no requirement", Accept, nil, nil, "the policy accepts without a signature"},
		{
			"default", Accept, &Scope{Matched: "default"},
			[]Requirement{anything},
			"the policy's default accepts without a signature",
		},
		{
			"default of a transport", Accept, &Scope{Transport: "dir", Matched: "transport-default"},
			[]Requirement{anything},
			"the default of transport dir accepts without a signature",
		},
		{"refused", Refuse, scope, []Requirement{anything}, ""},
		{"unknown", Unknown, scope, []Requirement{anything}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := Verdict{
				Image: "x", Outcome: Outcome{Answer: tc.answer, Message: "as it was"}, Scope: tc.scope,
				Requirements: tc.requirements,
			}
			want := v
			if tc.want != "" {
				want.Answer, want.Reason, want.Message, want.Hint = Refuse, NotSignedFor, tc.want,
					"sign the image, and demand the signature in policy.json"
			}
			if got := v.RequireSigned(); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if v.SignedFor() != (tc.answer == Accept && tc.want == "") {
				t.Errorf("signed for: %v", v.SignedFor())
			}
		})
	}
}
