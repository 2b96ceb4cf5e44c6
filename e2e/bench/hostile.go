package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// Limits of DESIGN for one evaluation, whatever a server sends.
const (
	hostileTimeout = 5 * time.Second
	hostileMost    = hostileTimeout + 2*time.Second
	hostileMemory  = 128 << 20
	hostileImages  = 200
)

// hostile are servers that send too much, or too little, or nothing.
func (b *bench) hostile(ctx context.Context, w *bytes.Buffer) error {
	h, err := b.newHostileWorld()
	if err != nil {
		return err
	}
	defer h.close()
	fmt.Fprintf(w, "## Hostile servers\n\nWhat a registry or a lookaside sends, and what it costs: the most memory that was resident (program file and gpg included), and the time until the command ended, with `--timeout %s`. "+
		"No answer may be accept. Limits: %d MiB and %s.\n\n|", hostileTimeout, hostileMemory>>20, hostileMost)
	commands := h.commands()
	for _, c := range commands {
		fmt.Fprintf(w, " | `%s`", c.name)
	}
	fmt.Fprintf(w, " |\n|---%s|\n", strings.Repeat("|---", len(commands)))
	worst, over := hostileUsage{}, 0
	for _, f := range h.faults() {
		fmt.Fprintf(w, "| %s", f.name)
		for _, c := range commands {
			if f.only != "" && f.only != c.name {
				fmt.Fprint(w, " | –")
				continue
			}
			u, err := h.run(ctx, f, c)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", f.name, c.name, err)
			}
			b.progress("hostile: %s, %s: %d MiB, %.1f s", f.name, c.name, u.peak>>20, u.wall.Seconds())
			worst = hostileUsage{wall: max(worst.wall, u.wall), peak: max(worst.peak, u.peak)}
			mark := ""
			if u.wall > hostileMost || u.peak > hostileMemory {
				over, mark = over+1, " **over**"
			}
			fmt.Fprintf(w, " | %d MiB, %.1f s%s", u.peak>>20, u.wall.Seconds(), mark)
		}
		fmt.Fprintln(w, " |")
	}
	fmt.Fprintf(w, "\nWorst: %d MiB, %.1f s; %d of all above a limit (goal 0).\n\n", worst.peak>>20,
		worst.wall.Seconds(), over)
	return nil
}

// flood is audits of many such images at once: of each there is as much to read.
func (b *bench) flood(ctx context.Context, w *bytes.Buffer) error {
	h, err := b.newHostileWorld()
	if err != nil {
		return err
	}
	defer h.close()
	fmt.Fprintf(w, "### Many images of a hostile registry\n\n`nodetrust audit` of %d images. Of those that take more than a MiB one is judged at a time.\n\n| | memory | time | report |\n|---|---|---|---|\n", hostileImages)
	var list strings.Builder
	for i := range hostileImages {
		fmt.Fprintf(&list, "%s/team/app%d:v1\n", h.Registry.Host, i)
	}
	if err := os.WriteFile(h.path("many"), []byte(list.String()), 0o644); err != nil {
		return err
	}
	for _, f := range h.faults() {
		if !f.many {
			continue
		}
		for _, o := range []string{"json", "html"} {
			c := hostileCommand{"audit", append(h.judging("audit", "--no-cache", "--images-from", h.path("many")), "-o", o)}
			u, err := h.run(ctx, f, c)
			if err != nil {
				return fmt.Errorf("%s, many: %w", f.name, err)
			}
			b.progress("flood: %s, %s: %d MiB, %.1f s", f.name, o, u.peak>>20, u.wall.Seconds())
			fmt.Fprintf(w, "| %s, `-o %s` | %d MiB | %.1f s | %.1f KiB |\n", f.name, o, u.peak>>20, u.wall.Seconds(),
				float64(u.out)/1024)
		}
	}
	fmt.Fprintln(w)
	return nil
}

// hostileWorld is a registry and a lookaside of their own, whose answers are replaced.
type hostileWorld struct {
	bin, dir string
	*lab.Store
	silent net.Listener // accepts connections, and says nothing
	digest string
}

