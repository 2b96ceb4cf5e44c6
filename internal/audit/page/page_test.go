package page_test

import (
	"bytes"
	"flag"
	"fmt"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/audit/page"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

var keep = flag.String("keep", "", "write the page of the tests to this file, to look at it")

const hostile = `evil.example/<script>alert(1)</script>"'` + "`" + `--></td>&amp;{{.}}` + "\u202egnp.exe"

// report is an audit of n images; some are what nobody wants.
func report(n int) *audit.Report {
	r := &audit.Report{Summary: audit.Summary{
		Images: n, Uses: 3 * n, Complete: false, Problems: []string{"listing images of cluster: <b>connection refused</b>"},
		Policy: "trust.yaml", Desired: "sha256:0123", Mechanism: "gpgme", CheckedAt: time.Unix(1_800_000_000, 0),
	}}
	registries := map[string]*audit.Registry{}
	reasons := map[audit.Reason]int{}
	add := func(m audit.Image) {
		host, _, _ := strings.Cut(m.Image, "/")
		reg := registries[host]
		if reg == nil {
			reg = &audit.Registry{Registry: host}
			registries[host] = reg
		}
		switch m.Answer {
		case verdict.Accept:
			r.Summary.Accept++
			reg.Accept++
		case verdict.Refuse:
			r.Summary.Refuse++
			reg.Refuse++
		default:
			r.Summary.Unknown++
			reg.Unknown++
		}
		reasons[audit.Reason{Answer: m.Answer, Reason: m.Reason}]++
		m.Digest = fmt.Sprintf("sha256:%064x", len(r.Images))
		r.Images = append(r.Images, m)
	}
	v := func(image string, a verdict.Answer, why verdict.Reason, message string) audit.Image {
		return audit.Image{Verdict: verdict.Verdict{
			Image:   image,
			Outcome: verdict.Outcome{Answer: a, Reason: why, Message: message},
		}}
	}
	bad := v(hostile, verdict.Refuse, verdict.NoSignature, "no signature at https://x/?a=1&b=<i>")
	bad.UsedBy, bad.Role, bad.Fix = []string{`ns/pod/<img src="http://tracker.example/x.png">@n1`}, audit.Pause,
		"refuse:NoSignature:lookaside:evil"
	bad.InUse = []string{"sha256:" + strings.Repeat("ab", 32)}
	add(bad)
	moved := v("quay.io/corp/app:v1", verdict.Refuse, verdict.WrongKey, "signed by key AAAA")
	moved.UsedBy, moved.Fix = []string{
		"a/deployment/x@n1", "a/deployment/x@n2", "a/deployment/x@n3", "a/deployment/x@n4",
		"a/deployment/x@n5", "b/c/d@n1",
	}, "refuse:WrongKey:key:AAAA"
	add(moved)
	for i := len(r.Images); i < n; i++ {
		m := v(fmt.Sprintf("registry%d.example/team/app%03d:v1", i%7, i), verdict.Accept, "", "signed by 0123")
		switch {
		case i%5 == 0:
			m = v(m.Image, verdict.Unknown, verdict.RegistryUnreachable, "connection refused")
			m.Fix = "unknown:RegistryUnreachable"
		case i%11 == 0:
			m.Reason = verdict.TrustedByRelease
		}
		m.UsedBy = []string{fmt.Sprintf("ns%d/deployment/app@node%d", i, i%3)}
		add(m)
	}
	r.Summary.Lockout = []audit.Lockout{
		{
			Role: audit.Pause, Image: hostile, Outcome: verdict.Outcome{
				Answer: verdict.Refuse, Reason: verdict.NoSignature,
				Message: "no signature at <there>",
			},
		},
		{
			Role: audit.Agent, Image: "registry.corp/nodetrust-agent:v1",
			Outcome: verdict.Outcome{Answer: verdict.Unknown, Reason: verdict.Timeout, Message: "no answer"},
		},
	}
	r.Summary.Fixes = []audit.Fix{
		{
			ID: "refuse:NoSignature:lookaside:evil", Answer: verdict.Refuse, Reason: verdict.NoSignature,
			Title: "1 image needs a lookaside for <evil>", Hint: "check", Images: 1,
		},
		{
			ID: "refuse:WrongKey:key:AAAA", Answer: verdict.Refuse, Reason: verdict.WrongKey,
			Title: "1 image is signed by key AAAA, which is none of scope quay.io", Images: 1,
		},
		{
			ID: "unknown:RegistryUnreachable", Answer: verdict.Unknown, Reason: verdict.RegistryUnreachable,
			Title: "some images need an answer", Images: 5,
		},
	}
	for _, reg := range registries {
		r.Summary.Registries = append(r.Summary.Registries, *reg)
	}
	slices.SortFunc(r.Summary.Registries, func(a, b audit.Registry) int { return strings.Compare(a.Registry, b.Registry) })
	for q, n := range reasons {
		q.Images = n
		r.Summary.Reasons = append(r.Summary.Reasons, q)
	}
	slices.SortFunc(r.Summary.Reasons, func(a, b audit.Reason) int {
		return strings.Compare(string(a.Reason),
			string(b.Reason))
	})
	return r
}

func write(t *testing.T, r *audit.Report) (html, file string) {
	t.Helper()
	var b bytes.Buffer
	if err := page.Write(&b, r); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "audit.html")
	if *keep != "" {
		file = *keep
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return b.String(), file
}

// TestWrite_selfContained: the page loads nothing, and names from outside are text on it.
func TestWrite_selfContained(t *testing.T) {
	html, _ := write(t, report(30))
	tags := regexp.MustCompile(`<[a-zA-Z!/][^>]*>`).FindAllString(html, -1)
	if len(tags) < 100 {
		t.Fatalf("only %d tags: this test looks at the wrong thing", len(tags))
	}
	loads := regexp.MustCompile(`(?i)\s(src|srcset|data|poster|action|formaction|background|style|on[a-z]+)\s*=|<(img|link|iframe|object|embed|base|image|use|video|audio|source)\b`)
	href := regexp.MustCompile(`(?i)href\s*=\s*"([^"]*)"`)
	for _, tag := range tags {
		if loads.MatchString(tag) {
			t.Errorf("%s loads something, or is a handler or style of its own", tag)
		}
		for _, m := range href.FindAllStringSubmatch(tag, -1) {
			if !strings.HasPrefix(m[1], "#") {
				t.Errorf("%s leads out of the page", tag)
			}
		}
	}
	// Without JavaScript all rows are there, and no controls.
	if n := strings.Count(html, "<tr data-verdict="); n != 30 || !strings.Contains(html, `<form id="controls" hidden>`) {
		t.Errorf("%d rows without JavaScript", n)
	}
	if n := strings.Count(html, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	if !strings.Contains(html, `content="default-src &#39;none&#39;; style-src &#39;sha256-`) {
		t.Error("no policy that keeps the browser from loading")
	}
	for _, css := range []string{"@import", "url("} {
		if strings.Contains(html, css) {
			t.Errorf("the style has %s", css)
		}
	}
	for _, want := range []string{
		"prefers-color-scheme: dark", "<svg", "Lockout", "Incomplete", "TrustedByRelease",
		"the tag was moved since",
	} {
		if !strings.Contains(html, want) {
			t.Errorf("no %q on the page", want)
		}
	}
}

func TestWrite_empty(t *testing.T) {
	html, _ := write(t, &audit.Report{Summary: audit.Summary{Complete: true}})
	if strings.Contains(html, "Incomplete") || strings.Contains(html, "Lockout") || strings.Contains(html, "What to do") {
		t.Error("says of nothing what it has of something")
	}
}

// TestWrite_browser asks a real browser for what is left of the page after its script ran.
func TestWrite_browser(t *testing.T) {
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		t.Skip("no chromium here: install it to try the page in a browser")
	}
	_, file := write(t, report(30))
	ask := func(hash string, more ...string) string {
		t.Helper()
		dir := t.TempDir()
		args := []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
			"--disable-background-networking", "--disable-component-update", "--user-data-dir=" + dir,
			"--virtual-time-budget=2000",
		}
		cmd := exec.Command(browser, append(append(args, more...), "file://"+file+hash)...)
		cmd.Env = append(os.Environ(), "HOME="+dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, &stderr)
		}
		if strings.Contains(stderr.String(), "Content Security Policy") {
			t.Errorf("the page breaks its own policy: %s", &stderr)
		}
		return string(out)
	}
	dom := func(hash string) string { t.Helper(); return ask(hash, "--dump-dom") }
	row := regexp.MustCompile(`(?s)<tr data-verdict="[a-z]+"([^>]*)>.*?<bdi class="ref name">(.*?)</bdi>`)
	visible := func(dom string) (names []string) {
		for _, m := range row.FindAllStringSubmatch(dom, -1) {
			if !strings.Contains(m[1], "hidden") {
				names = append(names, m[2])
			}
		}
		return names
	}

	all := visible(dom(""))
	if len(all) != 30 || !strings.Contains(all[0], "&lt;script&gt;") {
		t.Fatalf("%d rows: %q", len(all), all)
	}
	if got := visible(dom("#q=app012")); len(got) != 1 || got[0] != "registry5.example/team/app012:v1" {
		t.Errorf("search: %q", got)
	}
	if got := visible(dom("#q=fix:refuse:WrongKey:key:AAAA")); len(got) != 1 || got[0] != "quay.io/corp/app:v1" {
		t.Errorf("search of a fix: %q", got)
	}
	got := visible(dom("#verdict=unknown&sort=image&dir=desc"))
	want := slices.Clone(got)
	slices.Sort(want)
	slices.Reverse(want)
	if len(got) != 5 || !slices.Equal(got, want) {
		t.Errorf("unknown only, by image, descending: %q", got)
	}
	if got := visible(dom("#sort=uses&dir=desc")); len(got) != 30 || got[0] != "quay.io/corp/app:v1" {
		t.Errorf("sorted by use: %q", got)
	}

	// Light and dark, as the reader's system has it: the background is that of the corner.
	for scheme, blink := range map[string]string{"dark": "0", "light": "1"} {
		shot := filepath.Join(t.TempDir(), scheme+".png")
		ask("", "--blink-settings=preferredColorScheme="+blink, "--window-size=800,600", "--screenshot="+shot)
		f, err := os.Open(shot)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		img, err := png.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		if y := color.GrayModel.Convert(img.At(1, 1)).(color.Gray).Y; scheme == "dark" && y > 64 ||
			scheme == "light" && y < 192 {
			t.Errorf("%s: the background has a brightness of %d of 255", scheme, y)
		}
	}
}
