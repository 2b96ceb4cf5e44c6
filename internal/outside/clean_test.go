package outside

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Text string
	own  string
}

type report struct {
	inner
	Named   named1
	Any     any
	Pointer *inner
	List    []inner
	Map     map[string][]string
	Array   [1]string
	Bytes   []byte
	When    time.Time
	Nil     *inner
	NilList []string
}

type named1 string

func TestClean(t *testing.T) {
	const raw, want = "a\x1b\u202eb", "a??b"
	build := func(s string) report {
		return report{
			inner: inner{Text: s, own: raw}, Named: named1(s), Any: []any{s, 1}, Pointer: &inner{Text: s},
			List: []inner{{Text: "x"}, {Text: s}},
			Map:  map[string][]string{s: {s}}, Array: [1]string{s}, Bytes: []byte(raw), When: time.Unix(1, 2),
		}
	}
	in := build(raw)
	if got := Clean(in); !reflect.DeepEqual(got, build(want)) {
		t.Errorf("got %+v", got)
	}
	if !reflect.DeepEqual(in, build(raw)) {
		t.Errorf("what was given has changed: %+v", in)
	}
	if p := Clean(&in); p == &in || p.Text != want {
		t.Errorf("a pointer: %+v", p)
	}
	fine := build("fine")
	if got := Clean(&fine); got != &fine {
		t.Error("what needs no change was copied")
	}
	if got := Clean(any(map[string]any{"a": raw})); !reflect.DeepEqual(got, any(map[string]any{"a": want})) {
		t.Errorf("an interface: %v", got)
	}
	if got := Clean[any](nil); got != nil {
		t.Errorf("nothing: %v", got)
	}
	if got := Clean(strings.Repeat("a", 4<<20)); len(got) != MostName {
		t.Errorf("a long text: %d bytes", len(got))
	}
}