type hostileFault struct {
	name                string
	registry, lookaside http.HandlerFunc
	silent, many        bool
	only                string // the command that asks for such a thing; "" for all
}

type hostileCommand struct {
	name string
	argv []string
}

type hostileUsage struct {
	wall time.Duration
	peak int64
	out  int
}

func (h *hostileWorld) path(name string) string { return filepath.Join(h.dir, name) }

func (h *hostileWorld) close() {
	h.Store.Close()
	_ = h.silent.Close()
}

func (b *bench) newHostileWorld() (h *hostileWorld, err error) {
	h = &hostileWorld{bin: filepath.Join(b.bin, "nodetrust"), dir: filepath.Join(b.dir, "hostile")}
	if h.Store, err = lab.NewStore(h.path("lookaside")); err != nil {
		return nil, err
	}
	if h.silent, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go func() {
		var kept []net.Conn
		for {
			c, err := h.silent.Accept()
			if err != nil {
				break
			}
			kept = append(kept, c)
		}
		for _, c := range kept {
			_ = c.Close()
		}
	}()
	key, err := b.gpg.NewKey("hostile signer", fixture.KeyOptions{})
	if err != nil {
		return nil, err
	}
	if h.digest, err = h.Registry.Push("team/app", "v1", "hostile"); err != nil {
		return nil, err
	}
	sig, err := key.Sign(h.digest, h.Registry.Host+"/team/app:v1")
	if err != nil {
		return nil, err
	}
	if err := h.Lookaside.Put("team/app", h.digest, 1, sig); err != nil {
		return nil, err
	}
	if err := h.putInStore(sig); err != nil {
		return nil, err
	}
	policy, err := json.Marshal(map[string]any{"default": []any{map[string]any{
		"type": "signedBy", "keyType": "GPGKeys",
		"keyData": key.Binary,
	}}})
	if err != nil {
		return nil, err
	}
	silent := h.silent.Addr().String()
	canaries := func(host string) string {
		return fmt.Sprintf(`[{"image":"%s/team/app@%s","expect":"accept"}]`, host, h.digest)
	}
	return h, errors.Join(
		os.MkdirAll(h.path("registries.d"), 0o755),
		os.WriteFile(h.path("registries.d/h.yaml"),
			fmt.Appendf(nil, "default-docker:\n  lookaside: %s\n  use-sigstore-attachments: true\n", h.Lookaside.URL()), 0o644),
		os.WriteFile(h.path("policy.json"), policy, 0o644),
		os.WriteFile(h.path("key"), key.Binary, 0o644),
		os.WriteFile(h.path("registries.conf"), []byte(fixture.Insecure(h.Registry.Host)+"\n"+fixture.Insecure(silent)),
			0o644),
		os.WriteFile(h.path("list"), []byte(h.Registry.Host+"/team/app:v1\n"), 0o644),
		os.WriteFile(h.path("list-silent"), []byte(silent+"/team/app:v1\n"), 0o644),
		os.WriteFile(h.path("canaries"), []byte(canaries(h.Registry.Host)), 0o644),
		os.WriteFile(h.path("canaries-silent"), []byte(canaries(silent)), 0o644),
	)
}

// putInStore makes a store of releases' signatures of the lookaside.
func (h *hostileWorld) putInStore(sig []byte) error {
	dir := h.path("lookaside/" + strings.Replace(h.digest, ":", "=", 1))
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "signature-1"), sig, 0o644))
}

// judging is a command that judges images by the world's policy.
func (h *hostileWorld) judging(args ...string) []string {
	return append(args, "--policy", h.path("policy.json"), "--registries-d", h.path("registries.d"), "--registries-conf",
		h.path("registries.conf"), "--timeout", hostileTimeout.String())
}

