package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verify"
)

const (
	// marker shows that a hostile text came through; it stands before everything else in it.
	marker = "pwn3d"
	// hostileToken is what nobody may be told.
	hostileToken = "s3cr3t.token-0123456789"
	// tricks are what may not reach a terminal.
	tricks = marker + "\x1b]0;title\a\x1b[2J\x1b[1;1H \u202egnp\u2066 \u009b31m \x9b32m \x00\x7f\u2028\u200b \r\naccept all good\n"
	// credentials look like what registries echo.
	credentials = " Authorization: Bearer " + hostileToken + " https://user:" + hostileToken +
		"@registry.example/ token=" + hostileToken + " "
)

// hostileText is all of that, and 4 MiB more. It is no variable: the test binary is also the program of the scripts,
// which starts hundreds of times.
func hostileText() string { return tricks + credentials + strings.Repeat("[", 4<<20) }

// hostileWorld holds servers and files that are made to do harm.
type hostileWorld struct {
	fixture.Parts
	*testing.T
	dir        string
	registry   string // host
	kubeconfig string
}

func newHostileWorld(t *testing.T) *hostileWorld {
	w := &hostileWorld{Parts: fixture.Parts{TB: t}, T: t, dir: t.TempDir()}
	hostile := hostileText()
	text := quoted(hostile)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case strings.HasPrefix(r.URL.Path, "/v2/index/"): // no list is read out of it
			rw.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			_, _ = io.WriteString(rw, hostile)
		case strings.HasPrefix(r.URL.Path, "/v2/type/"):
			rw.Header().Set("Content-Type", "text/"+strings.ToValidUTF8(strings.Map(func(r rune) rune {
				if r < ' ' {
					return -1
				}
				return r
			}, tricks), ""))
			_, _ = io.WriteString(rw, "{}")
		case strings.HasPrefix(r.URL.Path, "/v2/denied/"):
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(403)
			fmt.Fprintf(rw, `{"errors":[{"code":"DENIED","message":%s}]}`, quoted(tricks+credentials))
		default:
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(404)
			fmt.Fprintf(rw, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":%s}]}`, text)
		}
	}))
	t.Cleanup(server.Close)
	w.registry = strings.TrimPrefix(server.URL, "http://")
	w.file("registries.conf", fixture.Insecure(w.registry))
	w.file("accept.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(500)
		fmt.Fprintf(rw, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":500,"reason":"InternalError","message":%s}`, text)
	}))
	t.Cleanup(api.Close)
	w.kubeconfig = (&apiServer{Server: api}).kubeconfig(t)
	return w
}

// file writes a file of the world and returns its path.
func (w *hostileWorld) file(name, content string) string {
	return w.Write(filepath.Join(w.dir, name), []byte(content))
}

// quoted is the text as a string of JSON and YAML.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// hostileRow are runs of a command with what it prints of others. One of them must say something of it.
type hostileRow struct {
	// formats are those of the first run.
	formats []string
	runs    [][]string
	// stdin of all runs.
	stdin string
	// nothing: the command is given nothing from outside but its arguments.
	nothing bool
}

var allFormats = []string{"text", "json", "yaml"}

