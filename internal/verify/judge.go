package verify

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/configuration"
	"github.com/nodetrust/nodetrust/internal/verify/explain"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/hostlimit"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// DefaultPerHost is a value for Options.PerHost.
const DefaultPerHost = 16

const (
	// settledTimeout bounds how long an image is read whose answer is known already.
	settledTimeout = 5 * time.Second
	// lightReceived is the number of bytes that one of many images may receive while others are judged. A manifest has
	// some KiB, a signature less than one; of larger images only one is judged at a time.
	lightReceived = 512 << 10
	// othersMemory is the number of bytes of memory that the images judged meanwhile may take.
	othersMemory = 8 << 20
)

// Options say how images are reached and judged.
type Options struct {
	// AuthFile holds registry credentials; none are used without it.
	AuthFile string
	// CertDir holds *.crt, *.cert and *.key for registry and lookaside, instead of the host's certs.d.
	CertDir string
	// TLSVerify false accepts any certificate, and plain HTTP. Nil leaves it to registries.conf.
	TLSVerify *bool
	// Platform is os/arch or os/arch/variant: of a multi-arch image the instance that a runtime there takes is judged.
	// Empty is this program's.
	Platform string
	// Timeout bounds the judging of one image; 0 leaves it to the context.
	Timeout time.Duration
	// MaxSignatures and MaxSignatureSize (in bytes) replace the limits of the same name; 0 leaves them. They may not be
	// above the library's own, 128 and 4 MiB.
	MaxSignatures, MaxSignatureSize int
	// Offline asks neither registry nor lookaside. The answer is refuse where no signature could help, else unknown,
	// unless the image is local (dir: or oci:), which is judged as ever.
	Offline bool
	// PerHost is for judging many images: each is read and judged once, over shared connections and with shared tokens.
	// At most PerHost requests to one registry or lookaside host are in flight. 0 judges each image for itself.
	PerHost int
}

// settings are options as evaluations use them.
type settings struct {
	sys                    types.SystemContext
	logins                 []string // the secrets of the file with credentials
	authFile               []byte
	certDir                string
	timeout                time.Duration
	maxSignatures, maxSize int
}

// Check reports options that can't be used.
func (o Options) Check() error {
	_, err := o.settings(types.SystemContext{})
	return err
}

// settings completes sys, which says where the image library finds everything else.
func (o Options) settings(sys types.SystemContext) (s settings, err error) {
	s = settings{sys: sys, certDir: o.CertDir, timeout: o.Timeout, maxSignatures: MaxSignatures, maxSize: MaxSignatureSize}
	platform := strings.Split(o.Platform, "/")
	switch {
	case o.Platform == "":
		platform = []string{"linux", runtime.GOARCH}
	case len(platform) < 2 || len(platform) > 3 || slices.Contains(platform, ""):
		return s, fmt.Errorf("platform %q: must be os/arch or os/arch/variant, for example linux/arm64", o.Platform)
	}
	s.sys.OSChoice, s.sys.ArchitectureChoice = platform[0], platform[1]
	if len(platform) == 3 {
		s.sys.VariantChoice = platform[2]
	}
	switch {
	case o.Timeout < 0:
		return s, fmt.Errorf("timeout of %s: must not be negative", o.Timeout)
	case o.MaxSignatures < 0 || o.MaxSignatures > MaxSignatures:
		return s, fmt.Errorf("limit of %d signatures: must be 1 to %d", o.MaxSignatures, MaxSignatures)
	case o.MaxSignatureSize < 0 || o.MaxSignatureSize > LibrarySignatureSize:
		return s, fmt.Errorf("limit of %d bytes for a signature: must be 1 to %d", o.MaxSignatureSize, LibrarySignatureSize)
	}
	s.maxSignatures, s.maxSize = cmp.Or(o.MaxSignatures, MaxSignatures), cmp.Or(o.MaxSignatureSize, MaxSignatureSize)
	s.sys.DockerAuthConfig = &types.DockerAuthConfig{}
	if o.AuthFile != "" {
		// The library reads the file again by its path: a pipe would be empty, or waited for.
		b, err := hostfs.ThisMachine.ReadFile(o.AuthFile, configuration.MaxFile)
		if err != nil {
			return s, fmt.Errorf("reading credentials: %w", err)
		}
		if !json.Valid(b) {
			return s, fmt.Errorf("reading credentials: %s is no JSON", o.AuthFile)
		}
		s.logins, s.authFile = logins(b), b
		s.sys.AuthFilePath, s.sys.DockerAuthConfig = o.AuthFile, nil
	}
	if o.CertDir != "" {
		if _, err := os.Stat(o.CertDir); err != nil {
			return s, fmt.Errorf("reading certificates: %w", err)
		}
		s.sys.DockerCertPath = o.CertDir
	}
	if o.TLSVerify != nil {
		s.sys.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!*o.TLSVerify)
	}
	return s, nil
}