// commands are those that ask servers; HOST stands for the registry that is asked, and -AT for the files that name it.
func (h *hostileWorld) commands() []hostileCommand {
	return []hostileCommand{
		{"verify", h.judging("verify", "HOST/team/app:v1", "-o", "json")},
		{"explain", h.judging("explain", "HOST/team/app:v1", "-o", "json")},
		{"audit", h.judging("audit", "--no-cache", "--images-from", h.path("list-AT"), "-o", "json")},
		{"release verify", []string{
			"release", "verify", "--key", h.path("key"), "--store", h.Lookaside.URL(), "--registries-conf",
			h.path("registries.conf"),
			"--timeout", hostileTimeout.String(), "-o", "json", "HOST/team/app:v1",
		}},
		{"probe", h.judging("probe", "--runtime", "verify", "--canaries", h.path("canaries-AT"), "-o", "json")},
	}
}

// run runs a command against a fault. That it accepts is an error: nothing that is measured here may be.
func (h *hostileWorld) run(ctx context.Context, f hostileFault, c hostileCommand) (u hostileUsage, err error) {
	host, at := h.Registry.Host, ""
	if f.silent {
		host, at = h.silent.Addr().String(), "-silent"
	}
	h.Registry.Fault(f.registry)
	h.Lookaside.Fault(f.lookaside)
	defer h.Registry.Fault(nil)
	defer h.Lookaside.Fault(nil)
	var argv []string
	for _, a := range c.argv {
		argv = append(argv, strings.NewReplacer("HOST", host, "-AT", at).Replace(a))
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.bin, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	u.peak, err = runPeak(cmd)
	u.wall, u.out = time.Since(start), stdout.Len()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return u, ctx.Err()
	case err == nil:
		return u, fmt.Errorf("ended with exit status 0: %.300s", stdout.String())
	case !errors.As(err, &exit), exit.ExitCode() != 3 && exit.ExitCode() != 4:
		return u, fmt.Errorf("%w: %.300s", err, stderr.String())
	}
	return u, nil
}

// faults are what servers do.
func (h *hostileWorld) faults() []hostileFault {
	big := bytes.Repeat([]byte("A"), 1<<20)
	manifest := func(f http.HandlerFunc) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				f(rw, r)
				return
			}
			h.Registry.Serve(rw, r)
		}
	}
	token := func(f http.HandlerFunc) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				f(rw, r)
				return
			}
			rw.Header().Set("WWW-Authenticate", `Bearer realm="http://`+h.Registry.Host+`/token",service="x"`)
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}
	index := func(body []byte) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			_, _ = rw.Write(body)
		}
	}
	nothing := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	return []hostileFault{
		{name: "404 with an endless body", registry: manifest(endless(404, big, 0)), many: true},
		{name: "401 with an endless body", registry: manifest(endless(401, big, 0))},
		{name: "404 with 1 GiB of one JSON message", registry: manifest(jsonError(404, big, 1<<30)), many: true},
		{name: "404 with 4 MiB of one JSON message", registry: manifest(jsonError(404, big, 4<<20)), many: true},
		{name: "404 with a JSON message that unpacks to 10 MiB", registry: manifest(packedError(404, 10))},
		{name: "500 with an endless body", registry: manifest(endless(500, big, 0))},
		{name: "an error page that unpacks to 2 GiB", registry: manifest(bomb(404, 2048))},
		{name: "a manifest that unpacks to 2 GiB", registry: manifest(bomb(200, 2048))},
		{name: "an endless manifest", registry: manifest(endless(200, big, 0))},
		{name: "a manifest byte by byte", registry: manifest(endless(200, []byte("{"), 300*time.Millisecond))},
		{name: "a manifest of 4 MiB of `[`", registry: manifest(index(bytes.Repeat([]byte("["), 4<<20-1))), many: true},
		{name: "an index of 20,000 entries", registry: manifest(index(wideIndex(20000))), many: true},
		{name: "redirects in a circle", registry: manifest(func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, r.URL.Path, http.StatusTemporaryRedirect)
		})},
		{name: "an endless token", registry: token(endless(200, big, 0))},
		{name: "an endless refusal of a token", registry: token(endless(401, big, 0))},
		{name: "attachments without end", registry: h.attachments(big)},
		{name: "an endless refusal of a layer", registry: h.blobs(endless(404, big, 0)), only: "release verify"},
		{name: "a refusal of a layer that unpacks to 2 GiB", registry: h.blobs(bomb(404, 2048)), only: "release verify"},
		{name: "never an answer", registry: nothing},
		{name: "a connection, and nothing said on it, TLS neither", silent: true},
		{name: "lookaside: an endless file", lookaside: endless(200, big, 0)},
		{name: "lookaside: a file byte by byte", lookaside: endless(200, []byte{0x90}, 300*time.Millisecond)},
		{name: "lookaside: 128 files of 4 MiB", lookaside: func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write(append([]byte{0xc2}, make([]byte, 4<<20-1)...))
		}},
		{name: "lookaside: files of 60 KiB without end", lookaside: func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write(append([]byte{0xc2}, make([]byte, 60<<10)...))
		}},
		{name: "lookaside: 403 with an endless body", lookaside: endless(403, big, 0)},
		{name: "lookaside: a file that unpacks to 2 GiB", lookaside: bomb(200, 2048)},
		{name: "lookaside: never an answer", lookaside: nothing},
	}
}

