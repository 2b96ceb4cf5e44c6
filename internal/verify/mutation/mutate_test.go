package mutation

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// mutation changes a mutant, in place.
type mutation struct {
	name string
	do   func(r *rand.Rand, m *mutant)
}

// mutate makes the mutant of a seed: an honest scene that one to three mutations have changed.
func (p *pool) mutate(seed uint64, policies int) *mutant {
	r := rand.New(rand.NewPCG(seed, 0x6e6f6465))
	m := p.fresh()
	m.policy = r.IntN(policies)
	m.asked = ":" + pick(r, p.tags)
	if r.IntN(4) == 0 {
		m.byDigest()
	}
	all := slices.DeleteFunc(mutations(), func(one mutation) bool {
		// What lies in the registry as signatures is read under the two policies that ask for it.
		return strings.HasPrefix(one.name, "attached: ") && m.policy < policies-2
	})
	for range 1 + min(r.IntN(3), r.IntN(4)) {
		one := pick(r, all)
		one.do(r, m)
		m.trail = append(m.trail, one.name)
	}
	return m
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// byDigest asks for the digest of what is asked for by tag.
func (m *mutant) byDigest() {
	if top, ok := m.manifests[m.repo+m.asked]; ok && strings.HasPrefix(m.asked, ":") {
		m.asked = "@" + sum(top.body)
	}
}

func mutations() []mutation {
	var out []mutation
	for name, f := range bodies {
		out = append(out, mutation{"body: " + name, func(r *rand.Rand, m *mutant) { m.rewrite(r, f) }})
	}
	for name, f := range forgeries {
		out = append(out, mutation{"forged: " + name, func(r *rand.Rand, m *mutant) { m.forge(r, f) }})
	}
	for name, f := range payloads {
		out = append(out, mutation{"claim: " + name, func(r *rand.Rand, m *mutant) { m.reclaim(r, f) }})
	}
	for name, f := range files {
		out = append(out, mutation{"signature: " + name, func(r *rand.Rand, m *mutant) { m.respell(r, f) }})
	}
	for name, f := range attachments {
		out = append(out, mutation{"attached: " + name, f})
	}
	for name, f := range servers {
		out = append(out, mutation{"served: " + name, f})
	}
	slices.SortFunc(out, func(a, b mutation) int { return strings.Compare(a.name, b.name) })
	return out
}

// chosen is the key of the manifest that is asked for or, of an index, half of the time of its image for linux/amd64.
func (m *mutant) chosen(r *rand.Rand) string {
	top := m.repo + m.asked
	var list struct {
		Manifests []fixture.Blob `json:"manifests"`
	}
	if json.Unmarshal(m.manifests[top].body, &list) == nil && len(list.Manifests) > 0 && r.IntN(2) == 0 {
		if at := m.repo + "@" + list.Manifests[0].Digest; m.manifests[at].body != nil {
			return at
		}
	}
	return top
}

// rewrite changes a manifest. Then its signatures stay where they are, or follow it, or it is signed anew: by one of
// those who sign, as what is asked for. An index is made to name the new digest of its image.
func (m *mutant) rewrite(r *rand.Rand, f func(r *rand.Rand, m *mutant, b []byte) []byte) {
	at := m.chosen(r)
	old := m.manifests[at]
	m.put(r, at, served{f(r, m, bytes.Clone(old.body)), old.kind})
}

func (m *mutant) put(r *rand.Rand, at string, now served) {
	old := m.manifests[at]
	m.manifests[at] = now
	was, is := sum(old.body), sum(now.body)
	settle := r.IntN(8)
	if settle == 0 {
		return
	}
	m.manifests[m.repo+"@"+is] = now
	if top := m.repo + m.asked; at != top { // an image of an index
		m.manifests[at] = old
		list := m.manifests[top]
		list.body = bytes.ReplaceAll(list.body, []byte(was), []byte(is))
		m.manifests[top] = list
		if strings.HasPrefix(m.asked, "@") && r.IntN(2) == 0 {
			m.asked = "@" + sum(list.body)
			m.manifests[m.repo+m.asked] = list
		}
	} else if strings.HasPrefix(m.asked, "@") && settle > 1 {
		m.asked = "@" + is
	}
	switch {
	case settle < 3:
		m.signatures[m.repo+"@"+is] = m.signatures[m.repo+"@"+was]
		m.manifests[attachedAt(m.repo, is)] = m.manifests[attachedAt(m.repo, was)]
	default:
		m.vouch(r, is)
	}
}

// vouch signs a digest as what is asked for.
func (m *mutant) vouch(r *rand.Rand, digest string) {
	reference := m.reference()
	if strings.HasPrefix(m.asked, "@") {
		reference = host + "/" + m.repo + ":" + pick(r, m.pool.tags)
	}
	var sigs [][]byte
	for _, by := range [][]*signer{{m.pool.corp, m.pool.ops}, {m.pool.corp}, {m.pool.stranger, m.pool.corp}}[r.IntN(3)] {
		sigs = append(sigs, m.sign(by, claim{digest, reference}.payload()))
	}
	m.signatures[m.repo+"@"+digest] = sigs
	m.attach(m.repo, digest, m.cosign(m.pool.cosign, claim{digest, reference}.cosignPayload()))
}

var (
	anyKey    = regexp.MustCompile(`"([A-Za-z]+)":`)
	anyDigest = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
	anyType   = regexp.MustCompile(`application/vnd[.a-z0-9+-]*`)
	anyNumber = regexp.MustCompile(`:[0-9]+`)
)

// one replaces one of the places that the expression finds.
func one(r *rand.Rand, re *regexp.Regexp, b []byte, with func(found string) string) []byte {
	all := re.FindAllIndex(b, -1)
	if len(all) == 0 {
		return b
	}
	at := pick(r, all)
	return slices.Concat(b[:at[0]], []byte(with(string(b[at[0]:at[1]]))), b[at[1]:])
}

// kinds are content types, also such as no manifest has.
var kinds = []string{
	dockerImage, dockerList, ociImage, ociIndex, schema1, schema1JWS, "", "application/json", "text/plain", "text/html",
	"application/octet-stream",
	dockerImage + "; charset=utf-8", ociImage + ";", strings.ToUpper(dockerImage), "garbage;;;",
	"application/vnd.oci.artifact.manifest.v1+json", dockerConf, ociConf,
}

// odd are JSON values that stand where others are expected.
var odd = []string{`null`, `[]`, `{}`, `""`, `0`, `1`, `2`, `"x"`, `true`, `[null]`, `[{}]`, `1e400`, `-1`}

// folded spells a member's name so that encoding/json takes it for the same, or nearly so.
func folded(r *rand.Rand, name string) string {
	switch r.IntN(5) {
	case 0:
		return strings.ToUpper(name)
	case 1:
		return strings.ToUpper(name[:1]) + name[1:]
	case 2:
		return strings.Replace(name, "s", "\u017f", 1) // a long s
	case 3:
		return strings.Replace(name, "k", "\u212a", 1) // the sign of the kelvin
	}
	return fmt.Sprintf(`\u%04x`, name[0]) + name[1:]
}

// spelt are mutations of JSON, whatever it says.
var spelt = map[string]func(r *rand.Rand, b []byte) []byte{
	"bits flipped": func(r *rand.Rand, b []byte) []byte {
		for range 1 + r.IntN(2) {
			if len(b) > 0 {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
		}
		return b
	},
	"byte dropped": func(r *rand.Rand, b []byte) []byte {
		i := r.IntN(len(b) + 1)
		return append(b[:max(i-1, 0):max(i-1, 0)], b[i:]...)
	},
	"byte inserted": func(r *rand.Rand, b []byte) []byte { return slices.Insert(b, r.IntN(len(b)+1), byte(r.IntN(256))) },
	"cut off":       func(r *rand.Rand, b []byte) []byte { return b[:r.IntN(len(b)+1)] },
	"space after": func(r *rand.Rand, b []byte) []byte {
		return append(b, pick(r, []string{" ", "\n", "\x00", "{}", ","})...)
	},
	"space before": func(r *rand.Rand, b []byte) []byte {
		return append([]byte(pick(r, []string{" ", "\n", "\xef\xbb\xbf"})), b...)
	},
	"member twice": func(r *rand.Rand, b []byte) []byte {
		return one(r, anyKey, b, func(k string) string {
			if r.IntN(2) == 0 {
				k = `"` + folded(r, k[1:len(k)-2]) + `":`
			}
			return k + pick(r, odd) + "," + k
		})
	},
	"member twice, the later odd": func(r *rand.Rand, b []byte) []byte {
		names := anyKey.FindAllSubmatch(b, -1)
		if len(names) == 0 {
			return b
		}
		name := string(pick(r, names)[1])
		if r.IntN(2) == 0 {
			name = folded(r, name)
		}
		return one(r, regexp.MustCompile(`[}]`), b, func(string) string { return `,"` + name + `":` + pick(r, odd) + "}" })
	},
	"member's case": func(r *rand.Rand, b []byte) []byte {
		return one(r, anyKey, b, func(k string) string { return `"` + folded(r, k[1:len(k)-2]) + `":` })
	},
	"member renamed": func(r *rand.Rand, b []byte) []byte {
		return one(r, anyKey, b, func(string) string {
			return pick(r, []string{
				`"x":`, `"layers":`, `"manifests":`, `"config":`, `"signatures":`, `"mediaType":`,
				`"fsLayers":`,
			})
		})
	},
	"value replaced": func(r *rand.Rand, b []byte) []byte {
		return one(r, regexp.MustCompile(`:("[^"]*"|[0-9]+|\[[^][]*\])`), b,
			func(string) string { return ":" + pick(r, odd) })
	},
	"members in another order": func(_ *rand.Rand, b []byte) []byte {
		var v any
		if json.Unmarshal(b, &v) != nil {
			return b
		}
		out, err := json.Marshal(v)
		if err != nil {
			return b
		}
		return out
	},
	"indented": func(_ *rand.Rand, b []byte) []byte {
		var out bytes.Buffer
		if json.Indent(&out, b, "", "   ") != nil {
			return b
		}
		return out.Bytes()
	},
	"number": func(r *rand.Rand, b []byte) []byte {
		return one(r, anyNumber, b, func(n string) string {
			return pick(r, []string{n + ".0", n + "e0", ":-1", ":1e3", n + "0", `:"` + n[1:] + `"`})
		})
	},
	"deep": func(r *rand.Rand, b []byte) []byte {
		n := 1 + r.IntN(12000)
		return one(r, regexp.MustCompile(`^{`), b, func(string) string {
			return `{"x":` + strings.Repeat("[", n) +
				strings.Repeat("]", n) + ","
		})
	},
}

// bodies are mutations of a manifest's bytes.
var bodies = func() map[string]func(r *rand.Rand, m *mutant, b []byte) []byte {
	out := map[string]func(r *rand.Rand, m *mutant, b []byte) []byte{
		"none": func(_ *rand.Rand, _ *mutant, b []byte) []byte { return b },
		"a digest of another image": func(r *rand.Rand, m *mutant, b []byte) []byte {
			return one(r, anyDigest, b, func(string) string { return m.anyDigest(r) })
		},
		"another type inside": func(r *rand.Rand, _ *mutant, b []byte) []byte {
			return one(r, anyType, b, func(string) string { return pick(r, append([]string{dockerLayer, ociLayer}, kinds...)) })
		},
		"a member more": func(r *rand.Rand, m *mutant, b []byte) []byte {
			return one(r, regexp.MustCompile(`^{`), b, func(string) string {
				name := pick(r, []string{
					"manifests", "layers", "fsLayers", "history", "signatures", "config", "schemaVersion",
					"subject", "artifactType", "annotations",
				})
				value := pick(r, append([]string{
					"[" + entry(m.pool.images["oci"], "amd64") + "]",
					"[" + asJSON(m.pool.layer["evil"]) + "]", asJSON(m.pool.config["evil"]),
				}, odd...))
				return `{"` + name + `":` + value + ","
			})
		},
		"schema version": func(r *rand.Rand, _ *mutant, b []byte) []byte {
			return one(r, regexp.MustCompile(`"schemaVersion":[0-9]+`), b, func(string) string {
				return `"schemaVersion":` + pick(r, []string{"1", "2", "3", `"2"`, "2.0", "null"})
			})
		},
		"no media type": func(r *rand.Rand, _ *mutant, b []byte) []byte {
			return one(r, regexp.MustCompile(`"mediaType":"[^"]*",`), b, func(string) string { return "" })
		},
		"another architecture": func(r *rand.Rand, _ *mutant, b []byte) []byte {
			return one(r, regexp.MustCompile(`"(amd64|arm64|linux)"`), b,
				func(string) string { return pick(r, []string{`"amd64"`, `"arm64"`, `"linux"`, `"windows"`, `""`}) })
		},
		"an instance more": func(r *rand.Rand, m *mutant, b []byte) []byte {
			e := entry(m.pool.images[pick(r, []string{"evil", "old", "other", "docker"})], pick(r, []string{"amd64", "arm64"}))
			return one(r, regexp.MustCompile(`"manifests":\[`), b, func(k string) string { return k + e + "," })
		},
		"instances swapped": func(_ *rand.Rand, _ *mutant, b []byte) []byte {
			d := anyDigest.FindAll(b, 2)
			if len(d) < 2 {
				return b
			}
			x, y := string(d[0]), string(d[1])
			return []byte(strings.NewReplacer(x, y, y, x).Replace(string(b)))
		},
		"no platform": func(r *rand.Rand, _ *mutant, b []byte) []byte {
			return one(r, regexp.MustCompile(`,"platform":{[^}]*}`), b, func(string) string { return "" })
		},
		"an index around it": func(r *rand.Rand, m *mutant, b []byte) []byte {
			m.manifests[m.repo+"@"+sum(b)] = served{b, pick(r, kinds)}
			return index(pick(r, []string{dockerList, ociIndex}),
				entry(served{b, pick(r, []string{dockerImage, ociImage, ociIndex, dockerList})}, "amd64")).body
		},
		"a signature of its own": func(_ *rand.Rand, m *mutant, b []byte) []byte {
			w, err := fixture.Wrap(b)
			if err != nil {
				return b
			}
			m.wrapped = append(m.wrapped, b)
			return w
		},
	}
	for name, f := range spelt {
		out[name] = func(r *rand.Rand, _ *mutant, b []byte) []byte { return f(r, b) }
	}
	return out
}()

// anyDigest is one of an image, a layer or a configuration.
func (m *mutant) anyDigest(r *rand.Rand) string {
	name := pick(r, []string{"docker", "docker2", "oci", "oci2", "old", "other", "evil"})
	return pick(r, []string{m.pool.config[name].Digest, m.pool.layer[name].Digest, sum(m.pool.images[name].body)})
}

// forgeries are manifests whose payload are an honest manifest's bytes, and the content types that they are served
// with.
var forgeries = map[string]struct {
	shape fixture.Shape
	kinds []string
}{
	"schema 1":        {fixture.Schema1, []string{schema1JWS, schema1, "", "application/json", "text/plain"}},
	"OCI image":       {fixture.OCIImage, []string{ociImage}},
	"schema 2":        {fixture.Schema2, []string{dockerImage}},
	"OCI index":       {fixture.OCIIndex, []string{ociIndex, dockerList}},
	"any shape, type": {"", kinds},
}

// forge serves an attacker's manifest in place of an honest one, whose signatures stay where they are.
func (m *mutant) forge(r *rand.Rand, f struct {
	shape fixture.Shape
	kinds []string
},
) {
	at := m.chosen(r)
	honest := m.manifests[at].body
	shape := f.shape
	if shape == "" {
		shape = pick(r, []fixture.Shape{fixture.Schema1, fixture.OCIImage, fixture.Schema2, fixture.OCIIndex})
	}
	out := fixture.Forgery{
		Shape: shape, Name: m.repo, Tag: "v1", Config: m.pool.config["evil"],
		Layers: []fixture.Blob{m.pool.layer["evil"]},
	}
	if shape == fixture.OCIIndex {
		old := m.pool.images[pick(r, []string{"old", "evil"})]
		out.Layers = []fixture.Blob{{
			MediaType: old.kind, Digest: sum(old.body), Size: int64(len(old.body)),
			Platform: map[string]string{"os": "linux", "architecture": "amd64"},
		}}
	}
	if r.IntN(8) == 0 {
		out.Length = pick(r, []int{1, 2, 20, 100000, -1, -100})
	}
	b, err := fixture.Forge(honest, out)
	if err != nil {
		return
	}
	if r.IntN(8) == 0 {
		b = spelt[pick(r, []string{
			"bits flipped", "member twice", "member's case", "value replaced", "indented",
			"members in another order",
		})](r, b)
	}
	m.manifests[at] = served{b, pick(r, f.kinds)}
}

// payloads are mutations of what a signature says. The right key signs them.
var payloads = func() map[string]func(r *rand.Rand, m *mutant, c claim) []byte {
	out := map[string]func(r *rand.Rand, m *mutant, c claim) []byte{
		"another reference": func(r *rand.Rand, m *mutant, c claim) []byte {
			c.reference = pick(r, []string{
				host + "/" + m.repo, host + "/" + m.repo + ":" + pick(r, m.pool.tags), host + "/team/other:v1",
				"other.example/" + m.repo + ":docker",
				host + "/" + m.repo + "@" + c.digest, host + "/" + m.repo + ":docker@" + c.digest, "", "://", m.repo + ":docker",
				strings.ToUpper(c.reference), c.reference + " ", c.reference + "\x00",
				host + "/" + m.repo + "/:docker", "https://" + c.reference, host + ":443/" + m.repo + ":docker",
			})
			return c.payload()
		},
		"another digest": func(r *rand.Rand, m *mutant, c claim) []byte {
			c.digest = pick(r, []string{
				m.anyDigest(r), "", "sha256:", strings.ToUpper(c.digest), c.digest[:len(c.digest)-1],
				c.digest + "0", " " + c.digest, "sha512:" + c.digest[7:], c.digest[7:],
			})
			return c.payload()
		},
		"another type": func(r *rand.Rand, _ *mutant, c claim) []byte {
			return bytes.Replace(c.payload(), []byte("atomic container signature"),
				[]byte(pick(r, []string{
					"cosign container image signature", "", "Atomic container signature",
					"atomic container signature ",
				})), 1)
		},
		"a member more": func(r *rand.Rand, _ *mutant, c claim) []byte {
			return one(r, regexp.MustCompile(`{`), c.payload(), func(string) string { return `{"x":` + pick(r, odd) + `,` })
		},
		"a member less": func(r *rand.Rand, _ *mutant, c claim) []byte {
			return one(r, regexp.MustCompile(`,?"[a-z-]+":("[^"]*"|{[^{}]*}|[0-9]+)`), c.payload(),
				func(string) string { return "" })
		},
		"of another image": func(r *rand.Rand, m *mutant, _ claim) []byte { return pick(r, m.pool.claims).payload },
	}
	for name, f := range spelt {
		out[name] = func(r *rand.Rand, _ *mutant, c claim) []byte { return f(r, c.payload()) }
	}
	return out
}()

// reclaim has other words signed for the image.
func (m *mutant) reclaim(r *rand.Rand, f func(r *rand.Rand, m *mutant, c claim) []byte) {
	d := m.instanceDigest()
	c := claim{d, m.reference()}
	if strings.HasPrefix(m.asked, "@") {
		c.reference = host + "/" + m.repo + ":docker"
	}
	by := pick(r, []*signer{m.pool.corp, m.pool.corp, m.pool.ops, m.pool.stranger})
	sig := m.sign(by, f(r, m, c))
	at := m.repo + "@" + d
	switch r.IntN(3) {
	case 0:
		m.signatures[at] = [][]byte{sig}
	case 1:
		m.signatures[at] = append([][]byte{sig}, m.signatures[at]...)
	default:
		m.signatures[at] = append(slices.Clone(m.signatures[at][:min(1, len(m.signatures[at]))]), sig)
	}
}

// instanceDigest is the digest that readers on linux/amd64 look for signatures of, if the index is in order.
func (m *mutant) instanceDigest() string {
	top := m.manifests[m.repo+m.asked].body
	var list struct {
		Manifests []fixture.Blob `json:"manifests"`
	}
	if json.Unmarshal(top, &list) == nil && len(list.Manifests) > 0 {
		return list.Manifests[0].Digest
	}
	return sum(top)
}

// files are mutations of the files in the lookaside.
var files = map[string]func(r *rand.Rand, m *mutant, sigs [][]byte) [][]byte{
	"none":         func(*rand.Rand, *mutant, [][]byte) [][]byte { return nil },
	"empty":        func(*rand.Rand, *mutant, [][]byte) [][]byte { return [][]byte{{}} },
	"first gone":   func(_ *rand.Rand, _ *mutant, s [][]byte) [][]byte { return s[min(1, len(s)):] },
	"only one":     func(_ *rand.Rand, _ *mutant, s [][]byte) [][]byte { return s[:min(1, len(s))] },
	"turned round": func(_ *rand.Rand, _ *mutant, s [][]byte) [][]byte { slices.Reverse(s); return s },
	"bits flipped": func(r *rand.Rand, _ *mutant, s [][]byte) [][]byte {
		return each(s, func(b []byte) []byte { return spelt["bits flipped"](r, bytes.Clone(b)) })
	},
	"cut off": func(r *rand.Rand, _ *mutant, s [][]byte) [][]byte {
		return each(s, func(b []byte) []byte { return b[:r.IntN(len(b)+1)] })
	},
	"more after it": func(r *rand.Rand, _ *mutant, s [][]byte) [][]byte {
		return each(s, func(b []byte) []byte {
			return append(bytes.Clone(b), pick(r, []string{"\n", "\x00", "x", "\xa3\x00", "<html>"})...)
		})
	},
	"one file of all": func(_ *rand.Rand, _ *mutant, s [][]byte) [][]byte { return [][]byte{slices.Concat(s...)} },
	"twice in one": func(_ *rand.Rand, _ *mutant, s [][]byte) [][]byte {
		return each(s, func(b []byte) []byte { return slices.Concat(b, b) })
	},
	"armored": func(_ *rand.Rand, _ *mutant, s [][]byte) [][]byte {
		return each(s, func(b []byte) []byte {
			return []byte("-----BEGIN PGP MESSAGE-----\n\n" + base64.StdEncoding.EncodeToString(b) +
				"\n-----END PGP MESSAGE-----\n")
		})
	},
	"of another image": func(r *rand.Rand, m *mutant, s [][]byte) [][]byte {
		at := m.repo + "@" + sum(m.pool.images[pick(r, []string{"docker", "oci", "old"})].body)
		return append(slices.Clone(m.pool.scene.signatures[at]), s[:min(len(s), r.IntN(2))]...)
	},
	"of a stranger": func(_ *rand.Rand, m *mutant, s [][]byte) [][]byte {
		return append([][]byte{m.sign(m.pool.stranger, claim{m.instanceDigest(), m.reference()}.payload())}, s...)
	},
	"a stranger's and the right one in one": func(_ *rand.Rand, m *mutant, s [][]byte) [][]byte {
		return each(s, func(b []byte) []byte {
			return slices.Concat(m.sign(m.pool.stranger, claim{m.instanceDigest(), m.reference()}.payload()), b)
		})
	},
	"of nobody, the words only": func(_ *rand.Rand, m *mutant, _ [][]byte) [][]byte {
		p := claim{m.instanceDigest(), m.reference()}.payload()
		return [][]byte{p, literal(p)}
	},
	"right signature, other words": func(r *rand.Rand, m *mutant, s [][]byte) [][]byte {
		return each(s, func(b []byte) []byte {
			return one(r, anyDigest, b, func(string) string {
				return sum(m.pool.images[pick(r, []string{"docker", "oci", "evil"})].body)
			})
		})
	},
	"a web page": func(*rand.Rand, *mutant, [][]byte) [][]byte { return [][]byte{[]byte("<html>not found</html>")} },
	"many":       func(_ *rand.Rand, _ *mutant, s [][]byte) [][]byte { return slices.Repeat(s, 5) },
}

func each(s [][]byte, f func(b []byte) []byte) [][]byte {
	out := make([][]byte, len(s))
	for i, b := range s {
		out[i] = f(b)
	}
	return out
}

// literal is an OpenPGP packet of data that nobody signed.
func literal(b []byte) []byte {
	out := []byte{0xcb, 0xff, 0, 0, byte((len(b) + 6) >> 8), byte(len(b) + 6), 'b', 0, 0, 0, 0, 0}
	return append(out, b...)
}

func (m *mutant) respell(r *rand.Rand, f func(r *rand.Rand, m *mutant, sigs [][]byte) [][]byte) {
	at := m.repo + "@" + m.instanceDigest()
	m.signatures[at] = f(r, m, slices.Clone(m.signatures[at]))
}

// servers are mutations of what is served where.
var servers = map[string]func(r *rand.Rand, m *mutant){
	"another content type": func(r *rand.Rand, m *mutant) {
		at := m.chosen(r)
		s := m.manifests[at]
		s.kind = pick(r, kinds)
		m.manifests[at] = s
	},
	"another tag's image": func(r *rand.Rand, m *mutant) {
		m.manifests[m.chosen(r)] = m.pool.scene.manifests["team/app:"+pick(r, m.pool.tags)]
	},
	"another image": func(r *rand.Rand, m *mutant) {
		m.manifests[m.chosen(r)] = m.pool.images[pick(r, []string{"evil", "old", "other", "oci", "docker", "oci2"})]
	},
	"another repository's image, signed there": func(r *rand.Rand, m *mutant) {
		other := m.pool.images["other"]
		m.manifests[m.chosen(r)] = other
		m.manifests[m.repo+"@"+sum(other.body)] = other
		m.signatures[m.repo+"@"+sum(other.body)] = m.pool.scene.signatures["team/other@"+sum(other.body)]
	},
	"nothing":         func(r *rand.Rand, m *mutant) { delete(m.manifests, m.chosen(r)) },
	"asked by digest": func(_ *rand.Rand, m *mutant) { m.byDigest() },
	"asked by sha512": func(_ *rand.Rand, m *mutant) {
		top := m.manifests[m.repo+m.asked]
		m.asked = "@" + sum512(top.body)
		m.manifests[m.repo+m.asked] = top
	},
	"asked for the image of the index": func(_ *rand.Rand, m *mutant) {
		if d := m.instanceDigest(); m.manifests[m.repo+"@"+d].body != nil {
			m.asked = "@" + d
		}
	},
	"asked for another digest": func(r *rand.Rand, m *mutant) {
		top := m.manifests[m.repo+m.asked]
		m.asked = "@" + sum(m.pool.images[pick(r, []string{"evil", "old", "other"})].body)
		m.manifests[m.repo+m.asked] = top
	},
	"asked in another repository": func(_ *rand.Rand, m *mutant) {
		top, d := m.manifests[m.repo+m.asked], m.instanceDigest()
		sigs := m.signatures[m.repo+"@"+d]
		image := m.manifests[m.repo+"@"+d]
		m.repo = "team/other"
		m.manifests[m.repo+m.asked] = top
		m.manifests[m.repo+"@"+d] = image
		m.signatures[m.repo+"@"+d] = sigs
		m.manifests[attachedAt(m.repo, d)] = m.manifests[attachedAt("team/app", d)]
	},
}
