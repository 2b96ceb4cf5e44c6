package openpgp

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/signature"
)

// said is a mechanism for which everything is well signed.
type said struct{ signature.SigningMechanism }

const sayer = "0123456789ABCDEF0123456789ABCDEF01234567"

func (said) Verify(content []byte) ([]byte, string, error) { return content, sayer, nil }

// someManifest is the image that payloads of tests are for.
var someManifest = []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`)

// libraryTakes is true if the image library accepts the payload for someManifest, under whatever name it has.
func libraryTakes(payload []byte) bool {
	name := PayloadClaims(payload).Reference
	if _, err := reference.ParseNormalizedNamed(name); err != nil {
		name = "example.com/none:none"
	}
	_, _, err := signature.VerifyImageManifestSignatureUsingKeyIdentityList(payload, someManifest, name, said{},
		[]string{sayer})
	return err == nil
}

// like fails unless ReadPayload takes what the library takes, and returns whether both do.
func like(t *testing.T, payload string) bool {
	t.Helper()
	p, err := ReadPayload([]byte(payload))
	_, badName := reference.ParseNormalizedNamed(p.Reference)
	ours := err == nil && badName == nil && p.Digest == digest.FromBytes(someManifest)
	if library := libraryTakes([]byte(payload)); ours != library {
		t.Errorf("%q: %t (%+v, %v), the library says %t", payload, ours, p, err, library)
	}
	return ours
}

// fill replaces @D by the digest of someManifest and @R by a reference.
func fill(format string) string {
	return strings.NewReplacer("@D", digest.FromBytes(someManifest).String(), "@R", "quay.io/corp/app:v1").Replace(format)
}

const (
	critical = `"critical":{"identity":{"docker-reference":"@R"},"image":{"docker-manifest-digest":"@D"},"type":"atomic container signature"}`
	whole    = `{` + critical + `,"optional":{}}`
)

// payloads are texts that must be taken (true), or not.
var payloads = []struct {
	text string
	good bool
}{
	{whole, true},
	{`{"optional":{},` + critical + `}`, true},
	{whole + "\n\n ", true},
	{strings.Replace(whole, "critical", `\u0063ritical`, 1), true},
	{`{` + critical + `,"optional":{"creator":"c","timestamp":1700000000}}`, true},
	{`{` + critical + `,"optional":{"creator":null}}`, true},
	{`{` + critical + `,"optional":{"timestamp":null}}`, true},
	{`{` + critical + `,"optional":{"timestamp":1e3}}`, true},
	{`{` + critical + `,"optional":{"other":[1,{"a":1,"a":2}]}}`, true},
	{`{` + critical + `,"optional":{"Creator":1}}`, true},
	{`{` + critical + `,"optional":{"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}}`, true},
	{`{` + critical + `,"optional":{"creator":"` + "\xff" + `"}}`, true},

	{"", false},
	{"null", false},
	{"[]", false},
	{"{}", false},
	{`{` + critical + `}`, false},
	{`{` + critical + `,"optional":null}`, false},
	{`{` + critical + `,"optional":[]}`, false},
	{`{` + critical + `,"optional":1}`, false},
	{`{` + critical + `,` + critical + `,"optional":{}}`, false},
	{`{` + critical + `,"optional":{},"optional":{}}`, false},
	{`{` + critical + `,"optional":{},"x":1}`, false},
	{`{` + critical + `,"optional":{},}`, false},
	{`{"critical":null,"optional":{}}`, false},
	{whole + " x", false},
	{whole + "{}", false},
	{"\ufeff" + whole, false},
	{strings.Replace(whole, "critical", "Critical", 1), false},
	{strings.Replace(whole, "optional", "OPTIONAL", 1), false},
	{strings.Replace(whole, "docker-reference", "Docker-Reference", 1), false},
	{strings.Replace(whole, "docker-reference", "doc\u212aer-reference", 1), false},
	{strings.Replace(whole, "docker-manifest-digest", "doc\u212aer-manifest-digest", 1), false},
	{strings.Replace(whole, `"type"`, `"ty\u017fpe":1,"type"`, 1), false},
	{strings.Replace(whole, `"type"`, `"x":1,"type"`, 1), false},
	{strings.Replace(whole, `"docker-manifest-digest"`, `"x":1,"docker-manifest-digest"`, 1), false},
	{strings.Replace(whole, `"docker-manifest-digest"`, `"docker-manifest-digest":"sha256:00","docker-manifest-digest"`,
		1), false},
	{strings.Replace(whole, `"@D"`, "null", 1), false},
	{strings.Replace(whole, `"@R"`, "null", 1), false},
	{strings.Replace(whole, `"@R"`, `""`, 1), false},
	{strings.Replace(whole, `"@R"`, `"A/B"`, 1), false},
	{strings.Replace(whole, "atomic container", "cosign container image", 1), false},
	{strings.Replace(whole, `"atomic container signature"`, "null", 1), false},
	{strings.Replace(fill(whole), "sha256", "SHA256", 1), false},
	{`{` + critical + `,"optional":{"creator":1}}`, false},
	{`{` + critical + `,"optional":{"creator":"a","creator":"b"}}`, false},
	{`{` + critical + `,"optional":{"timestamp":"1"}}`, false},
	{`{` + critical + `,"optional":{"timestamp":1.5}}`, false},
	{`{` + critical + `,"optional":{"timestamp":1e30}}`, false},
	{`{` + critical + `,"optional":{"timestamp":1e400}}`, false},
	{`{` + critical + `,"optional":{"x":1e400}}`, false},
	{`{` + critical + `,"optional":{"a":1,"b":2,"a":3}}`, false},
	{`{` + critical + `,"optional":{"` + "\xff" + `":1,"` + "\xfe" + `":2}}`, false},
	{`{` + critical + `,"optional":{"x":` + strings.Repeat("[", 10001) + strings.Repeat("]", 10001) + `}}`, false},
}

func TestReadPayload(t *testing.T) {
	for i, tt := range payloads {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if text := fill(tt.text); like(t, text) != tt.good {
				t.Errorf("%q: not %t", text, tt.good)
			}
		})
	}
	p, err := ReadPayload([]byte(fill(`{` + critical +
		`,"optional":{"Creator":"no","creator":"c","timestamp":1700000000}}`)))
	if err != nil || p.Creator != "c" || p.Timestamp == nil || *p.Timestamp != 1700000000 ||
		p.Reference != "quay.io/corp/app:v1" {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestReadPayload_likeTheLibrary compares both over payloads with one to three faults, or none.
func TestReadPayload_likeTheLibrary(t *testing.T) {
	random := rand.New(rand.NewPCG(10, 29)) //nolint:gosec // the same payloads each time
	var taken, refused int
	for range 3000 {
		if like(t, somePayload(random)) {
			taken++
		} else {
			refused++
		}
	}
	if taken < 300 || refused < 300 {
		t.Errorf("%d payloads are taken and %d refused: one side is hardly tried", taken, refused)
	}
}

// somePayload writes a payload member by member, most of them right.
func somePayload(random *rand.Rand) string {
	pick := func(right string, wrong ...string) string {
		if random.IntN(14) > 0 {
			return right
		}
		return wrong[random.IntN(len(wrong))]
	}
	value := func(right string) string {
		return pick(right, "null", `""`, "1", "1.5", "1e400", "true", "[]", "{}", `"x"`, strings.ToUpper(right), right+" ",
			"["+right+"]", `{"a":1,"a":1}`)
	}
	name := func(s string) string {
		return pick(s, strings.ToUpper(s[:1])+s[1:], strings.ReplaceAll(s, "k", "\u212a"),
			strings.ReplaceAll(s, "s", "\u017f"),
			s+" ", strings.Replace(s, "e", `\u0065`, 1), "x", s[1:])
	}
	object := func(members ...string) string {
		switch random.IntN(30) {
		case 0:
			members = append(members, members[random.IntN(len(members))])
		case 1:
			members = members[1:]
		case 2:
			members = append(members, `"x":1`)
		}
		random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		return pick("{", " {", "[", "") + strings.Join(members, pick(",", " ,\n", ",,", "")) + pick("}", "} ", "]", "", ",}")
	}
	member := func(n, v string) string { return `"` + name(n) + `":` + v }
	var optional []string
	for _, m := range []string{
		member("creator", value(`"c"`)), member("timestamp", value("1700000000")), member("other", value(`{"b":[null]}`)),
		member("Creator", value("2")),
	} {
		if random.IntN(2) == 0 {
			optional = append(optional, m)
		}
	}
	optional = append(optional, member("last", "0"))
	text := object(
		member("critical", object(
			member("type", value(`"atomic container signature"`)),
			member("image", object(member("docker-manifest-digest", value(`"@D"`)))),
			member("identity", object(member("docker-reference", value(`"@R"`)))),
		)),
		member("optional", object(optional...)),
	)
	return fill(pick("", "\ufeff", "x") + text + pick("", "\n", "{}", "x", "\x00"))
}

func FuzzReadPayload(f *testing.F) {
	for _, p := range payloads {
		f.Add(fill(p.text))
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same payloads each time
	for range 300 {
		f.Add(somePayload(random))
	}
	f.Fuzz(func(t *testing.T, payload string) { like(t, payload) })
}