// logins returns the secrets of a file with logins for registries.
func logins(authFile []byte) (out []string) {
	var doc struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
			RegistryToken string `json:"registrytoken"`
		} `json:"auths"`
	}
	if json.Unmarshal(authFile, &doc) != nil {
		return nil
	}
	for _, a := range doc.Auths {
		out = append(out, a.Auth, a.Password, a.IdentityToken, a.RegistryToken)
		if login, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			_, password, _ := strings.Cut(string(login), ":")
			out = append(out, password)
		}
	}
	return out
}

// Judge judges images under one policy. It may be used by as many goroutines as the caller likes: a goroutine that
// waits for a host costs little. Close the Judge after use.
//
// A fetcher reads an image, and sees what was asked and answered; where the answers are not as regular as can be, the
// image library reads the image again, and the library's word counts. GPG keys are imported once for a policy and used
// for all signatures. A single image has no way of its own, as its keyring costs nothing: 40 interleaved runs of
// nodetrust verify on a dir: image took 364 ms with it and 396 ms without (medians; quartiles 279-431 and 336-515 ms).
type Judge struct {
	settings
	policy  *Policy
	offline bool
	// many is nil if each image is judged for itself.
	many *many
}

// many is what the images of one Judge share.
type many struct {
	fetcher *fetch.Fetcher
	// verdicts by reference.
	verdicts hostlimit.Shared[verdict.Verdict]
	heavy    chan struct{} // holds one while an image is judged that many bytes are received for

	mu       sync.Mutex
	admitted map[string]chan struct{} // by registry: a place for each image that is being judged
}

// Judge returns a judge under the policy, which must stay open until the judge is closed. An error means that an option
// can't be used.
func (p *Policy) Judge(o Options) (*Judge, error) {
	s, err := o.settings(p.System)
	if err != nil {
		return nil, err
	}
	j := &Judge{settings: s, policy: p, offline: o.Offline}
	if o.PerHost > 0 {
		j.many = &many{
			fetcher: fetch.New(o.PerHost), heavy: make(chan struct{}, 1), admitted: map[string]chan struct{}{},
		}
	}
	return j, nil
}

// Close ends the connections.
func (j *Judge) Close() {
	if j.many != nil {
		j.many.fetcher.Close()
	}
}

// Verdict judges one image. An error means that the image can't be judged by that name; whatever goes wrong later is in
// the verdict. With Options.PerHost the timeout counts from when the image's registry may be asked, and nothing in the
// verdict may be changed: others get the same one.
func (j *Judge) Verdict(ctx context.Context, image Image) (verdict.Verdict, error) {
	if j.many != nil && !image.Local() && !image.Stored() && !j.offline {
		return j.shared(ctx, image)
	}
	e, err := j.evaluation(image)
	if err != nil {
		return verdict.Verdict{}, err
	}
	return j.judge(ctx, e), nil
}

// Explain judges an image for itself, and tells what led to the verdict.
func (j *Judge) Explain(ctx context.Context, image Image) (explain.Story, error) {
	e, err := j.evaluation(image)
	if err != nil {
		return explain.Story{}, err
	}
	p := j.policy
	s := explain.Story{
		Verdict:  j.judge(ctx, e),
		Platform: strings.TrimSuffix(e.sys.OSChoice+"/"+e.sys.ArchitectureChoice+"/"+e.sys.VariantChoice, "/"),
		Files: explain.Sources{
			Policy: p.File, RegistriesD: p.RegistriesD, RegistriesConf: p.RegistriesConf, Masked: p.Masked, Notes: p.Notes,
		},
		Asked: e.trace, Local: e.target.Local(), Extension: e.served, Hides: e.section.Hides,
	}
	if !s.Local {
		name, physical := e.target.Logical.DockerReference().Name(), e.target.Content
		places := e.target.Places(&e.sys)
		if len(places) != 1 || places[0].DockerReference().Name() != name {
			for _, place := range places {
				s.Places = append(s.Places, place.DockerReference().String())
			}
		}
		if e.physical != nil && e.physical.DockerReference().Name() != name {
			s.From, physical = e.physical.DockerReference().Name(), e.physical
		}
		_, _, s.Attachments = p.Registries.Lookup(library.Scopes(physical))
	}
	for _, r := range e.section.Requirements {
		s.Details = append(s.Details, r.Detail())
	}
	return s.Redacted(e.secrets), nil
}