func hostileRows(w *hostileWorld) map[string]hostileRow {
	image := func(repo string) string { return w.registry + "/" + repo + ":v1" }
	judging := []string{
		"--policy", filepath.Join(w.dir, "accept.json"), "--registries-conf",
		filepath.Join(w.dir, "registries.conf"), "--timeout", "20s",
	}
	judge := func(args ...string) []string { return append(args, judging...) }
	with := func(policy string, args ...string) []string {
		return append(args, "--policy", policy, "--registries-conf", filepath.Join(w.dir, "registries.conf"))
	}
	names := tricks + credentials + strings.Repeat("n", 256<<10)
	scopes := w.file("scopes.json", `{"default":[{"type":"reject"}],"transports":{"docker":{`+
		quoted("\x1b[2J"+marker+"\u202ex.example/a")+`:[{"type":"insecureAcceptAnything"}],`+
		quoted("x.example/"+strings.Repeat("a", 256<<10))+`:[{"type":"insecureAcceptAnything"}]}}}`)
	keyPath := w.file("keypath.json", `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":`+
		quoted("/"+names)+`}]}`)
	badType := w.file("type.json", `{"default":[{"type":`+quoted(names)+`}]}`)
	garbage := w.file("garbage.json", hostileText())
	trust := w.file("trust.yaml", `{apiVersion: nodetrust.io/v1alpha1, kind: TrustConfig, metadata: {name: `+quoted(names)+
		`}, spec: {pools: [`+quoted(tricks)+`], default: accept, `+
		quoted(marker+"\x1b\u202e")+`: 1, registries: [{scope: `+quoted(names)+`, require: accept, because: `+
		quoted(names)+`}]}}`)
	lookaside := w.file("lookaside/a.yaml", "default-docker:\n  lookaside: "+quoted("http://x.example/"+tricks)+"\n")
	scoped := w.file("scoped/a.yaml", "docker:\n  "+quoted(w.registry)+":\n    lookaside: "+quoted("http://"+tricks)+
		"\n  "+quoted(names)+":\n    lookaside: http://x.example\n")
	unknown := w.file("unknown/a.yaml", "default-docker:\n  "+quoted(names)+": 1\n")
	mirrors := w.file("mirrors.conf", fmt.Sprintf(
		"[[registry]]\nlocation=%q\ninsecure=true\n[[registry.mirror]]\nlocation=%s\n", w.registry,
		quoted("m\u202e"+marker+"/x")))
	named := w.file(marker+"\x1b[2J\u202ef.json", "{")
	list := w.file("list.txt", image("a/b")+" by="+strings.ReplaceAll(marker+"\x1b[2J\u202e", " ", "")+"\n"+
		image("index/b")+"\n"+image("denied/b")+"\n"+image("type/b")+"\n"+w.registry+"/\u202e"+marker+":v1\n")
	images := w.file("images.txt", strings.Join([]string{
		image("a/b"), image("index/b"), image("denied/b"),
		image("type/b"),
	}, "\n")+"\n")
	canaries := w.file("canaries.json", `[{"image":"`+w.registry+"/a/b@sha256:"+strings.Repeat("0", 64)+
		`","expect":"accept"}]`)

	key := w.Key(w.GPG(), "corp", fixture.KeyOptions{})
	corp := w.file("corp.asc", string(key.Armored))
	payload := fmt.Sprintf(`{"critical":{"type":"atomic container signature","image":{"docker-manifest-digest":"sha256:%064d"},"identity":{"docker-reference":%s}},"optional":{"creator":%s,"timestamp":1}}`,
		0, quoted("registry.example/a\u202e"+marker+":v1"), quoted(tricks+credentials))
	signature, err := key.SignBytes([]byte(payload))
	w.Must(err)
	sums, err := key.SignBytes([]byte(strings.Repeat("0", 64) + "  " + marker + "\x1b[2J\u202eoc.tar.gz\n" +
		strings.Repeat("0", 64) + "  " + strings.Repeat("a", 100_000) + "\n"))
	w.Must(err)
	cluster := newAPIServer(w.T)
	node := reportedNode("n1", "Ready", "Drifted", time.Now())
	for k := range node["metadata"].(map[string]any)["annotations"].(map[string]string) {
		if k != "nodetrust.io/state" && k != "nodetrust.io/checked-at" {
			node["metadata"].(map[string]any)["annotations"].(map[string]string)[k] = names
		}
	}
	cluster.nodes, cluster.pods = []map[string]any{node},
		[]map[string]any{agentPod("n1", "pool\x1b[2J\u202e", "1/1", time.Now().Add(-time.Hour))}
	rollouts := newRolloutLab(w.T)
	rollouts.set("status", map[string]any{"conditions": []any{map[string]any{
		"type": "Degraded", "status": "True",
		"reason": names, "message": names,
	}}})
	report := w.file("audit.json", `{"summary":{"images":1,"refuse":1,"complete":true,"policy":`+quoted(names)+
		`,"desired":`+quoted(names)+`,"lockout":[{"role":"cni","image":`+quoted(names)+
		`,"verdict":"refuse","reason":"NoSignature","message":`+quoted(names)+`}]},"images":[]}`)
	plain := w.file("plain.yaml", `{apiVersion: nodetrust.io/v1alpha1, kind: TrustConfig, metadata: {name: x}, spec: {pools: [worker], default: accept}}`)

	return map[string]hostileRow{
		"verify": {allFormats, [][]string{
			judge("verify", image("a/b")), judge("verify", image("denied/b")), judge("verify", image("index/b")),
			judge("verify", image("type/b")),
			with(keyPath, "verify", image("a/b")), with(badType, "verify", image("a/b")), with(garbage, "verify", image("a/b")),
			{"verify", "--config", trust, image("a/b")},
			judge("verify", "dir:/tmp/"+marker+"\x1b[2J\u202e"), judge("verify", "oci:"+named),
			judge("verify", image("a/b"), "--registries-d", filepath.Dir(scoped)),
		}, "", false},
		"explain": {allFormats, [][]string{
			judge("explain", image("a/b")), judge("explain", image("denied/b")), judge("explain", image("index/b")),
			judge("explain", image("type/b")),
			with(keyPath, "explain", "--offline", image("a/b")),
			judge("explain", "--offline", image("a/b"), "--registries-d", filepath.Dir(lookaside)),
			judge("explain", "--offline", image("a/b"), "--registries-d", filepath.Dir(scoped)),
			judge("explain", image("a/b"), "--registries-d", filepath.Dir(unknown)),
			{
				"explain", "--offline", image("a/b"), "--policy", filepath.Join(w.dir, "accept.json"),
				"--registries-conf", mirrors,
			},
		}, "", false},
		"audit": {append(allFormats, "html"), [][]string{
			judge("audit", "--no-cache", "--images-from", images), judge("audit", "--no-cache", "--images-from", list),
			with(keyPath, "audit", "--no-cache", "--images-from", images),
			judge("audit", "--no-cache", "--images-from", "cluster", "--kubeconfig", w.kubeconfig),
			with(badType, "audit", "--no-cache", "--images-from", images),
		}, "", false},
		"lint": {allFormats, [][]string{
			{"lint", scopes},
			{"lint", keyPath},
			{"lint", badType},
			{"lint", trust},
			{"lint", named},
			{"lint", filepath.Dir(lookaside)},
			{"lint", filepath.Dir(scoped)},
			{"lint", filepath.Dir(unknown)},
			{"lint", mirrors},
			{"lint", garbage},
		}, "", false},
		"diff": {allFormats, [][]string{
			{"diff", filepath.Join(w.dir, "accept.json"), scopes},
			{"diff", filepath.Join(w.dir, "accept.json"), keyPath, "--all"},
			{"diff", keyPath, scopes},
			{"diff", scopes, badType},
			{"diff", trust, scopes},
			{"diff", named, garbage},
			{"diff", "live", scopes, "--pool", tricks, "--kubeconfig", w.kubeconfig},
		}, "", false},
		"verify-signature": {allFormats, [][]string{
			{"verify-signature", "--key", corp, w.file("signature", string(signature))},
			{"verify-signature", "--key", corp, "--reference", "registry.example/b:v1", w.file("signature", string(signature))},
			{"verify-signature", "--key", garbage, named},
			{"verify-signature", "--key", corp, garbage},
		}, "", false},
		"verify-checksums": {allFormats, [][]string{
			{"verify-checksums", "--key", corp, w.file("sums.gpg", string(sums))}, {"verify-checksums", "--key", corp, garbage},
		}, "", false},
		"release verify": {allFormats, [][]string{
			{
				"release", "verify", "--key", corp, "--store", w.dir, "--registries-conf", filepath.Join(w.dir, "registries.conf"),
				"--timeout", "20s", image("a/b"),
			},
			{
				"release", "verify", "--key", corp, "--store", w.dir, "--registries-conf", filepath.Join(w.dir, "registries.conf"),
				"--timeout", "20s", image("denied/b"),
			},
			{"release", "verify", "--key", corp, "--signatures-from", "live", "--kubeconfig", w.kubeconfig, image("a/b")},
		}, "", false},
		"signatures bundle": {allFormats, [][]string{
			judge("signatures", "bundle", "--to", filepath.Join(w.dir, "bundle"), image("a/b")),
			judge("signatures", "bundle", "--to", filepath.Join(w.dir, "bundle"), image("index/b")),
			with(badType, "signatures", "bundle", "--to", filepath.Join(w.dir, "bundle"), image("a/b")),
		}, "", false},
		"status": {allFormats, [][]string{
			{"status", "--kubeconfig", cluster.kubeconfig(w.T)},
			{"status", "--kubeconfig", w.kubeconfig},
		}, "", false},
		"rollout status": {allFormats, [][]string{
			{"rollout", "status", "--kubeconfig", rollouts.kubeconfig(w.T)},
			{"rollout", "status", "--kubeconfig", w.kubeconfig},
			{"rollout", "status", "--config", trust, "--kubeconfig", w.kubeconfig},
		}, "", false},
		"probe": {allFormats, [][]string{
			judge("probe", "--runtime", "verify", "--canaries", canaries),
			with(badType, "probe", "--runtime", "verify", "--canaries", canaries),
			{"probe", "--canaries", garbage},
		}, "", false},
		"render": {[]string{""}, [][]string{
			{"render", "--to", "ignition", trust},
			{"render", "--to", "ignition", "--audit", report, plain},
			{"render", "--to", "machineconfig", "--cluster", "live", "--kubeconfig", w.kubeconfig, plain},
			{"render", "--to", "ignition", named},
		}, "", false},
		"init": {
			formats: allFormats,
			runs:    [][]string{{"init", "--preset", "redhat"}, {"init", "--preset", tricks}}, nothing: true,
		},
		"readers": {formats: allFormats, runs: [][]string{{"readers"}}, nothing: true},
		"version": {formats: allFormats, runs: [][]string{{"version"}}, nothing: true},
		"help": {
			formats: []string{""}, runs: [][]string{{"help"}, {"help", tricks}, {"help", "audit"}},
			nothing: true,
		},
		"completion bash":       {formats: []string{""}, nothing: true},
		"completion zsh":        {formats: []string{""}, nothing: true},
		"completion fish":       {formats: []string{""}, nothing: true},
		"completion powershell": {formats: []string{""}, nothing: true},
	}
}

