package differential

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// The sample that runs with the other tests. NODETRUST_DIFFERENTIAL runs another number, and NODETRUST_SEED makes
// other ones; NODETRUST_CASE runs one alone.
const (
	sampleCases = 60
	sampleSeed  = 1
)

func TestDifferential(t *testing.T) {
	if reason := lab.Unfit(); reason != "" {
		if os.Getenv("NODETRUST_E2E") == "all" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	w, l := start(t)
	seed, first, n := uint64(number(t, "NODETRUST_SEED", sampleSeed)), 0, number(t, "NODETRUST_DIFFERENTIAL", sampleCases)
	if one := number(t, "NODETRUST_CASE", -1); one >= 0 {
		first, n = one, one+1
	}
	tmp := t.TempDir()
	count := map[string]int{}
	begin := time.Now()
	for i := first; i < n; i++ {
		c, err := w.Make(seed, i)
		must(t, err)
		must(t, w.set(c))
		a, err := w.ask(l.Programs.Nodetrust, c, tmp)
		must(t, err)
		count[string(a.Verify.Answer)]++
		if testing.Verbose() && first+1 == n {
			t.Logf("%s\n%s", c, a)
		}
		for _, d := range a.Differences() {
			if k := explain(c, a, d); k != "" {
				count["known: "+k]++
				continue
			}
			count["unexplained"]++
			t.Errorf("seed %d, %s\n  %s\n%s", seed, c, d, a)
		}
	}
	t.Logf("%d cases of seed %d in %s: %v", n-first, seed, time.Since(begin).Round(time.Second), count)
	if n-first >= sampleCases && (count["accept"] < (n-first)/10 || count["refuse"] < (n-first)/10 ||
		count["unknown"] < (n-first)/20) {
		t.Error("too few of an answer: the cases compare little")
	}
	leaves(t, tmp)
}

// leaves fails if anything of all the verifications is still there.
func leaves(t *testing.T, tmp string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	must(t, err)
	for _, f := range left {
		t.Errorf("nodetrust left %s", f)
	}
	for _, p := range processesOf(t, tmp) {
		t.Errorf("nodetrust left %q", p)
	}
}

// start makes the world with CRI-O running.
func start(t *testing.T) (*world, *lab.Lab) {
	t.Helper()
	gpg, err := fixture.NewGPG()
	must(t, err)
	t.Cleanup(gpg.Close)
	l, err := lab.New(context.Background())
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	w, err := newWorld(l, gpg, l.Dir)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			log := w.node.CRIOLog()
			t.Logf("CRI-O said at the end:\n%s", log[max(0, len(log)-2000):])
		}
		must(t, w.close())
	})
	must(t, os.WriteFile(w.node.Path("etc/containers/policy.json"), []byte(`{"default":[{"type":"reject"}]}`), 0o644))
	must(t, w.node.StartCRIO(""))
	return w, l
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%s: %v", name, s, err)
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestKnownDifferencesAreInTheDocs: each has a heading of its own.
func TestKnownDifferencesAreInTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/differences.md")
	must(t, err)
	for _, k := range known {
		if !strings.Contains(string(page), fmt.Sprintf("## %s\n", k.name)) {
			t.Errorf("docs/differences.md has no heading %q", k.name)
		}
	}
	if n := strings.Count(string(page), "\n## "); n != len(known) {
		t.Errorf("docs/differences.md has %d headings for %d differences", n, len(known))
	}
}