// judge is the verdict on an image that is judged for itself.
func (j *Judge) judge(ctx context.Context, e *evaluation) verdict.Verdict {
	if j.offline && !e.target.Local() {
		e.offline()
		return e.finish(ctx)
	}
	ctx, cancel := j.inTime(ctx)
	defer cancel()
	if e.target.Local() {
		e.judge(ctx)
		return e.finish(ctx)
	}
	f := fetch.One()
	defer f.Close()
	return e.read(withBudget(ctx), f)
}

// inTime returns ctx with the timeout of one image.
func (j *Judge) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if j.timeout > 0 {
		return context.WithTimeout(ctx, j.timeout)
	}
	return context.WithCancel(ctx)
}

// shared is the verdict on an image of a registry, which is judged once for all that ask.
func (j *Judge) shared(ctx context.Context, image Image) (verdict.Verdict, error) {
	named := image.Content.DockerReference()
	v, err := j.many.verdicts.Do(ctx, named.String(), func() (verdict.Verdict, error) {
		leave, err := j.many.admit(ctx, fetch.Host(named))
		if err != nil {
			return verdict.Verdict{}, err
		}
		defer leave()
		v, err := j.lightly(ctx, image)
		if err == nil && ctx.Err() != nil && v.Reason == verdict.Timeout {
			err = &interruptedError{v, ctx.Err()}
		}
		return v, err
	})
	if interrupted, ok := errors.AsType[*interruptedError](err); ok {
		v, err = interrupted.verdict, nil
	} else if err != nil && ctx.Err() != nil { // it was never this image's turn
		e, err := j.evaluation(image)
		if err != nil {
			return verdict.Verdict{}, err
		}
		e.stop(verdict.Timeout, "interrupted")
		return e.finish(ctx), nil
	}
	v.Image = image.Name
	return v, err
}

// interruptedError has a verdict that was made by the end of its caller's context, and so is not for other callers.
type interruptedError struct {
	verdict verdict.Verdict
	error
}

func (e *interruptedError) Unwrap() error { return e.error }

// admit waits until an image of the registry may be judged. Twice as many images as requests are under way, so that
// there are always some at the registry, the lookaside and gpg each.
func (m *many) admit(ctx context.Context, host string) (leave func(), err error) {
	m.mu.Lock()
	places, ok := m.admitted[host]
	if !ok {
		places = make(chan struct{}, 2*m.fetcher.Hosts().PerHost())
		m.admitted[host] = places
	}
	m.mu.Unlock()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lightly judges one image. An image that takes more than lightReceived is judged once more, with all the room that a
// single image has; the time of waiting for its turn doesn't count.
func (j *Judge) lightly(ctx context.Context, image Image) (verdict.Verdict, error) {
	start := time.Now()
	light := traffic.NewBudget(lightReceived)
	light.Others, light.Small = othersMemory, true
	in, cancel := j.inTime(traffic.WithBudget(ctx, light))
	defer cancel()
	e, err := j.evaluation(image)
	if err != nil {
		return verdict.Verdict{}, err
	}
	v := e.read(in, j.many.fetcher)
	if !light.Exceeded() {
		return v, nil
	}
	left := j.timeout - time.Since(start)
	if j.timeout > 0 && left <= 0 {
		return v, nil
	}
	select {
	case j.many.heavy <- struct{}{}:
		defer func() { <-j.many.heavy }()
		debug.FreeOSMemory() // garbage of the image before, and of the first look at this one
	case <-ctx.Done():
		return v, nil
	}
	full := traffic.NewBudget(MaxReceived - lightReceived)
	full.Others = othersMemory
	ctx = traffic.WithBudget(ctx, full)
	if j.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	if e, err = j.evaluation(image); err != nil {
		return verdict.Verdict{}, err
	}
	return e.read(ctx, j.many.fetcher), nil
}

// read judges an image of a registry with what a fetcher reads. Where the answers are not as regular as can be, the
// library reads the image again, and the library's word counts.
func (e *evaluation) read(ctx context.Context, f *fetch.Fetcher) verdict.Verdict {
	if e.settled { // what is read only completes a verdict that stands
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, settledTimeout)
		defer cancel()
	}
	unread := e.clone()
	err := e.fetch(ctx, f)
	switch {
	case e.throttled(err):
	case ctx.Err() == nil && (err != nil || e.askLibrary()):
		unread.byLibrary(ctx, e, f.Hosts())
		*e = *unread
	}
	return e.finish(ctx)
}