// endless answers with a status and chunk after chunk, until the other end has enough.
func endless(status int, chunk []byte, pause time.Duration) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(status)
		for {
			if _, err := rw.Write(chunk); err != nil {
				return
			}
			if pause == 0 {
				continue
			}
			_ = http.NewResponseController(rw).Flush()
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return
			}
		}
	}
}

// jsonError is an error of the registry protocol with a message of so many bytes.
func jsonError(status int, chunk []byte, size int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		_, _ = fmt.Fprint(rw, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"`)
		for n := 0; n < size; n += len(chunk) {
			if _, err := rw.Write(chunk); err != nil {
				return
			}
		}
		_, _ = fmt.Fprint(rw, `"}]}`)
	}
}

// bomb is a body of so many MiB that is packed well: the same MiB again and again, each a gzip member of its own.
func bomb(status, mebibytes int) http.HandlerFunc {
	var one bytes.Buffer
	z := gzip.NewWriter(&one)
	_, _ = z.Write(bytes.Repeat([]byte("a"), 1<<20))
	_ = z.Close()
	packed := bytes.Repeat(one.Bytes(), mebibytes)
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Encoding", "gzip")
		rw.WriteHeader(status)
		_, _ = rw.Write(packed)
	}
}

// packedError is an error of the registry protocol with a message of so many MiB, packed.
func packedError(status, mebibytes int) http.HandlerFunc {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = fmt.Fprintf(z, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"%s"}]}`,
		bytes.Repeat([]byte("a"), mebibytes<<20))
	_ = z.Close()
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Content-Encoding", "gzip")
		rw.WriteHeader(status)
		_, _ = rw.Write(b.Bytes())
	}
}

// wideIndex is an image index with so many entries, none of which is there.
func wideIndex(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"schemaVersion":2,"manifests":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%064x","size":1,"platform":{"architecture":"amd64","os":"linux"}}`, i)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// attachments are as many sigstore signatures as one asks for, none of which ends.
func (h *hostileWorld) attachments(chunk []byte) http.HandlerFunc {
	layer := fmt.Sprintf(`{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":%q,"size":1000}`,
		h.digest)
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[%s]}`,
		h.digest, strings.TrimSuffix(strings.Repeat(layer+",", 100), ","))
	return func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, ".sig"):
			rw.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = fmt.Fprint(rw, body)
		case strings.Contains(r.URL.Path, "/blobs/"):
			endless(200, chunk, 0)(rw, r)
		default:
			h.Registry.Serve(rw, r)
		}
	}
}

// blobs has the answers to requests for layers replaced.
func (h *hostileWorld) blobs(f http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			f(rw, r)
			return
		}
		h.Registry.Serve(rw, r)
	}
}
