//go:build !containers_image_openpgp

package verify_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/policy/compare"
)

// The judge is the image library, with gpg: IsRunningImageAllowed of an image of which only the reference and the
// simple signatures matter. Asking it takes two runs of gpg, so that it is asked once of each signer under each set
// of keys, and of each identity. That these make up the answer for whole policies is tested with whole policies, and
// a fault that they show is shown by whole policies before it is reported.

var judgedManifest = []byte(`{"schemaVersion":2}`)

// judgedImage is an image source with one manifest and some signatures.
type judgedImage struct {
	types.ImageSource
	ref  types.ImageReference
	sigs [][]byte
}

func (i judgedImage) Reference() types.ImageReference { return i.ref }

func (i judgedImage) GetManifest(context.Context, *digest.Digest) ([]byte, string, error) {
	return judgedManifest, "", nil
}

func (i judgedImage) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return i.sigs, nil
}

// allows asks the library whether a policy accepts an image with signatures.
func allows(t *testing.T, policy, ref string, sigs ...[]byte) bool {
	t.Helper()
	ok, err := judged(t.Context(), policy, ref, sigs...)
	if err != nil {
		t.Fatalf("%v: %s", err, policy)
	}
	return ok
}

// judged is allows; the error says that the policy or the reference is none.
func judged(ctx context.Context, policy, ref string, sigs ...[]byte) (bool, error) {
	p, err := signature.NewPolicyFromBytes([]byte(policy))
	if err != nil {
		return false, err
	}
	pc, err := signature.NewPolicyContext(p)
	if err != nil {
		return false, err
	}
	defer func() { _ = pc.Destroy() }()
	named, err := docker.ParseReference("//" + ref)
	if err != nil {
		return false, err
	}
	// refused is an error
	ok, _ := pc.IsRunningImageAllowed(ctx, image.UnparsedInstance(judgedImage{ref: named, sigs: sigs}, nil))
	return ok, nil
}

// drawnRequirement is one of a random policy: accept, reject, or signedBy.
type drawnRequirement struct {
	kind     string
	keys     int // index of world.keys
	identity string
}

type drawnPolicy map[string][]drawnRequirement // the key "default" is the policy's

// diffWorld is what random policies are made of, and what the library says of its parts.
type diffWorld struct {
	t       *testing.T
	keys    []string // members of a requirement
	signers []string
	signed  []string // references that signatures name
	sigs    map[[2]string][]byte
	images  []string
	scopes  []string
	ids     []string
	counts  map[string]bool // which key counts in which set, which identity accepts which reference for which image
}

const accepting = `{"type":"insecureAcceptAnything"}`

func (w *diffWorld) requirement(r drawnRequirement) string {
	switch r.kind {
	case "accept":
		return accepting
	case "reject":
		return `{"type":"reject"}`
	}
	return fmt.Sprintf(`{"type":"signedBy","keyType":"GPGKeys",%s,"signedIdentity":%s}`, w.keys[r.keys], r.identity)
}

