package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestFill(t *testing.T) {
	const text = "One two three\nfour five.\n\n  files          a tree below a directory\n  short\n\nVery-long-word-that-fits-nowhere x"
	const want = "One two three four\nfive.\n\n  files          a\n                 tree\n                 below\n                 a\n                 directory\n  short\n\n" +
		"Very-long-word-that-fits-nowhere\nx"
	if got := fill(text, 20); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFit(t *testing.T) {
	picture := []byte("NODE\n1\n2\n3\n4\n5\n\npool p: 5\n")
	got := string(fit(picture, 80, 7))
	if strings.Count(got, "\n") > 6 || !strings.Contains(got, "more\n\npool p: 5\n") ||
		!strings.HasPrefix(got, "NODE\n1\n") {
		t.Errorf("%q", got)
	}
	if got := fit(picture, 80, 20); !bytes.Equal(got, picture) {
		t.Errorf("what fits is changed: %q", got)
	}
	// A line that is too long for the terminal takes two of its lines, colours none.
	long := []byte("NODE\n1\n2\n3\n4\n5\n\npool p: 1 of 5 enforced (1 \x1b[32mEnforced\x1b[0m, 4 \x1b[31mDrifted\x1b[0m)\n")
	if got := fit(long, 47, 9); !bytes.Equal(got, long) {
		t.Errorf("what fits is changed: %q", got)
	}
	if got, want := string(fit(long, 46, 9)), "NODE\n1\n2\n3\n… 2 more\n\npool p:"; !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q…", got, want)
	}
	if got := fit([]byte("12345678\n1234\nlast\n"), 4, 4); string(got) != "12345678\n1234\n" {
		t.Errorf("without a table: %q", got)
	}
}
