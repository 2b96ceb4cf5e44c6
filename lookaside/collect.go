package lookaside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/nodetrust/nodetrust/release"
	"github.com/nodetrust/nodetrust/verdict"
	"github.com/nodetrust/nodetrust/verify"
	"github.com/nodetrust/nodetrust/verify/mechanism"
)

// parallel is how many images are collected at a time.
const parallel = 8

// Options say what is collected, and by which policy it must be enough.
type Options struct {
	// Images are docker references in their canonical form (verify.Canonical).
	Images []string
	// Policy is where signatures are read, by its lookasides, and what must be satisfied with the tree alone.
	Policy *verify.Policy
	Image  verify.Options
	// Places are the repositories, host and path, from which nodes may pull an image: under each the signatures are laid out.
	Places func(image string) ([]string, error)
	// Releases has signatures of release images, which no lookaside has; asked for images of IsRelease.
	Releases  []release.Source
	IsRelease func(repository string) bool
	// Refresh reads images again that an earlier run has read.
	Refresh bool
	// Progress is called after each image, by one goroutine at a time.
	Progress func(done, total int)
}

// Image is the answer on one image with what the tree has.
type Image struct {
	verdict.Verdict
	// Places are the repositories under which the signatures are laid out, host and path.
	Places []string `json:"places"`
	// Signatures is how many the tree has of the image, of all its platforms and under each place; Added how many of all
	// places are new.
	Signatures int `json:"signatures"`
	Added      int `json:"added"`
}

// Result is the answer on all images: the worst.
type Result struct {
	Verdict verdict.Answer `json:"verdict"`
	Images  []Image        `json:"images"`
}

// Releases are signatures that were found for release images, by digest.
type Releases map[string][][]byte

// Collect reads the signatures of images, writes them into the tree, and judges each image with the tree's signatures alone.
// The error is nil unless the tree can't be written or ctx has ended; what is in the tree then is whole, and the next run goes
// on with it.
func Collect(ctx context.Context, t *Tree, o Options) (Result, Releases, error) {
	if err := t.Sweep(); err != nil {
		return Result{}, nil, fmt.Errorf("cleaning the lookaside: %w", err)
	}
	c := &collector{tree: t, o: o, locks: map[string]*sync.Mutex{}, releases: Releases{}}
	out := make([]Image, len(o.Images))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(parallel, len(o.Images)) {
		wg.Go(func() {
			for i := range next {
				var err error
				if out[i], err = c.image(ctx, o.Images[i]); err != nil {
					cancel(err)
					continue
				}
				c.finished(len(o.Images))
			}
		})
	}
	for i := range o.Images {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Result{}, nil, err
	}
	r := Result{Verdict: verdict.Accept, Images: out}
	for _, i := range out {
		switch i.Verdict.Verdict {
		case verdict.Refuse:
			r.Verdict = verdict.Refuse
		case verdict.Unknown:
			if r.Verdict == verdict.Accept {
				r.Verdict = verdict.Unknown
			}
		}
	}
	return r, c.releases, nil
}

type collector struct {
	tree *Tree
	o    Options

	mu       sync.Mutex
	done     int
	locks    map[string]*sync.Mutex // by directory of the tree
	releases Releases
}

func (c *collector) finished(total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	if c.o.Progress != nil {
		c.o.Progress(c.done, total)
	}
}

// image collects one image. Only what makes all others pointless is an error.
func (c *collector) image(ctx context.Context, name string) (Image, error) {
	out := Image{Verdict: verdict.Verdict{Image: name, Verdict: verdict.Unknown, Mechanism: mechanism.Name}, Places: []string{}}
	if c.o.Image.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.o.Image.Timeout)
		defer cancel()
	}
	places, err := c.o.Places(name)
	if err != nil {
		return out, err
	}
	out.Places = append(out.Places, places...)
	if !c.o.Refresh {
		if r, ok := c.tree.recorded(name); ok {
			if err := c.add(ctx, &out, r); err != nil || out.Verdict.Verdict == verdict.Accept {
				return out, err
			} // else it may have been signed since
		}
	}
	r, err := c.read(ctx, name)
	if err != nil {
		var known *verify.ContentError
		if !errors.As(err, &known) {
			return out, err
		}
		out.Verdict = verdict.Verdict{Image: name, Verdict: verdict.Unknown, Reason: known.Reason, Message: err.Error(), Mechanism: mechanism.Name}
		return out, nil
	}
	err = c.add(ctx, &out, r)
	return out, err
}

// add writes what was read of an image into the tree, and judges it by that.
func (c *collector) add(ctx context.Context, out *Image, r record) error {
	missed := c.release(ctx, r)
	out.Digest = r.Digest
	var paths []string
	for _, p := range out.Places {
		if _, path, ok := strings.Cut(p, "/"); ok && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		added, err := c.put(path, r)
		if err != nil {
			return err
		}
		out.Added += added
	}
	if _, _, byDigest := strings.Cut(r.Image, "@"); byDigest {
		if err := c.tree.keep(r); err != nil {
			return fmt.Errorf("writing the lookaside: %w", err)
		}
	}
	if err := c.prove(ctx, out, r, paths); err != nil || missed == nil || out.Verdict.Verdict != verdict.Refuse {
		return err
	}
	var known *verify.ContentError
	if !errors.As(missed, &known) {
		return missed
	}
	out.Verdict.Verdict, out.Reason, out.Cause, out.Hint = verdict.Unknown, known.Reason, "", ""
	out.Message += "; not all stores of releases could be read: " + missed.Error()
	return nil
}