func (w *diffWorld) json(p drawnPolicy) string {
	list := func(rs []drawnRequirement) string {
		var out []string
		for _, r := range rs {
			out = append(out, w.requirement(r))
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	var scopes []string
	for _, scope := range slices.Sorted(maps.Keys(p)) {
		if scope != "default" {
			scopes = append(scopes, fmt.Sprintf("%q:%s", scope, list(p[scope])))
		}
	}
	return fmt.Sprintf(`{"default":%s,"transports":{"docker":{%s}}}`, list(p["default"]), strings.Join(scopes, ","))
}

// deciding asks the library which scope of a policy decides of an image: the only one that accepts, where all others
// reject.
func (w *diffWorld) deciding(p drawnPolicy, ref string) string {
	for scope := range p {
		alone := drawnPolicy{}
		for other := range p {
			alone[other] = []drawnRequirement{{kind: "reject"}}
		}
		alone[scope] = []drawnRequirement{{kind: "accept"}}
		if allows(w.t, w.json(alone), ref) {
			return scope
		}
	}
	w.t.Fatalf("no scope of %v decides of %s", p, ref)
	return ""
}

// countsKey and acceptsName name what counts holds.
func countsKey(keys int, signer string) string { return fmt.Sprint("keys ", keys, " ", signer) }

func acceptsName(identity, ref, signed string) string {
	return fmt.Sprint("identity ", identity, " ", ref, " ", signed)
}

// learn asks the library of each signer under each set of keys, by an identity that always matches, and of each
// identity, by the first set of keys and a signer in it.
func (w *diffWorld) learn() {
	type question struct {
		name, ref   string
		requirement drawnRequirement
		sig         [2]string
	}
	var all []question
	for keys := range w.keys {
		for _, signer := range w.signers {
			identity := fmt.Sprintf(`{"type":"exactReference","dockerReference":%q}`, w.signed[0])
			all = append(all, question{
				countsKey(keys, signer), w.images[0],
				drawnRequirement{"signed", keys, identity},
				[2]string{signer, w.signed[0]},
			})
		}
	}
	for _, identity := range w.ids {
		for _, ref := range w.images {
			for _, signed := range w.signed {
				all = append(all, question{
					acceptsName(identity, ref, signed), ref,
					drawnRequirement{"signed", 0, identity},
					[2]string{w.signers[0], signed},
				})
			}
		}
	}
	answers, errs := make([]bool, len(all)), make([]error, len(all))
	var group sync.WaitGroup
	const workers = 4
	for first := range workers {
		group.Go(func() {
			for i := first; i < len(all); i += workers {
				q := all[i]
				answers[i], errs[i] = judged(w.t.Context(), `{"default":[`+w.requirement(q.requirement)+`]}`, q.ref, w.sigs[q.sig])
			}
		})
	}
	group.Wait()
	for i, q := range all {
		if errs[i] != nil {
			w.t.Fatal(errs[i])
		}
		w.counts[q.name] = answers[i]
	}
}

// satisfied reports whether a signature satisfies a requirement for an image.
func (w *diffWorld) satisfied(r drawnRequirement, ref string, sig [2]string) bool {
	if r.kind != "signed" {
		return r.kind == "accept"
	}
	return w.counts[countsKey(r.keys, sig[0])] && w.counts[acceptsName(r.identity, ref, sig[1])]
}

// accepts reports whether all requirements are satisfied by some of the signatures.
func (w *diffWorld) accepts(rs []drawnRequirement, ref string, sigs [][2]string) bool {
	for _, r := range rs {
		if r.kind != "accept" && !slices.ContainsFunc(sigs, func(s [2]string) bool { return w.satisfied(r, ref, s) }) {
			return false
		}
	}
	return true
}

// onlyBy returns signatures with which y accepts an image and x doesn't: one that satisfies each requirement of y,
// whichever.
func (w *diffWorld) onlyBy(x, y []drawnRequirement, ref string) (sigs [][2]string, found bool) {
	sets := [][][2]string{nil}
	for _, r := range y {
		if r.kind == "accept" {
			continue
		}
		var next [][][2]string
		for _, set := range sets {
			for _, sig := range slices.SortedFunc(maps.Keys(w.sigs),
				func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
				if w.satisfied(r, ref, sig) {
					next = append(next, append(slices.Clone(set), sig))
				}
			}
		}
		sets = next
	}
	for _, set := range sets {
		if !w.accepts(x, ref, set) {
			return set, true
		}
	}
	return nil, false
}

func (w *diffWorld) bytes(sigs [][2]string) (out [][]byte) {
	for _, s := range sigs {
		out = append(out, w.sigs[s])
	}
	return out
}

func (w *diffWorld) draw(r *rand.Rand) drawnPolicy {
	list := func() (out []drawnRequirement) {
		for range 1 + r.IntN(5)/4 {
			kind := []string{"accept", "reject", "signed", "signed", "signed", "signed"}[r.IntN(6)]
			out = append(out, drawnRequirement{kind, r.IntN(len(w.keys)), w.ids[r.IntN(len(w.ids))]})
		}
		return out
	}
	p := drawnPolicy{"default": list()}
	for range r.IntN(3) {
		p[w.scopes[r.IntN(len(w.scopes))]] = list()
	}
	return p
}

// change makes the policy that people compare with: mostly the same, with other keys or another identity at a place,
// or a scope more or less.
func (w *diffWorld) change(r *rand.Rand, p drawnPolicy) drawnPolicy {
	out := drawnPolicy{}
	for _, scope := range slices.Sorted(maps.Keys(p)) { // the same for the same seed
		rs := slices.Clone(p[scope])
		for i := range rs {
			switch r.IntN(4) {
			case 0:
				rs[i].keys = r.IntN(len(w.keys))
			case 1:
				rs[i].identity = w.ids[r.IntN(len(w.ids))]
			}
		}
		out[scope] = rs
	}
	if r.IntN(2) == 0 {
		maps.Copy(out, w.draw(r))
	}
	return out
}

// newDiffWorld makes keys and what becomes of them, and a signature of every kind.
func newDiffWorld(t *testing.T) *diffWorld {
	parts := fixture.Parts{TB: t}
	g := parts.GPG()
	run := func(stdin string, args ...string) []byte {
		out, err := g.Run(stdin, append([]string{"--passphrase", "", "--pinentry-mode", "loopback"}, args...)...)
		parts.Must(err)
		return out
	}
	day := func(n int) string { return fmt.Sprintf("--faked-system-time=202001%02dT000000", n) }
	dir := t.TempDir()
	w := &diffWorld{t: t, sigs: map[[2]string][]byte{}, counts: map[string]bool{}}
	sha256, sha512 := "@"+digest.SHA256.FromBytes(judgedManifest).String(),
		"@"+digest.SHA512.FromBytes(judgedManifest).String()
	w.images = []string{
		"a.b.c/r:v1", "a.b.c/r" + sha256, "a.b.c/r" + sha512, "a.b.c/r/x:v1", "A.b.c/r:v1",
		"x.b.c:99999/r:v1", "a.b.c/o:v1",
	}
	w.signed = []string{"a.b.c/r:v1", "a.b.c/r:v2", "a.b.c/r" + sha256, "a.b.c/o:v1", "a.b.c/r/x:v1", "A.b.c/r:v1"}
	w.scopes = []string{
		"", "*.c", "*.b.c", "*.B.c", "a.b.c", "A.b.c", "a.b.c/r", "a.b.c/r/x", "a.b.c/r:v1", "a.b.c/r" + sha256,
		"a.b.c/r" + sha512, "a.b.c/o", "x.b.c", "x.b.c:99999", "x.b.c:0", "https://a.b.c", "a.b.c/",
	}
	w.ids = []string{
		`{"type":"matchRepoDigestOrExact"}`, `{"type":"matchExact"}`, `{"type":"matchRepository"}`,
		`{"type":"exactReference","dockerReference":"a.b.c/r:v1"}`,
		`{"type":"exactRepository","dockerRepository":"a.b.c/r"}`,
		`{"type":"remapIdentity","prefix":"a.b.c/r","signedPrefix":"a.b.c/o"}`,
		`{"type":"remapIdentity","prefix":"A.b.c","signedPrefix":"a.b.c"}`,
		`{"type":"remapIdentity","prefix":"a.b.c","signedPrefix":"a.b.c"}`,
	}
	newest := func(of string) (fpr string) {
		for line := range strings.Lines(string(run("", "--with-colons", "--list-keys", of))) {
			if f := strings.Split(line, ":"); f[0] == "fpr" {
				fpr = f[9]
			}
		}
		return fpr
	}
	export := func(fpr string) []byte { return run("", "--export", fpr) }
	sign := func(fpr string) {
		w.signers = append(w.signers, fpr)
		for _, ref := range w.signed {
			w.sigs[[2]string{fpr, ref}] = run(string(fixture.Payload(sha256[1:], ref)), day(3), "--local-user",
				fpr+"!", "--sign")
		}
	}
	run("", day(1), "--quick-gen-key", "first", "ed25519", "sign,cert", "never")
	run("", day(1), "--quick-gen-key", "second", "ed25519", "sign,cert", "never")
	p, second := newest("first"), newest("second")
	good, other := export(p), export(second)
	sign(p)
	run("", day(2), "--quick-add-key", p, "ed25519", "sign", "never")
	sub := newest("first")
	sign(sub)
	sign(second)
	withSub := export(p)
	run("", day(4), "--quick-set-expire", p, "2d", sub)
	subExpired := export(p)
	run("", day(5), "--quick-set-expire", p, "2d")
	expired := export(p)
	run("", day(6), "--quick-set-expire", p, "0")
	extended := export(p)
	cert, err := os.ReadFile(filepath.Join(g.Home(), "openpgp-revocs.d", p+".rev"))
	parts.Must(err)
	run(strings.Replace(string(cert), ":-----BEGIN", "-----BEGIN", 1), "--import")
	revoked := export(p)
	for _, files := range [][][]byte{
		{withSub},
		{good},
		{subExpired},
		{expired},
		{extended},
		{revoked},
		{other},
		{good, other},
		{withSub, subExpired},
		{expired, good},
		{expired, extended},
		{withSub, revoked},
		{revoked, good, other},
		{expired, other},
		{[]byte("no key")},
	} {
		w.keys = append(w.keys, fmt.Sprintf(`"keyData":%q`, base64.StdEncoding.EncodeToString(slices.Concat(files...))))
		var paths []string
		for i, f := range files {
			paths = append(paths, strconv.Quote(parts.Write(filepath.Join(dir, fmt.Sprint(len(w.keys), "-", i)), f)))
		}
		if len(paths) > 1 {
			w.keys = append(w.keys, `"keyPaths":[`+strings.Join(paths, ",")+"]")
		}
	}
	w.learn()
	return w
}

// TestStrength_library: random pairs of policies, each judged over images and signatures by the library. An image
// that only B accepts contradicts "equal" and "stronger", of the policies and of the scope that decides, and one that
// only A accepts contradicts "equal".
//
// NODETRUST_PAIRS sets how many pairs are drawn, NODETRUST_SEED which.
func TestStrength_library(t *testing.T) {
	number := func(name string, or int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return or
	}
	w := newDiffWorld(t)
	r := rand.New(rand.NewPCG(uint64(number("NODETRUST_SEED", 1)), 7))
	seen := map[compare.Relation]int{}
	differ := 0
	for range number("NODETRUST_PAIRS", 400) {
		a := w.draw(r)
		b := w.draw(r)
		if r.IntN(4) > 0 {
			b = w.change(r, a)
		}
		differ += w.compare(r, a, b, seen)
	}
	for _, rel := range []compare.Relation{compare.Equal, compare.Weaker, compare.Stronger, compare.Incomparable} {
		if seen[rel] < 20 {
			t.Errorf("%s was seen %d times only", rel, seen[rel])
		}
	}
	if differ < 100 {
		t.Errorf("the library judged %d images differently, too few to tell anything", differ)
	}
	t.Logf("%v, %d images are judged differently", seen, differ)
}

// compare holds one comparison against the library, and returns how many images it judges differently.
func (w *diffWorld) compare(r *rand.Rand, a, b drawnPolicy, seen map[compare.Relation]int) (differ int) {
	t := w.t
	parse := func(p drawnPolicy) *compare.Policy {
		out, err := compare.Parse([]byte(w.json(p)), os.ReadFile, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	report := compare.Policies(parse(a), parse(b))
	seen[report.Relation]++
	union := maps.Clone(a)
	maps.Copy(union, b)
	for _, ref := range w.images {
		x, y := a[w.deciding(a, ref)], b[w.deciding(b, ref)]
		only := map[string][][2]string{}
		if sigs, ok := w.onlyBy(x, y, ref); ok {
			only["b"] = sigs
		}
		if sigs, ok := w.onlyBy(y, x, ref); ok {
			only["a"] = sigs
		}
		if len(only) > 0 {
			differ++
		}
		at := w.scope(report, w.deciding(union, ref))
		for _, claim := range []struct {
			of  string
			rel compare.Relation
		}{{"the policies", report.Relation}, {"scope " + at.Scope, at.Relation}} {
			for who, sigs := range only {
				if claim.rel != compare.Equal && (claim.rel != compare.Stronger || who == "a") {
					continue
				}
				if of := map[string]bool{
					"a": allows(t, w.json(a), ref, w.bytes(sigs)...),
					"b": allows(t, w.json(b), ref, w.bytes(sigs)...),
				}; of["a"] == of["b"] {
					t.Errorf("the library's parts and the whole differ for %s: %v\na %s\nb %s", ref, of, w.json(a), w.json(b))
				}
				t.Errorf("%s: b is said to be %s, but only %s accepts %s with %q\na %s\nb %s\n%s", claim.of, claim.rel, who, ref,
					sigs, w.json(a), w.json(b), asJSON(report))
			}
		}
	}
	if r.IntN(8) == 0 { // the whole, with some signatures
		ref, sigs := w.images[r.IntN(len(w.images))], [][2]string{}
		for range r.IntN(3) {
			sigs = append(sigs, [2]string{w.signers[r.IntN(len(w.signers))], w.signed[r.IntN(len(w.signed))]})
		}
		if got, want := w.accepts(a[w.deciding(a, ref)], ref, sigs),
			allows(t, w.json(a), ref, w.bytes(sigs)...); got != want {
			t.Errorf("%s with %q: the library says %v, its parts %v\n%s", ref, sigs, want, got, w.json(a))
		}
	}
	return differ
}

// scope is the comparison at a scope of the docker transport, or at the default.
func (w *diffWorld) scope(r compare.Report, name string) compare.Scope {
	for _, s := range r.Scopes {
		if name == "default" && s.Transport == "" || name != "default" && s.Transport == "docker" && s.Scope == name {
			return s
		}
	}
	w.t.Fatalf("no comparison at %q", name)
	return compare.Scope{}
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
