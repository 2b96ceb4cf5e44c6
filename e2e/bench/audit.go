package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

const (
	auditImages  = 2000
	auditLatency = 40 * time.Millisecond
	skopeoImages = 25 // that many are measured, and taken for all
)

// audit measures auditing images in a registry and a lookaside that answer late.
func (b *bench) audit(ctx context.Context, w *bytes.Buffer) error {
	if _, err := exec.LookPath("skopeo"); err != nil {
		fmt.Fprintf(w, "## Auditing\n\nNot measured: skopeo is not installed.\n\n")
		return nil
	}
	far, err := b.newFarWorld(ctx)
	if err != nil {
		return err
	}
	defer far.close()
	b.progress("audit: %d images, cold and warm", auditImages)
	cache := filepath.Join(b.dir, "audit-cache")
	args := []string{
		"audit", "--policy", far.policy, "--registries-d", far.registriesD, "--tls-verify=false", "--images-from", far.list,
		"-o", "json", "--cache-dir", cache,
	}
	far.reset()
	cold, err := b.measureAudit(ctx, args...)
	if err != nil {
		return err
	}
	requests, most := far.requests.Load(), far.most.Load()
	far.reset()
	warm, err := b.measureAudit(ctx, args...)
	if err != nil {
		return err
	}
	warmRequests := far.requests.Load()
	b.progress("audit: %d images with skopeo", skopeoImages)
	skopeo, err := far.skopeo(ctx, b.dir)
	if err != nil {
		return err
	}
	all := skopeo / skopeoImages * auditImages
	fmt.Fprintf(w, "## Auditing\n\n"+
		"%d distinct signed images by digest, in %d repositories of one registry; registry and lookaside, on one machine with what is measured, answer each request after %s. "+
		"`nodetrust audit` with 16 requests in flight to each, all images accepted. skopeo has no verification alone: `skopeo copy docker://… dir:…` of images of one small layer under the same policy, one after the other, "+
		"%d of them measured and the rest extrapolated.\n\n"+
		"| | wall | CPU of nodetrust and gpg | memory | requests | goal |\n|---|---|---|---|---|---|\n",
		auditImages, farRepositories, auditLatency, skopeoImages)
	fmt.Fprintf(w, "| cold | **%.1f s** | %.1f s | %d MiB | %d, at most %d at a time | ≤ 30 s, ≤ 300 MiB |\n",
		cold.wall.Seconds(), cold.cpu.Seconds(), cold.rss>>20, requests, most)
	fmt.Fprintf(w, "| warm: again with the verdicts kept | **%.2f s** | %.1f s | %d MiB | %d | ≤ 2 s |\n",
		warm.wall.Seconds(), warm.cpu.Seconds(), warm.rss>>20, warmRequests)
	fmt.Fprintf(w, "| skopeo, extrapolated | %.0f s | | | | |\n\n", all.Seconds())
	fmt.Fprintf(w, "skopeo takes **%.0f** times as long as the cold audit (goal ≥ 8).\n\n",
		all.Seconds()/cold.wall.Seconds())
	return nil
}

// auditUsage is what an audit cost; rss is in bytes, of the process itself.
type auditUsage struct {
	usage
	rss int64
}

