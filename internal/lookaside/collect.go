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

	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/release"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

const parallel = 8

// Options select the images and the policy that must be satisfied.
type Options struct {
	// Images are docker references in their canonical form (locate.Canonical).
	Images []string
	// Policy names the lookasides to read, and must be satisfied with the tree alone.
	Policy *verify.Policy
	Image  verify.Options
	// Platforms are those, as in Image.Platform, for which a multi-platform image must be accepted; none means all
	// that a runtime may choose.
	Platforms []string
	// Places returns the repositories (host and path) from which nodes may pull an image, to lay out signatures for.
	Places func(image string) ([]string, error)
	// Releases has the signatures of release images, which no lookaside has. It is asked for images of IsRelease.
	Releases  []release.Source
	IsRelease func(repository string) bool
	// Refresh reads images again that an earlier run has read.
	Refresh bool
	// Progress is called after each image, by one goroutine at a time.
	Progress func(done, total int)
}

// Image is the answer on one image with the tree's signatures.
type Image struct {
	verdict.Verdict
	// Places are the repositories (host and path) under which the signatures are laid out.
	Places []string `json:"places"`
	// Signatures counts the tree's signatures of the image, of all its platforms and places; Added counts new ones.
	Signatures int `json:"signatures"`
	Added      int `json:"added"`
	// Instances are the answers on the instances of an index that must be accepted; the verdict is the worst of them.
	Instances []Instance `json:"instances,omitempty"`
}

type Instance struct {
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
	verdict.Outcome
}

// Result is the answer on all images: the worst.
type Result struct {
	Answer verdict.Answer `json:"verdict"`
	Images []Image        `json:"images"`
}

// Releases are signatures that were found for release images, by digest.
type Releases map[string][][]byte

// Collect reads the signatures of images, writes them into the tree, and judges each image with the tree's signatures
// alone. It returns an error only if the tree can't be written or ctx has ended; the tree is consistent then, and the
// next run continues.
func Collect(ctx context.Context, t *Tree, o Options) (Result, Releases, error) {
	if err := t.Sweep(); err != nil {
		return Result{}, nil, fmt.Errorf("cleaning the lookaside: %w", err)
	}
	c := &collector{tree: t, o: o, releases: Releases{}}
	if err := c.open(); err != nil {
		return Result{}, nil, err
	}
	out := make([]Image, len(o.Images))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int, len(o.Images))
	for i := range o.Images {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	for range min(parallel, len(o.Images)) {
		wg.Go(func() {
			for i := range next {
				if ctx.Err() != nil {
					return
				}
				var err error
				if out[i], err = c.image(ctx, o.Images[i]); err != nil {
					cancel(err)
					return
				}
				c.finished(len(o.Images))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Result{}, nil, err
	}
	r := Result{Answer: verdict.Accept, Images: out}
	if i := verdict.Worst(out, func(i Image) verdict.Answer { return i.Answer }); i >= 0 {
		r.Answer = out[i].Answer
	}
	return r, c.releases, nil
}

type collector struct {
	tree   *Tree
	o      Options
	judges map[string]*verify.Judge // by platform; "" is that of Options.Image, which also reads

	locks sync.Map // a *sync.Mutex by directory of the tree

	mu       sync.Mutex
	done     int
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

// image collects one image. It returns only errors that concern all images.
func (c *collector) image(ctx context.Context, name string) (Image, error) {
	out := Image{
		Verdict: verdict.Verdict{Image: name, Outcome: verdict.Outcome{Answer: verdict.Unknown}, Mechanism: mechanism.Name},
		Places:  []string{},
	}
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
			if err := c.add(ctx, &out, r); err != nil || out.Answer == verdict.Accept {
				return out, err
			} // else it may have been signed since
		}
	}
	r, err := c.read(ctx, name)
	if err != nil {
		known, ok := errors.AsType[*verify.ContentError](err)
		if !ok {
			return out, err
		}
		out.Verdict = verdict.Verdict{Image: name, Mechanism: mechanism.Name}
		out.Answer, out.Reason, out.Message = verdict.Unknown, known.Reason, err.Error()
		return out, nil
	}
	return out, c.add(ctx, &out, r)
}

// add writes the content of an image into the tree, and judges it by that.
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
	if ref.Digest(r.Image) != "" {
		if err := c.tree.keep(r); err != nil {
			return fmt.Errorf("writing the lookaside: %w", err)
		}
	}
	if err := c.prove(ctx, out, r, paths); err != nil || missed == nil || out.Answer != verdict.Refuse {
		return err
	}
	known, ok := errors.AsType[*verify.ContentError](missed)
	if !ok {
		return missed
	}
	out.Answer, out.Reason, out.Cause, out.Hint = verdict.Unknown, known.Reason, "", ""
	out.Message += "; not all stores of releases could be read: " + missed.Error()
	return nil
}

func (c *collector) read(ctx context.Context, name string) (record, error) {
	image, err := verify.ParseImage(name)
	if err != nil {
		return record{}, err
	}
	if image, err = image.WithInstance(locate.AnyInstance); err != nil {
		return record{}, err
	}
	content, err := c.judges[""].Open(ctx, image)
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

// release adds the signatures of release stores. Its error is of the first store that may have more.
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

func (c *collector) put(path string, r record) (added int, err error) {
	for _, m := range r.Manifests {
		l, _ := c.locks.LoadOrStore(path+"@"+m.Digest, &sync.Mutex{})
		lock := l.(*sync.Mutex)
		lock.Lock()
		n, err := c.tree.Put(path, m.Digest, m.Simple)
		lock.Unlock()
		if err != nil {
			return added, err
		}
		added += n
	}
	return added, nil
}

// prove judges the image under each path with the tree's signatures only, and sigstore signatures, which are copied
// together with images. The worst answer stands.
func (c *collector) prove(ctx context.Context, out *Image, r record, paths []string) error {
	for n, path := range paths {
		one, err := c.judge(ctx, r, path)
		if err != nil {
			return err
		}
		if n == 0 || one.Answer.Compare(out.Answer) > 0 {
			one.Verdict.Image = out.Image
			out.Verdict, out.Signatures, out.Instances = one.Verdict, one.Signatures, one.Instances
			if one.Answer != verdict.Accept && len(paths) > 1 {
				out.Message = fmt.Sprintf("under %s: %s", path, one.Message)
			}
		}
	}
	return nil
}

// judge judges each instance that must be accepted, as a directory image of its manifests and the tree's signatures.
// The verdict is the first of the worst.
func (c *collector) judge(ctx context.Context, r record, path string) (out Image, err error) {
	dir, err := os.MkdirTemp("", "nodetrust-lookaside-")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(dir)
	if out.Signatures, err = c.layOut(dir, r, path); err != nil {
		return out, err
	}
	demanded, err := c.demanded(r)
	if err != nil {
		return out, err
	}
	for n, d := range demanded {
		v, err := c.judgeInstance(ctx, r, dir, path, d)
		if err != nil {
			return out, err
		}
		if n == 0 || v.Answer.Compare(out.Answer) > 0 {
			out.Verdict = v
		}
		if d.named() {
			out.Instances = append(out.Instances, Instance{
				Platform: d.platform, Digest: cmp.Or(d.instance, v.Digest),
				Outcome: verdict.Outcome{Answer: v.Answer, Reason: v.Reason, Message: v.Message},
			})
		}
	}
	out.nameInstances()
	return out, nil
}

func (c *collector) layOut(dir string, r record, path string) (count int, err error) {
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
			return 0, fmt.Errorf("reading the lookaside: %w", readErr)
		}
		count += len(simple)
		for n, b := range append(simple, m.Attached...) {
			write(fmt.Sprintf("%ssignature-%d", prefix, n+1), b)
		}
	}
	return count, err
}