// fetch judges with what f reads. After an error the verdict is worth nothing.
func (e *evaluation) fetch(ctx context.Context, f *fetch.Fetcher) error {
	e.log = &fetch.Log{}
	ctx = traffic.Logins(e.log.Watch(ctx), e.secrets.AddAuthorization)
	src, err := f.Open(ctx, e.image())
	if err != nil {
		e.trace.Fetched(e.log.Requests(), 0, 0, &e.v)
		if ctx.Err() != nil {
			e.stop(verdict.Timeout, "interrupted")
		}
		return err
	}
	e.fetched = src
	e.judge(ctx)
	e.trace.Fetched(e.log.Requests(), 0, e.explaining, &e.v)
	return e.fetched.Err()
}

// image returns what a fetcher is to read.
func (e *evaluation) image() fetch.Image {
	return fetch.Image{
		Ref: e.target.Content, Sys: e.sys, Registries: e.policy.Registries, Host: e.policy.Host, Temp: e.policy.Temp,
		MaxSignatures: e.maxSignatures, MaxSize: e.maxSize,
	}
}

// askLibrary reports whether the verdict says more of how the image was read than of the image.
func (e *evaluation) askLibrary() bool {
	return e.v.Answer == verdict.Unknown && e.v.Reason != verdict.KeyMissing && e.v.Reason != verdict.MechanismCannotTell
}

// throttled reports whether a host asked to wait for longer than there is time, and completes the verdict then. The
// library isn't asked any more, as the library would not wait.
func (e *evaluation) throttled(err error) bool {
	t, ok := errors.AsType[*hostlimit.ThrottledError](err)
	if !ok {
		return false
	}
	if e.fetched == nil || e.v.Message == "" {
		e.stop(verdict.RateLimited, "reading manifest: %v", t)
		return true
	}
	for i := range e.v.Requirements {
		if q := &e.v.Requirements[i]; q.Answer == verdict.Unknown && q.Reason != verdict.KeyMissing {
			q.Reason = verdict.RateLimited
		}
	}
	if e.askLibrary() {
		e.v.Reason = verdict.RateLimited
	}
	return true
}

// byLibrary judges with what the library reads, after a fetcher has read for first. It takes a place at each host that
// may be asked, in one order for all. The library tells no status: where the library failed at the request at which the
// fetcher got an error status, that status is taken.
func (e *evaluation) byLibrary(ctx context.Context, first *evaluation, limits *hostlimit.Hosts) {
	places := e.target.Places(&e.sys)
	hosts := e.target.Hosts(places)
	for _, ref := range append(places, e.target.Content) {
		at, _ := library.Lookaside(e.policy.Registries, ref)
		if u, err := url.Parse(at); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	slices.Sort(hosts)
	for _, h := range slices.Compact(hosts) {
		leave, err := limits.Host(h).Acquire(ctx)
		if e.throttled(err) {
			return
		}
		if err != nil {
			break // the time is over: the library will say so
		}
		defer leave()
	}
	e.log, e.trace, e.beside = first.log, first.trace, first.fetched
	made := e.log.Requests()
	if n := len(made); n > 0 && made[n-1].Status >= 400 {
		e.refusal = &made[n-1]
	}
	e.judge(e.log.Watch(ctx))
	e.trace.Fetched(e.log.Requests(), len(made), e.explaining, &e.v)
}

// StillCurrent reports whether an image's reference still leads to the manifest that a verdict is about, at the price
// of one request. False also says that it could not be told. It is for Options.PerHost, and for images of registries.
func (j *Judge) StillCurrent(ctx context.Context, image Image, v verdict.Verdict) bool {
	if image.Local() || image.Stored() || j.many == nil {
		return false
	}
	leave, err := j.many.admit(ctx, fetch.Host(image.Content.DockerReference()))
	if err != nil {
		return false
	}
	defer leave()
	ctx, cancel := j.inTime(ctx)
	defer cancel()
	e, err := j.evaluation(image)
	if err != nil {
		return false
	}
	src, err := j.many.fetcher.Open(ctx, e.image())
	if err != nil {
		return false
	}
	d, err := library.Digest(src.Manifest())
	return err == nil && d != "" && (d.String() == v.Index || v.Index == "" && d.String() == v.Digest)
}
