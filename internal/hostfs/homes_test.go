package hostfs

import (
	"slices"
	"testing"
)

func TestHomes(t *testing.T) {
	for _, tt := range []struct {
		name, passwd string
		want         []string
	}{
		{"no passwd", "", []string{"/root"}},
		{"usual", "root:x:0:0:root:/root:/bin/sh\nuser:x:1:1::/home/user:/bin/sh\n", []string{"/root"}},
		{"elsewhere", "root:x:0:0:root:/home/admin:/bin/sh\n", []string{"/home/admin", "/root"}},
		{"two accounts", "root:x:0:0::/root:\ntoor:x:0:0::/home/toor:\n", []string{"/root", "/home/toor"}},
		{"no home", "root:x:0:0::/:\n", []string{"/root"}},
	} {
		if got, more := Homes(tt.passwd); !slices.Equal(got, tt.want) || more {
			t.Errorf("%s: got %q, more %v, want %q", tt.name, got, more, tt.want)
		}
	}
}
