package mutation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// tally counts what became of mutants.
type tally map[string]int

func (t tally) add(other tally) {
	for k, n := range other {
		t[k] += n
	}
}

func (t tally) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&b, "\n%8d  %s", t[k], k)
	}
	return b.String()
}

func environment(t testing.TB, name string, otherwise int) int {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	must(t, err)
	return n
}

// policies are those that mutants are judged under.
func (p *pool) policies() [][]demand {
	corp, both := []*signer{p.corp}, []*signer{p.corp, p.ops}
	of := func(s []*signer, identity string, holds func(asked, signed string) bool) demand {
		return demand{signers: s, identity: identity, holds: holds}
	}
	cosigned := func(identity string, holds func(asked, signed string) bool) demand {
		return demand{cosigners: []*cosigner{p.cosign}, identity: identity, holds: holds}
	}
	exact := func(kind, member, value string) string { return fmt.Sprintf(`{"type":%q,%q:%q}`, kind, member, value) }
	return [][]demand{
		{of(corp, "", repoDigestOrExact)},
		{of(corp, `{"type":"matchRepository"}`, sameRepository)},
		{of(both, `{"type":"matchExact"}`, func(asked, signed string) bool { return asked == signed })},
		{of(corp, exact("exactReference", "dockerReference", host+"/team/app:docker"), exactly(host+"/team/app:docker"))},
		{of(corp, exact("exactRepository", "dockerRepository", host+"/team/app"),
			func(_, signed string) bool { return repository(signed) == host+"/team/app" })},
		{of(corp, "", repoDigestOrExact), of([]*signer{p.ops}, `{"type":"matchRepository"}`, sameRepository)},
		{{}},
		{cosigned("", repoDigestOrExact)},
		{cosigned(`{"type":"matchRepository"}`, sameRepository), of(corp, `{"type":"matchRepository"}`, sameRepository)},
	}
}

// TestMutants holds what the image library pulls and what nodetrust says against each other, and both against what
// was signed. NODETRUST_MUTANTS and NODETRUST_SEED are their number and the first one's seed; the seed of a mutant
// and their sum are all that is needed to have it again.
func TestMutants(t *testing.T) {
	count := 10_000
	if mechanism.Name == "gpgme" { // which starts a gpg for each look
		count = 500
	}
	count = environment(t, "NODETRUST_MUTANTS", count)
	first := environment(t, "NODETRUST_SEED", 1)
	p := newPool(t)
	workers := 2 * runtime.GOMAXPROCS(0)
	total := tally{}
	var mu sync.Mutex
	var failures atomic.Int64
	var wg sync.WaitGroup
	for n := range workers {
		b := newBench(t, p.blobs, p.policies())
		wg.Go(func() {
			own := tally{}
			for i := n; i < count && failures.Load() < 10; i += workers {
				failures.Add(b.check(t, p.mutate(uint64(first+i), len(b.policies)), uint64(first+i), own))
			}
			mu.Lock()
			defer mu.Unlock()
			total.add(own)
		})
	}
	wg.Wait()
	t.Logf("%d mutants from seed %d, mechanism %s:%s", count, first, mechanism.Name, total)
	for _, want := range []string{
		"verify: both accept", "verify: both refuse", "audit: both accept",
		"audit: both refuse",
	} {
		if total[want] < count/20 {
			t.Errorf("%s: %d of %d, which is too few to say anything", want, total[want], count)
		}
	}
}

