package outside

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"ASCII", "reading manifest v1: not there", "reading manifest v1: not there"},
		{"letters of all kinds", "prüfe 画像 …", "prüfe 画像 …"},
		{"ESC", "a\x1b[2Jb", "a?[2Jb"},
		{"BEL and NUL", "a\a\x00b", "a??b"},
		{"C1 as a character", "a\u009b31mb", "a?31mb"},
		{"C1 as a byte", "a\x9b31mb", "a?31mb"},
		{"NEL", "a\u0085b", "a?b"},
		{"text direction", "fine\u202egnp\u2066x\u200f", "fine?gnp?x?"},
		{"zero width", "a\u200bb\ufeffc", "a?b?c"},
		{"line separators", "a\u2028b\u2029c", "a?b?c"},
		{"newline tricks", "a\r\naccept\n\tb\v\f", "a  accept  b  "},
		{"no-break space", "a\u00a0b", "a b"},
		{"broken UTF-8", "a\xff\xe2\x82b", "a???b"},
		{"tags", "a\U000e0041b", "a?b"},
		{"private use", "a\ue000b", "a?b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Printable(tc.in); got != tc.want || IsPrintable(tc.in) != (got == tc.in) {
				t.Errorf("%q: got %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

func TestText_bounded(t *testing.T) {
	for _, unit := range []string{"[", "é", "\x1b", "画", "Bearer abcdef0123456789 ", "\n"} {
		got := Text(strings.Repeat(unit, 4<<20/len(unit)))
		if len(got) > Most || len(got) < Most-len(ellipsis)-utf8.UTFMax && unit != "\n" &&
			!strings.HasPrefix(unit, "Bearer") || !utf8.ValidString(got) {
			t.Errorf("4 MiB of %q: %d bytes: %q", unit, len(got), got)
		}
		if !strings.HasSuffix(got, ellipsis) {
			t.Errorf("4 MiB of %q doesn't say that it was cut: %q", unit, got)
		}
	}
	if got := Text(strings.Repeat("a", Most)); len(got) != Most || strings.HasSuffix(got, ellipsis) {
		t.Errorf("a text that fits was cut: %q", got)
	}
}

func TestRedact(t *testing.T) {
	const secret = "s3cr3tvalue0123456789"
	for _, tc := range []struct{ name, in, want string }{
		{"bearer", "denied: Authorization: Bearer " + secret, "denied: Authorization: Bearer [redacted]"},
		{"bearer, lower case", "bearer " + secret + " is over", "bearer [redacted] is over"},
		{"bearer token", "Bearer token " + secret, "Bearer token [redacted]"},
		{"bearer, in JSON", `{"Authorization":"Bearer ` + secret + `"}`, `{"Authorization":"Bearer [redacted]"}`},
		{"bearer without a digit", "Bearer SECRET-TOKEN", "Bearer [redacted]"},
		{"basic", "Basic dXNlcjpodW50ZXIy refused", "Basic [redacted] refused"},
		{"JWT", "got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln, want none", "got [redacted], want none"},
		{"userinfo", "Get https://user:hunter2@sigs.example/x: no", "Get https://[redacted]@sigs.example/x: no"},
		{"userinfo with @", "https://user:hun@ter2@sigs.example/x", "https://[redacted]@sigs.example/x"},
		{"user alone", "https://ghp_tokentoken@sigs.example/x", "https://[redacted]@sigs.example/x"},
		{
			"query", "https://cdn.example/b?x=1&X-Amz-Signature=" + secret + "&y=2",
			"https://cdn.example/b?x=1&X-Amz-Signature=[redacted]&y=2",
		},
		{"SAS", "https://blob.example/b?sv=2&sig=" + secret, "https://blob.example/b?sv=2&sig=[redacted]"},
		{"token=", "token=" + secret + "; x", "token=[redacted]; x"},
		{"JSON field", `{"access_token": "` + secret + `", "a": 1}`, `{"access_token": "[redacted]", "a": 1}`},
		{"password:", "password: hunter2", "password: [redacted]"},
		{"authorization", "authorization: " + secret, "authorization: [redacted]"},

		{
			"challenge", `Bearer realm="https://auth.example/token",service="x"`,
			`Bearer realm="https://auth.example/token",service="x"`,
		},
		{
			"words", "Bearer authentication required; Basic authentication is off",
			"Bearer authentication required; Basic authentication is off",
		},
		{"sentence", "invalid token: expired", "invalid token: expired"},
		{
			"digest", "docker://busybox@sha256:" + strings.Repeat("0a", 32),
			"docker://busybox@sha256:" + strings.Repeat("0a", 32),
		},
		{"masked", "https://user:xxxxx@sigs.example", "https://user:xxxxx@sigs.example"},
		{
			"token endpoint", "https://auth.example/token?scope=repository:a/b:pull&service=x",
			"https://auth.example/token?scope=repository:a/b:pull&service=x",
		},
		{
			"signature file", "reading signature: https://sigs.example/a/b@sha256=00/signature-1",
			"reading signature: https://sigs.example/a/b@sha256=00/signature-1",
		},
		{"images", "quay.io/corp/token:v1, corp/secret:2026-01-01.abcdef0, token:v1, corp/bearer:v1.2, x.example/my-password:latest", "quay.io/corp/token:v1, corp/secret:2026-01-01.abcdef0, token:v1, corp/bearer:v1.2, x.example/my-password:latest"},
		{"address in a query", "https://x.example?user=a@b.example", "https://x.example?user=a@b.example"},
		{
			"fingerprint", "signed by key 567E347AD0044ADE55BA8A5F199E2F91FD431D51",
			"signed by key 567E347AD0044ADE55BA8A5F199E2F91FD431D51",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := (Secrets{}).Redact(tc.in); got != tc.want {
				t.Errorf("%q: got %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

func TestSecrets_known(t *testing.T) {
	s := NewSecrets()
	s.AddAuthorization("Bearer opaque/token+value")
	s.AddAuthorization("Basic dXNlcjpodW50ZXIy") // user:hunter2
	s.Add("ab")
	for in, want := range map[string]string{
		"you sent opaque/token+value, sir":       "you sent [redacted], sir",
		"you sent opaque%2Ftoken%2Bvalue":        "you sent [redacted]",
		"you sent dXNlcjpodW50ZXIy":              "you sent [redacted]",
		"hunter2 is no good password for user":   "[redacted] is no good password for user",
		"xhunter2x and hunter22 are other words": "xhunter2x and hunter22 are other words",
		"ab is too short to be one":              "ab is too short to be one",
	} {
		if got := s.Text(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := s.Text(strings.Repeat("x", Most-10) + "opaque/token+value"); strings.Contains(got, "opaque") {
		t.Errorf("the head of a secret at the bound is told: %q", got)
	}
}

func TestWriter(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		own            []string
	}{
		{name: "lines", in: "a\nb\n", want: "a\nb\n"},
		{name: "tab and return", in: "a\tb\rc\n", want: "a b c\n"},
		{
			name: "own", in: "\x1b[32mok\x1b[0m\x1b[K\n", own: []string{"\x1b[32m", "\x1b[0m", "\x1b[K"},
			want: "\x1b[32mok\x1b[0m\x1b[K\n",
		},
		{name: "not own", in: "\x1b[32mok\x1b[2J", own: []string{"\x1b[32m"}, want: "\x1b[32mok?[2J"},
		{name: "own, cut", in: "\x1b[32", own: []string{"\x1b[32m"}, want: "?[32"},
		{name: "characters", in: "画\u202eé\n", want: "画?é\n"},
		{name: "broken", in: "a\xe2\x82", want: "a??"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var whole, single bytes.Buffer
			w := NewWriter(&whole, tc.own...)
			if n, err := w.Write([]byte(tc.in)); n != len(tc.in) || err != nil {
				t.Errorf("%d bytes written, %v", n, err)
			}
			one := NewWriter(&single, tc.own...)
			for i := range len(tc.in) {
				if _, err := one.Write([]byte{tc.in[i]}); err != nil {
					t.Fatal(err)
				}
			}
			for _, w := range []*Writer{w, one} {
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if whole.String() != tc.want || single.String() != tc.want {
				t.Errorf("%q: got %q, and %q byte by byte, want %q", tc.in, whole.String(), single.String(), tc.want)
			}
		})
	}
	if _, err := NewWriter(iotest.TruncateWriter(failing{}, 0)).Write([]byte("a")); err != nil {
		t.Error(err)
	}
	if _, err := NewWriter(failing{}).Write([]byte("\x1b")); err == nil {
		t.Error("an error of the writer behind is lost")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, iotest.ErrTimeout }

func FuzzText(f *testing.F) {
	for _, s := range []string{"\x1b]0;x\a", "https://u:p@h", "Bearer \u202e", "\xe2\x82", "token=\"", "eyJhbGciOi.a.b"} {
		f.Add(s, 17)
	}
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = max(most, len(ellipsis))
		got := Bounded(s, most)
		switch {
		case len(got) > most:
			t.Errorf("%q: %d bytes of at most %d", s, len(got), most)
		case !IsPrintable(got) || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl):
			t.Errorf("%q is not printable: %q", s, got)
		case (Secrets{}).Redact(got) != got && len(got) < most:
			t.Errorf("%q: redacted twice is something else: %q, %q", s, got, Secrets{}.Redact(got))
		}
		var b bytes.Buffer
		w := NewWriter(&b)
		_, _ = w.Write([]byte(s[:len(s)/2]))
		_, _ = w.Write([]byte(s[len(s)/2:]))
		_ = w.Flush()
		if lines := strings.ReplaceAll(b.String(), "\n", ""); !IsPrintable(lines) {
			t.Errorf("%q passes the writer as %q", s, b.String())
		}
	})
}
