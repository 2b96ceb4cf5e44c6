// Package node writes the agent's report to the annotations of its own Node, and reads who manages the node. It is the
// only user of client-go in the agent, with the metadata client alone: no list, no watch, no typed Node.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodetrust/nodetrust/internal/judge"
)

const (
	prefix       = "nodetrust.io/"
	StateKey     = prefix + "state"
	ReasonKey    = prefix + "reason"
	MessageKey   = prefix + "message"
	DesiredKey   = prefix + "desired"
	ObservedKey  = prefix + "observed"
	CheckedAtKey = prefix + "checked-at"

	// mcoKey is on every node that the Machine Config Operator manages.
	mcoKey = "machineconfiguration.openshift.io/currentConfig"
)

const (
	timeout  = 15 * time.Second
	coalesce = 2 * time.Second
	// maxPause bounds the pause after a failed request, unless the spread or the server asks for more.
	maxPause = 5 * time.Minute
)

// Spread suits up to some thousand nodes: 1,000 agents with the same cause write 50 reports a second.
const Spread = 20 * time.Second

// Report is the content of the annotations.
type Report struct {
	State, Reason, Message, Desired, Observed string
	CheckedAt                                 time.Time
}

// same ignores CheckedAt, which alone is no news.
func (r Report) same(o Report) bool {
	r.CheckedAt = o.CheckedAt
	return r == o
}

// common reports whether all agents of a pool may want to write r at the same moment: at their start, and from a new
// desired state until its outcome is written. Other changes happen to single nodes, or at each agent's own probe
// times.
func (r Report) common(written Report) bool {
	return written == Report{} || r.Desired != written.Desired || written.preliminary()
}

// preliminary reports whether the next report follows soon.
func (r Report) preliminary() bool {
	return r.Reason == judge.ReasonProbePending || r.Reason == judge.ReasonLoadPending
}

// Client makes a metadata client from the kubeconfig file, or from the pod's ServiceAccount if kubeconfig is empty. It
// returns nil outside a cluster, without either.
func Client(kubeconfig string) (metadata.Interface, error) {
	if kubeconfig == "" && os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return nil, nil
	}
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("configuring the API client: %w", err)
	}
	config.QPS, config.Burst, config.Timeout = 1, 5, timeout
	config.UserAgent = "nodetrust-agent"
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return untried{rt} })
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making the API client: %w", err)
	}
	return client, nil
}

// untried turns answers with Retry-After into errors, and so disables client-go's own retries: up to ten requests, in
// step with those of all other agents. The Reporter retries with jitter instead.
type untried struct{ http.RoundTripper }

// busyError is an answer with Retry-After.
type busyError struct {
	status string
	after  time.Duration
}

func (e *busyError) Error() string {
	return fmt.Sprintf("the server says %s, try again after %s", e.status, e.after)
}

var errUnauthorized = errors.New("the server does not accept the credentials")

func (u untried) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := u.RoundTripper.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		_ = res.Body.Close()
		return nil, errUnauthorized
	}
	if err != nil || res.StatusCode != http.StatusTooManyRequests && res.StatusCode < 500 {
		return res, err
	}
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return res, nil
	}
	_ = res.Body.Close()
	return nil, &busyError{res.Status, time.Duration(seconds) * time.Second}
}

// Reporter writes to one Node.
type Reporter struct {
	mu    sync.Mutex
	nodes metadata.ResourceInterface
	again func() (metadata.Interface, error) // makes another client; nil if there is none
	name  string
	log   *slog.Logger
	// spread is the time over which requests with a common cause are spread.
	spread time.Duration

	latest chan Report
	drift  chan Report // a drift that latest has replaced
	mco    chan bool
}