// check judges one mutant, and returns how often that went wrong.
func (b *bench) check(t *testing.T, m *mutant, seed uint64, count tally) (failures int64) {
	policy := b.policies[m.policy]
	b.show(m.scene)
	pulled, err := b.library(policy, m.scene)
	for _, asked := range []struct {
		by  string
		get func(*policyFile, *scene) (verdict.Verdict, error)
	}{{"verify", b.nodetrust}, {"audit", b.audited}} {
		v, broken := asked.get(policy, m.scene)
		outcome, wrong := m.compare(policy, pulled, err, v, broken)
		kind := outcome
		if wrong {
			kind, _, _ = strings.Cut(outcome, ": ")
		}
		count[asked.by+": "+kind]++
		if wrong {
			failures++
			t.Errorf("seed %d, policy %d, %s by %s: %s\n%s\n  library: %v\n  nodetrust: %s/%s %s %v", seed, m.policy,
				m.reference(), asked.by, outcome,
				"  "+strings.Join(m.trail, "; "), err, v.Answer, v.Reason, v.Message, broken)
		}
	}
	return failures
}

// isSchema1 is true for a manifest that readers of JSON can take for one of schema 1.
func isSchema1(manifest []byte) bool {
	var m struct {
		Version    any `json:"schemaVersion"`
		Layers     any `json:"fsLayers"`
		Signatures any `json:"signatures"`
	}
	return json.Unmarshal(manifest, &m) == nil && (m.Version == 1.0 || m.Layers != nil || m.Signatures != nil)
}

// namesTwice is true if an object in a document has two members that a reader of JSON takes for the same.
func namesTwice(document []byte) bool {
	d := json.NewDecoder(bytes.NewReader(document))
	var names func() bool
	names = func() (twice bool) {
		t, err := d.Token()
		if err != nil {
			return false
		}
		var seen []string
		for t != nil && (t == json.Delim('{') || t == json.Delim('[')) && d.More() {
			if t == json.Delim('{') {
				name, err := d.Token()
				if err != nil {
					return twice
				}
				twice = twice || slices.ContainsFunc(seen, func(s string) bool { return strings.EqualFold(s, name.(string)) })
				seen = append(seen, name.(string))
			}
			inner := names()
			twice = twice || inner
		}
		if t == json.Delim('{') || t == json.Delim('[') {
			_, _ = d.Token()
		}
		return twice
	}
	return names()
}

// compare says in a word what library and nodetrust made of a mutant, and whether that is wrong.
func (m *mutant) compare(p *policyFile, pulled []byte, library error, v verdict.Verdict, broken error) (outcome string,
	wrong bool,
) {
	var fell *panicked
	why, honest := "", false
	if library == nil {
		why, honest = m.honest(p, pulled)
	}
	switch {
	case broken != nil:
		return "nodetrust fell over: " + broken.Error(), true
	case errors.As(library, &fell):
		return "the library fell over, nodetrust: " + string(v.Answer), v.Answer == verdict.Accept
	case library == nil && !honest:
		return "the library pulls what nobody signed: " + why, true
	case v.Answer == verdict.Accept && library != nil:
		return "nodetrust accepts what can't be pulled", true
	case v.Answer == verdict.Accept && !slices.Contains(m.digests(pulled), v.Digest):
		return "nodetrust judged another manifest than was pulled", true
	case v.Answer == verdict.Accept:
		return "both accept", false
	case library == nil && v.Answer == verdict.Refuse && isSchema1(pulled) &&
		(v.Reason == verdict.ManifestForged || v.Reason == verdict.WeakOrUnsupported):
		return "of schema 1, which nodetrust refuses where a signature is demanded", false
	case library == nil && v.Answer == verdict.Refuse:
		return "nodetrust refuses what is honest and can be pulled: " + string(v.Reason), true
	case library == nil:
		// The pure-Go mechanism takes the first of several messages and what follows one, gpg does not, and no runtime
		// links the former. Of members that are there twice the second look wants every one to be in order.
		explained := v.Reason == verdict.Disagreement && mechanism.Name == "openpgp" ||
			v.Reason == verdict.ManifestUnreadable && namesTwice(pulled)
		return "honest, and nodetrust can't tell: " + string(v.Reason), !explained
	case v.Answer == verdict.Refuse:
		return "both refuse", false
	}
	return "not pulled, and nodetrust can't tell: " + string(v.Reason), false
}
