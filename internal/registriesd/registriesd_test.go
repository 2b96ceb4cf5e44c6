package registriesd

import "testing"

func TestWithoutPassword(t *testing.T) {
	for _, fine := range []string{
		"https://sigs.example/a@b", "https://user@sigs.example/x", "file:///a:b@c",
		"https://sigs.example:1/x",
	} {
		if got := WithoutPassword(fine); got != fine {
			t.Errorf("%s is shown as %s", fine, got)
		}
	}
}