// New returns a Reporter of the Node called name. It does nothing until Run.
//
// A report is written 2 s after it came; newer reports replace it meanwhile. Pauses spread the requests of a pool:
// - a report with a common cause (start, another desired state) waits a random time between 0 and spread;
// - a failed write is repeated after one to two spreads, then two to four, up to five minutes.
//
// So N agents make about N/spread requests a second for a common cause or after an outage, without coordination.
func New(client metadata.Interface, name string, spread time.Duration, log *slog.Logger) *Reporter {
	return &Reporter{
		nodes: client.Resource(nodes()), name: name, log: log, spread: spread,
		latest: make(chan Report, 1), drift: make(chan Report, 1), mco: make(chan bool, 1),
	}
}

func nodes() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
}

func (r *Reporter) resource() metadata.ResourceInterface {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes
}

// RenewFrom has the Reporter make its client anew when the server refuses the credentials: the kubeconfig may have
// been rewritten. It is called before Run.
func (r *Reporter) RenewFrom(kubeconfig string) {
	r.again = func() (metadata.Interface, error) { return Client(kubeconfig) }
}

// renew replaces the client for the next try if err is errUnauthorized.
func (r *Reporter) renew(err error) {
	if r.again == nil || !errors.Is(err, errUnauthorized) {
		return
	}
	client, err := r.again()
	if err == nil && client == nil {
		return
	}
	if err != nil {
		r.log.Warn("renewing the API client", "err", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = client.Resource(nodes())
}

// MCO receives once whether the Machine Config Operator manages the node, and is closed then.
func (r *Reporter) MCO() <-chan bool { return r.mco }

// Report hands a report over and returns at once. A newer report replaces one that waits, but a drift is written even
// if it was healed meanwhile. Reports come from one goroutine.
func (r *Reporter) Report(rep Report) {
	select {
	case old := <-r.latest:
		if old.drifted() {
			select {
			case <-r.drift:
			default:
			}
			r.drift <- old
		}
	default:
	}
	r.latest <- rep
}

func (r Report) drifted() bool { return r.State == string(judge.Drifted) }

// Run asks who manages the node and then writes reports until ctx is done. It waits without limit for an absent API
// server, and for a Node that is not there: no answer ends it.
func (r *Reporter) Run(ctx context.Context) {
	var asked sync.WaitGroup
	defer asked.Wait()
	asked.Go(func() { r.ask(ctx) })
	var written Report
	for {
		select {
		case <-ctx.Done():
			return
		case rep := <-r.latest:
			drift := rep
			pause := coalesce
			if rep.common(written) {
				pause += upTo(r.spread)
			}
			if !sleep(ctx, pause) {
				return
			}
			rep = r.newest(rep)
			select {
			case drift = <-r.drift:
			default:
			}
			if rep.same(written) {
				// A healed drift leaves no other trace on the Node.
				if !drift.drifted() || !r.tell(ctx, drift) {
					continue
				}
				rep = r.newest(rep)
			}
			rep, ok := r.write(ctx, rep)
			if !ok {
				return
			}
			written = rep
		}
	}
}

// tell writes an outdated report, leaves it there for a moment, and reports whether it did.
func (r *Reporter) tell(ctx context.Context, rep Report) bool {
	if err := r.patch(ctx, rep); err != nil {
		r.log.Warn("annotations not written", "node", r.name, "err", err)
		return false
	}
	return sleep(ctx, coalesce)
}

// Clear removes the annotations, with as many tries as ctx allows. A node that is not there has none.
func (r *Reporter) Clear(ctx context.Context) error {
	null := Report{}.annotations()
	for k := range null {
		null[k] = nil
	}
	b, err := patchOf(null)
	if err != nil {
		return err
	}
	for failed := 0; ; failed++ {
		err := r.send(ctx, b)
		if err == nil || isNoNode(err, r.name) {
			return nil
		}
		r.renew(err)
		if !sleep(ctx, min(r.backoff(failed, err), coalesce<<min(failed, 4))) {
			return err
		}
	}
}

// isNoNode reports whether the API server says that there is no such node. A 404 of something in between is no such
// answer.
func isNoNode(err error, name string) bool {
	var s apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &s) {
		return false
	}
	d := s.Status().Details
	return d != nil && d.Kind == "nodes" && d.Name == name &&
		!slices.ContainsFunc(d.Causes, func(c metav1.StatusCause) bool {
			return c.Type == metav1.CauseTypeUnexpectedServerResponse // client-go's, for a body that is no Status
		})
}

// Flush writes the newest report once, unless it is written.
func (r *Reporter) Flush(ctx context.Context) error {
	select {
	case rep := <-r.latest:
		return r.patch(ctx, rep)
	default:
		return nil
	}
}

func (r *Reporter) newest(rep Report) Report {
	select {
	case rep = <-r.latest:
	default:
	}
	return rep
}

// write tries until it succeeds, each time with the newest report. It returns the written report, or false if ctx is
// done.
func (r *Reporter) write(ctx context.Context, rep Report) (Report, bool) {
	for failed := 0; ; failed++ {
		rep = r.newest(rep)
		err := r.patch(ctx, rep)
		switch {
		case err == nil:
			return rep, true
		case ctx.Err() != nil:
			return rep, false
		case isNoNode(err, r.name):
			// It may be made again, with the pod of this agent still there.
			r.log.Warn("no such node, annotations are not written for now", "node", r.name)
			if !sleep(ctx, maxPause+upTo(r.spread)) {
				return rep, false
			}
			continue
		}
		r.log.Warn("annotations not written, trying again", "node", r.name, "err", err)
		r.renew(err)
		if !sleep(ctx, r.backoff(failed, err)) {
			return rep, false
		}
	}
}

// annotations are those that a report sets; nil as a value removes one.
func (r Report) annotations() map[string]any {
	return map[string]any{
		StateKey: r.State, ReasonKey: r.Reason, MessageKey: r.Message, DesiredKey: r.Desired,
		ObservedKey:  r.Observed,
		CheckedAtKey: r.CheckedAt.UTC().Format(time.RFC3339),
	}
}

// patchOf is a merge patch of annotations.
func patchOf(annotations map[string]any) ([]byte, error) {
	return json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
}

func (r *Reporter) patch(ctx context.Context, rep Report) error {
	b, err := patchOf(rep.annotations())
	if err != nil {
		return err
	}
	return r.send(ctx, b)
}

func (r *Reporter) send(ctx context.Context, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := r.resource().Patch(ctx, r.name, types.MergePatchType, patch,
		metav1.PatchOptions{FieldManager: "nodetrust-agent"})
	if err != nil {
		return fmt.Errorf("patching node %s: %w", r.name, err)
	}
	return nil
}

// ask reads the Node, with as many tries as it takes.
func (r *Reporter) ask(ctx context.Context) {
	for failed := 0; ; failed++ {
		gctx, cancel := context.WithTimeout(ctx, timeout)
		n, err := r.resource().Get(gctx, r.name, metav1.GetOptions{})
		cancel()
		if err == nil {
			_, is := n.GetAnnotations()[mcoKey]
			r.mco <- is
			close(r.mco)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if isNoNode(err, r.name) {
			close(r.mco)
			return
		}
		r.log.Debug("reading the node", "node", r.name, "err", err)
		r.renew(err)
		if !sleep(ctx, r.backoff(failed, err)) {
			return
		}
	}
}

// backoff returns the pause after err, the failed-th failure in a row.
func (r *Reporter) backoff(failed int, err error) time.Duration {
	base := max(r.spread, coalesce)
	limit := max(base, maxPause/2)
	base = min(base<<min(failed, 8), limit)
	after := base
	if busy := (*busyError)(nil); errors.As(err, &busy) {
		after = max(after, min(busy.after, maxPause))
	} else if s, ok := apierrors.SuggestsClientDelay(err); ok {
		after = max(after, min(time.Duration(s)*time.Second, maxPause))
	}
	return after + upTo(base)
}

// upTo returns an evenly distributed time between 0 and d.
func upTo(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// sleep reports whether ctx outlived the sleep.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