// TestOutside feeds every command with what commands a terminal, turns text around, has no end, or must not be told:
// nothing of it gets to stdout or stderr.
func TestOutside(t *testing.T) {
	w := newHostileWorld(t)
	rows := hostileRows(w)
	hostile := hostileText()
	root := newRoot(verify.Env{})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range leaves(root) {
		_, name, _ := strings.Cut(c.CommandPath(), " ")
		row, ok := rows[name]
		if !ok {
			t.Errorf("no row feeds %s with hostile text", name)
			continue
		}
		delete(rows, name)
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			path := strings.Fields(name)
			for _, args := range [][]string{append(path, hostile), append(path, "--"+tricks), append(path, "-o", tricks)} {
				w.harmless(t, args, "")
			}
			said, answers := false, ""
			for i, args := range row.runs {
				formats := row.formats
				if i > 0 && len(formats) > 1 { // one of text and JSON in turn: all go the same way
					formats = allFormats[i%2 : i%2+1]
				}
				for _, format := range formats {
					formatted := args
					if format != "" {
						formatted = append(args[:len(args):len(args)], "-o", format)
					}
					tells, answer := w.harmless(t, formatted, row.stdin)
					said, answers = said || tells, answers+answer
				}
			}
			if !said && !row.nothing {
				t.Errorf("%s tells nothing of what it was fed with: the row tests nothing:\n%s", name, answers)
			}
		})
	}
	for name := range rows {
		t.Errorf("there is no command %s", name)
	}
}