// measureAudit runs an audit, all of whose images must be accepted.
func (b *bench) measureAudit(ctx context.Context, args ...string) (auditUsage, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "nodetrust"), args...)
	cmd.Dir = b.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	peak, err := runPeak(cmd)
	u := auditUsage{usage: usage{wall: time.Since(start)}, rss: peak}
	if err != nil {
		return u, fmt.Errorf("nodetrust %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	var report struct {
		Images []struct {
			Verdict string `json:"verdict"`
		} `json:"images"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
		return u, err
	}
	accepted := 0
	for _, i := range report.Images {
		if i.Verdict == "accept" {
			accepted++
		}
	}
	if accepted != auditImages {
		return u, fmt.Errorf("%d of %d images were accepted", accepted, len(report.Images))
	}
	return u, nil
}

const farRepositories = 200

// farWorld is a registry and a lookaside that are far away: nothing but maps and a wait, so that they cost little.
type farWorld struct {
	registry, lookaside       *http.Server
	host, policy, registriesD string
	list                      string
	refs                      []string
	blobs                     map[string][]byte // by path

	requests, now, most atomic.Int64
}

func (f *farWorld) close() {
	for _, s := range []*http.Server{f.registry, f.lookaside} {
		if s != nil {
			_ = s.Close()
		}
	}
}

func (f *farWorld) reset() { f.requests.Store(0); f.most.Store(0) }

// ServeHTTP answers late.
func (f *farWorld) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requests.Add(1)
	n := f.now.Add(1)
	defer f.now.Add(-1)
	for {
		if old := f.most.Load(); n <= old || f.most.CompareAndSwap(old, n) {
			break
		}
	}
	time.Sleep(auditLatency)
	b, ok := f.blobs[r.URL.Path]
	switch {
	case r.URL.Path == "/v2/":
		w.WriteHeader(http.StatusOK)
		return
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		return
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	}
	_, _ = w.Write(b)
}

func (b *bench) newFarWorld(ctx context.Context) (f *farWorld, err error) {
	f = &farWorld{blobs: map[string][]byte{}}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	listen := func(s **http.Server) (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		*s = &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
		go func(s *http.Server) { _ = s.Serve(l) }(*s)
		return l.Addr().String(), nil
	}
	if f.host, err = listen(&f.registry); err != nil {
		return f, err
	}
	lookaside, err := listen(&f.lookaside)
	if err != nil {
		return f, err
	}
	b.progress("audit: signing %d images", auditImages)
	key, err := b.gpg.NewKey("far signer", fixture.KeyOptions{})
	if err != nil {
		return f, err
	}
	if err := f.images(ctx, key); err != nil {
		return f, err
	}
	dir := filepath.Join(b.dir, "far")
	f.policy, f.registriesD, f.list = filepath.Join(dir, "policy.json"), filepath.Join(dir, "registries.d"),
		filepath.Join(dir, "images.txt")
	policy, err := json.Marshal(map[string]any{
		"default": []any{map[string]string{"type": "reject"}},
		"transports": map[string]any{"docker": map[string]any{f.host: []any{map[string]any{
			"type":    "signedBy",
			"keyType": "GPGKeys", "keyData": key.Binary,
		}}}},
	})
	return f, errors.Join(err,
		os.MkdirAll(f.registriesD, 0o755),
		os.WriteFile(f.policy, policy, 0o644),
		os.WriteFile(filepath.Join(f.registriesD, "far.yaml"),
			fmt.Appendf(nil, "docker:\n  %s:\n    lookaside: http://%s\n", f.host, lookaside), 0o644),
		os.WriteFile(f.list, []byte(strings.Join(f.refs, "\n")+"\n"), 0o644))
}

// images makes and signs all images. They share their only layer.
func (f *farWorld) images(ctx context.Context, key *fixture.Key) error {
	img, err := fixture.Image("far", "amd64")
	if err != nil {
		return err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	layer, err := layers[0].Digest()
	if err != nil {
		return err
	}
	content, err := layers[0].Compressed()
	if err != nil {
		return err
	}
	defer content.Close()
	var blob bytes.Buffer
	if _, err := blob.ReadFrom(content); err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, auditImages)
	slots := make(chan struct{}, 4)
	for i := range auditImages {
		repo := fmt.Sprintf("team%03d/app", i%farRepositories)
		manifest, d, err := numbered(raw, i)
		if err != nil {
			return err
		}
		mu.Lock()
		f.blobs["/v2/"+repo+"/manifests/"+d] = manifest
		f.blobs["/v2/"+repo+"/blobs/"+layer.String()] = blob.Bytes()
		f.blobs["/v2/"+repo+"/blobs/"+digestOf(config)] = config
		mu.Unlock()
		f.refs = append(f.refs, f.host+"/"+repo+"@"+d)
		slots <- struct{}{}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wg.Go(func() {
			defer func() { <-slots }()
			sig, err := key.Sign(d, f.host+"/"+repo+":v1")
			mu.Lock()
			defer mu.Unlock()
			f.blobs["/"+repo+"@"+strings.Replace(d, ":", "=", 1)+"/signature-1"], errs[i] = sig, err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// numbered is the manifest with an annotation that makes another one of it.
func numbered(manifest []byte, n int) ([]byte, string, error) {
	var doc map[string]any
	if err := json.Unmarshal(manifest, &doc); err != nil {
		return nil, "", err
	}
	doc["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
	doc["config"].(map[string]any)["mediaType"] = "application/vnd.oci.image.config.v1+json"
	for _, l := range doc["layers"].([]any) {
		l.(map[string]any)["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
	}
	doc["annotations"] = map[string]string{"number": fmt.Sprint(n)}
	b, err := json.Marshal(doc)
	return b, digestOf(b), err
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// skopeo copies some of the images, one after the other, and returns the time that took.
func (f *farWorld) skopeo(ctx context.Context, dir string) (time.Duration, error) {
	start := time.Now()
	for i, ref := range f.refs[:skopeoImages] {
		_, err := timed(ctx, dir, nil, "skopeo", "--policy", f.policy, "--registries.d", f.registriesD, "copy", "--quiet",
			"--src-tls-verify=false",
			"docker://"+ref, "dir:"+filepath.Join(dir, fmt.Sprintf("far-copy-%d", i)))
		if err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}