// open makes the judges, without a time limit: Options.Image.Timeout bounds reading and judging an image together.
func (c *collector) open() error {
	c.judges = map[string]*verify.Judge{}
	for _, platform := range append([]string{""}, c.o.Platforms...) {
		o := c.o.Image
		o.Timeout = 0
		if platform != "" {
			o.Platform = platform
		}
		j, err := c.o.Policy.Judge(o)
		if err != nil {
			return err
		}
		c.judges[platform] = j
	}
	return nil
}

// demand is what must be accepted of an image: the instance of a platform or digest, or the image if both are empty.
type demand struct{ platform, instance string }

func (d demand) named() bool { return d != demand{} }

// demanded are the instances that must be accepted: those of the platforms asked for, else all that a runtime may
// choose from the index. An image that is no index is demanded as it is, and so is an index of nothing that a runtime
// may choose.
func (c *collector) demanded(r record) (out []demand, err error) {
	instances, err := verify.Instances(r.Manifests[0].Manifest)
	if err != nil {
		return nil, err
	}
	switch {
	case len(instances) == 0:
	case len(c.o.Platforms) > 0:
		for _, p := range c.o.Platforms {
			out = append(out, demand{platform: p})
		}
	default:
		for _, i := range instances {
			d := demand{cmp.Or(i.Platform, "(no platform)"), i.Digest}
			if i.Chosen() && !slices.ContainsFunc(out, func(o demand) bool { return o.instance == d.instance }) {
				out = append(out, d)
			}
		}
	}
	if len(out) == 0 {
		out = []demand{{}}
	}
	return out, nil
}

func (c *collector) judgeInstance(ctx context.Context, r record, dir, path string, d demand) (verdict.Verdict, error) {
	j := c.judges[""]
	if d.instance == "" {
		j = c.judges[d.platform]
	}
	image, err := verify.ParseImage("dir:" + dir)
	if err != nil {
		return verdict.Verdict{}, err
	}
	if image, err = image.As(r.Image); err != nil {
		return verdict.Verdict{}, err
	}
	if image, err = image.WithInstance(d.instance); err != nil {
		return verdict.Verdict{}, err
	}
	v, err := j.Verdict(ctx, image)
	v.Lookaside = nil
	for i := range v.Requirements {
		for j := range v.Requirements[i].Signatures {
			s := &v.Requirements[i].Signatures[j]
			s.Source = path + ": " + strings.TrimPrefix(s.Source, dir+"/")
		}
	}
	return v, err
}

// nameInstances says in the message which instances are not accepted.
func (i *Image) nameInstances() {
	var bad []string
	for _, n := range i.Instances {
		if n.Answer != verdict.Accept {
			bad = append(bad, fmt.Sprintf("%s %s (%s)", n.Platform, n.Digest, n.Reason))
		}
	}
	if len(bad) > 0 {
		i.Message = fmt.Sprintf("%d of %d platforms are not accepted: %s: %s", len(bad), len(i.Instances),
			strings.Join(bad, ", "), i.Message)
	}
}