// leaves are the commands that do something.
func leaves(c *cobra.Command) (out []*cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.HasSubCommands() {
			out = append(out, leaves(sub)...)
		} else {
			out = append(out, sub)
		}
	}
	return out
}

// harmless runs the program, and returns whether it said something of a hostile text, and what it said.
func (w *hostileWorld) harmless(t *testing.T, args []string, stdin string) (said bool, answer string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	command := fmt.Sprintf("%.300q", args)
	if code < 0 || code > cli.ExitUnknown {
		t.Errorf("%s: exit status %d", command, code)
	}
	for name, b := range map[string][]byte{"stdout": stdout.Bytes(), "stderr": stderr.Bytes()} {
		text := string(b)
		for line := range strings.SplitSeq(text, "\n") {
			if args[0] == "completion" {
				line = strings.ReplaceAll(line, "\t", "")
			}
			if !outside.IsPrintable(line) {
				t.Errorf("%s: on %s: %.300q", command, name, line)
				break
			}
		}
		if i := strings.Index(text, hostileToken); i >= 0 {
			t.Errorf("%s: %s tells a token: …%.200q", command, name, text[max(0, i-100):])
		}
		// Who reads values out of JSON or YAML, which are escaped there, may print them.
		var values any
		if strings.HasPrefix(text, "{") && json.Unmarshal(b, &values) == nil || args[len(args)-1] == "yaml" &&
			yaml.Unmarshal(b, &values) == nil {
			if clean := outside.Clean(values); !reflect.DeepEqual(clean, values) && args[0] != "init" {
				t.Errorf("%s: values of %s are not printable: %.2000q", command, name, values)
			}
		}
		if most := 256 << 10; len(b) > most {
			t.Errorf("%s: %d bytes on %s", command, len(b), name)
		}
		said = said || strings.Contains(text, marker)
	}
	return said, fmt.Sprintf("%.500q: status %d: %.1000q %.1000q\n", args, code, &stdout, &stderr)
}

