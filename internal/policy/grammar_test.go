package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"go.podman.io/image/v5/signature"
)

// TestRead_library draws requirements of all members that there are. What the image library loads, Read reads, and
// written again it is to the library what it was.
func TestRead_library(t *testing.T) {
	values := func(field string) []string {
		switch {
		case field == FieldType:
			return nil
		case field == FieldKeyType:
			return []string{`"GPGKeys"`, `"X509Certificates"`}
		case field == FieldFulcio:
			return []string{
				`{"caPath":"/a","oidcIssuer":"i","subjectEmail":"e"}`, `{"caData":"","oidcIssuer":"i","subjectEmail":"e"}`,
			}
		case field == FieldPKI:
			return []string{
				`{"caRootsPath":"/r","subjectEmail":"e"}`,
				`{"caRootsData":"eA==","caIntermediatesPath":"/i","subjectHostname":"h"}`,
				`{"caRootsData":"","caIntermediatesData":"","subjectHostname":"h","subjectEmail":""}`,
			}
		case field == FieldSignedIdentity || field == FieldBaseLayerIdentity:
			return []string{
				`{"type":"matchExact"}`, `{"type":"exactReference","dockerReference":"a.b/c:d"}`,
				`{"type":"exactRepository","dockerRepository":"a.b/c"}`,
				`{"type":"remapIdentity","prefix":"a.b","signedPrefix":"c.d"}`,
			}
		case IsPath(field) && strings.HasSuffix(field, "s"):
			return []string{`["/a","/b"]`, `[]`, `[""]`, `null`}
		case IsPath(field):
			return []string{`"/a"`, `""`}
		case strings.HasSuffix(field, "s"):
			return []string{`["eA==",""]`, `[]`, `null`}
		}
		return []string{`"eA=="`, `""`, `null`}
	}
	r := rand.New(rand.NewPCG(7, 8))
	loaded := map[string]int{}
	for range 60_000 {
		typ := RequirementTypes()[r.IntN(len(RequirementTypes()))]
		members := []string{fmt.Sprintf(`"type":%q`, typ)}
		fields := RequirementFields(typ)
		for _, field := range fields[1:] {
			list := values(field)
			if field == FieldKeyType || r.IntN(len(fields)) < 2 {
				members = append(members, fmt.Sprintf("%q:%s", field, list[r.IntN(len(list))]))
			}
		}
		text := []byte(`{"default":[{` + strings.Join(members, ",") + `}]}`)
		want, err := signature.NewPolicyFromBytes(text)
		if err != nil {
			continue
		}
		loaded[typ]++
		d, err := Read(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := signature.NewPolicyFromBytes(again)
		if err != nil {
			t.Fatalf("%s, written as %s: %v", text, again, err)
		}
		if !reflect.DeepEqual(got.Default, want.Default) {
			t.Fatalf("%s, written as %s, is another policy", text, again)
		}
	}
	for _, typ := range RequirementTypes() {
		if loaded[typ] < 100 {
			t.Errorf("%d requirements of type %s were loaded: that compares nothing", loaded[typ], typ)
		}
	}
}

// TestRead_unknown: a member that the grammar lacks may demand something.
func TestRead_unknown(t *testing.T) {
	for _, s := range []string{
		`{"default":[{"type":"reject"}],"more":1}`, `{"default":[{"type":"signedBy","keyFile":"/a"}]}`,
		`{"default":[{"type":"other"}]}`, `{"default":[{"type":"reject"}]}{}`, `{}`, `{"default":[]}`, ``,
		`{"default":[{"type":"reject","signedIdentity":{"type":"matchExact","tag":"v1"}}]}`,
	} {
		if _, err := Read([]byte(s)); err == nil {
			t.Errorf("read %s", s)
		}
	}
}