// read reads manifests and signatures.
func (c *collector) read(ctx context.Context, name string) (record, error) {
	content, err := verify.OpenContent(ctx, name, c.o.Policy, c.o.Image)
	if err != nil {
		return record{}, err
	}
	defer content.Close()
	manifests, err := content.Manifests(ctx, true)
	if err != nil {
		return record{}, err
	}
	return record{Image: name, Repository: content.Repository, Digest: content.Digest, Manifests: manifests}, nil
}

// release adds the signatures that stores of releases have. An error is of the first store that may have more: others may have
// enough.
func (c *collector) release(ctx context.Context, r record) (missed error) {
	if c.o.IsRelease == nil || !c.o.IsRelease(r.Repository) {
		return nil
	}
	for i := range r.Manifests {
		m := &r.Manifests[i]
		for _, s := range c.o.Releases {
			blobs, err := s.Signatures(ctx, m.Digest)
			missed = cmp.Or(missed, err)
			for _, b := range blobs {
				if err := b.Check(); err != nil { // it would spoil the tree
					missed = cmp.Or(missed, err)
					continue
				}
				m.Simple = append(m.Simple, without([][]byte{b.Data}, m.Simple)...)
				c.mu.Lock()
				c.releases[m.Digest] = append(c.releases[m.Digest], without([][]byte{b.Data}, c.releases[m.Digest])...)
				c.mu.Unlock()
			}
		}
	}
	return missed
}

// put writes the signatures under one repository path.
func (c *collector) put(path string, r record) (added int, err error) {
	for _, m := range r.Manifests {
		unlock := c.lock(path + "@" + m.Digest)
		n, err := c.tree.Put(path, m.Digest, m.Simple)
		unlock()
		if err != nil {
			return added, err
		}
		added += n
	}
	return added, nil
}

func (c *collector) lock(dir string) (unlock func()) {
	c.mu.Lock()
	l := c.locks[dir]
	if l == nil {
		l = &sync.Mutex{}
		c.locks[dir] = l
	}
	c.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// prove judges the image under each path with nothing but the tree's signatures, and sigstore signatures, which are copied
// together with images and lie in no lookaside. The worst answer stands.
func (c *collector) prove(ctx context.Context, out *Image, r record, paths []string) error {
	for n, path := range paths {
		v, count, err := c.judge(ctx, r, path)
		if err != nil {
			return err
		}
		if n == 0 || worse(v.Verdict, out.Verdict.Verdict) {
			v.Image = out.Image
			out.Verdict, out.Signatures = v, count
			if v.Verdict != verdict.Accept && len(paths) > 1 {
				out.Message = fmt.Sprintf("under %s: %s", path, v.Message)
			}
		}
	}
	return nil
}

func worse(a, b verdict.Answer) bool {
	rank := []verdict.Answer{verdict.Accept, verdict.Unknown, verdict.Refuse}
	return slices.Index(rank, a) > slices.Index(rank, b)
}

// judge makes a directory image of the manifests and the tree's signatures, and has it judged as the image.
func (c *collector) judge(ctx context.Context, r record, path string) (v verdict.Verdict, count int, err error) {
	dir, err := os.MkdirTemp("", "nodetrust-lookaside-")
	if err != nil {
		return v, 0, err
	}
	defer os.RemoveAll(dir)
	write := func(name string, b []byte) {
		err = cmp.Or(err, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	write("version", []byte("Directory Transport Version: 1.1\n"))
	for i, m := range r.Manifests {
		prefix := ""
		if i > 0 {
			_, hex, _ := strings.Cut(m.Digest, ":")
			prefix = hex + "."
		}
		write(prefix+"manifest.json", m.Manifest)
		simple, readErr := c.tree.Signatures(path, m.Digest)
		if readErr != nil {
			return v, 0, fmt.Errorf("reading the lookaside: %w", readErr)
		}
		count += len(simple)
		for n, b := range append(simple, m.Attached...) {
			write(fmt.Sprintf("%ssignature-%d", prefix, n+1), b)
		}
	}
	if err != nil {
		return v, 0, err
	}
	o := c.o.Image
	o.As, o.Timeout = r.Image, 0
	v, err = verify.Image(ctx, "dir:"+dir, c.o.Policy, o)
	v.Lookaside = nil
	for i := range v.Requirements {
		for j := range v.Requirements[i].Signatures {
			s := &v.Requirements[i].Signatures[j]
			s.Source = path + ": " + strings.TrimPrefix(s.Source, dir+"/")
		}
	}
	return v, count, err
}