// TestOutside_command: looking for the command that may have been meant takes no table of the argument's size.
func TestOutside_command(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := knownCommand(newRoot(verify.Env{}), []string{hostileText()}); err == nil {
		t.Error("the command is known")
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 128<<20 {
		t.Errorf("%d MiB for an argument of 4", took>>20)
	}
}

// TestOutside_completion has a cluster whose pools have names that a shell must not get.
func TestOutside_completion(t *testing.T) {
	cluster := newAPIServer(t)
	cluster.nodes = []map[string]any{reportedNode("n1", "Ready", "Enforced", time.Now())}
	cluster.pods = []map[string]any{agentPod("n1", "pool\x1b[2J\u202e", "1/1", time.Now())}
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{cobra.ShellCompRequestCmd, "status", "--kubeconfig", cluster.kubeconfig(t), "--pool", ""},
		strings.NewReader(""), &stdout, &stderr)
	if s := stdout.String(); !strings.Contains(s, "pool?[2J?") || strings.ContainsAny(s, "\x1b\u202e") {
		t.Errorf("stdout %q, stderr %q", s, &stderr)
	}
	stdout.Reset()
	run(t.Context(), []string{cobra.ShellCompRequestCmd, "readers", "-"}, strings.NewReader(""), &stdout, &stderr)
	if s := stdout.String(); !strings.Contains(s, "--output\toutput format") {
		t.Errorf("descriptions are behind tabs: %q", s)
	}
}

// TestOutside_exact: what is a file and no message arrives byte by byte.
func TestOutside_exact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trust.yaml")
	text := "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: x}\nspec: {pools: [worker], default: accept}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := nodetrustOutput(t, 0, "render", "--to", "bundle", path); !bytes.Contains(out, []byte("\t")) {
		t.Errorf("a host script without its tabs:\n%s", out)
	}
}
