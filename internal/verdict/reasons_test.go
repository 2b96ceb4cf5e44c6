package verdict

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

var update = flag.Bool("update", false, "write the tables of docs/reasons.md anew")

// TestReasons_page: the tables of docs/reasons.md are those of the source.
func TestReasons_page(t *testing.T) {
	const page = "../../docs/reasons.md"
	row := func(name, means, hint, next string) string {
		return fmt.Sprintf("| `%s` | %s | %s |", name, means, cmp.Or(next, hint))
	}
	for answer, heading := range map[Answer]string{Accept: "## Accept", Refuse: "## Refuse", Unknown: "## Unknown"} {
		const header = "| reason | what it means | next step |"
		fixture.Page(t, *update, page, heading, header, func([]string) []string {
			lines := []string{header, "|---|---|---|"}
			for _, r := range reasons {
				if r.answer == answer {
					lines = append(lines, row(string(r.reason), r.means, r.hint, r.next))
				}
			}
			return lines
		})
	}
	const header = "| cause | what it means | next step |"
	fixture.Page(t, *update, page, "### Causes of `NoSignature`", header, func([]string) []string {
		lines := []string{header, "|---|---|---|"}
		for _, c := range causes {
			lines = append(lines, row(string(c.cause), c.means, c.hint, c.next))
		}
		return lines
	})
}

// TestReasons: every reason and cause is there once, with words.
func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	check := func(name, means, next string) {
		if seen[name] || means == "" || next == "" {
			t.Errorf("%s is there twice, or lacks words", name)
		}
		seen[name] = true
	}
	for _, r := range reasons {
		check(string(r.reason), r.means, cmp.Or(r.next, r.reason.Hint()))
	}
	for _, c := range causes {
		check(string(c.cause), c.means, cmp.Or(c.next, c.cause.Hint("registry.example:5000")))
	}
	if got := AttachmentsOff.Hint("h:5000"); got !=
		"add to registries.d: docker: {h:5000: {use-sigstore-attachments: true}}" {
		t.Error(got)
	}
}

func TestWorst(t *testing.T) {
	for _, c := range []struct {
		answers []Answer
		want    int
	}{
		{nil, -1},
		{[]Answer{Accept, Accept}, 0},
		{[]Answer{Accept, Unknown, Unknown}, 1},
		{[]Answer{Unknown, Refuse, Accept, Refuse}, 1},
	} {
		if got := Worst(c.answers, func(a Answer) Answer { return a }); got != c.want {
			t.Errorf("%v: %d, want %d", c.answers, got, c.want)
		}
	}
	if all := []Answer{Unknown, Refuse, Accept}; !slices.Equal(slices.SortedFunc(slices.Values(all), Answer.Compare),
		[]Answer{Accept, Unknown, Refuse}) {
		t.Error("sorted otherwise")
	}
}
