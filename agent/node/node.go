// Package node writes what the agent has found to the annotations of its own Node, and reads who manages the node. It
// is the agent's only user of client-go, and uses the metadata client alone: no list, no watch, no typed Node.
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

// Keys of the annotations.
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
	// maxPause bounds how long a failed request is not tried again, unless the spread or the server asks for more.
	maxPause = 5 * time.Minute
)

// Spread is for clusters of up to some thousand nodes: 1,000 agents with the same cause write 50 reports a second.
const Spread = 20 * time.Second

// Report is what the annotations say.
type Report struct {
	State, Reason, Message, Desired, Observed string
	CheckedAt                                 time.Time
}

// same ignores CheckedAt, which is no news by itself.
func (r Report) same(o Report) bool {
	r.CheckedAt = o.CheckedAt
	return r == o
}

// common reports whether all agents of a pool may want to write r at the same moment: at their start, and when they
// were given another desired state, until what came of it was written. Everything else happens to single nodes, or is
// found at the phase of each agent's own probes.
func (r Report) common(written Report) bool {
	return written == Report{} || r.Desired != written.Desired || written.preliminary()
}

// preliminary reports whether the next report is under way already.
func (r Report) preliminary() bool {
	return r.Reason == judge.ReasonProbePending || r.Reason == judge.ReasonLoadPending
}

// Client makes a metadata client from the kubeconfig file, or from the pod's ServiceAccount if kubeconfig is empty.
// Without either it returns nil: this is no node of a cluster.
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

// untried keeps client-go from what it does with an answer that has a Retry-After: up to ten more requests, in step
// with those of all other agents. The answer becomes an error, and the Reporter decides.
type untried struct{ http.RoundTripper }

// busyError is an answer of a server that wants to be left alone for a while.
type busyError struct {
	status string
	after  time.Duration
}

func (e *busyError) Error() string {
	return fmt.Sprintf("the server says %s, try again after %s", e.status, e.after)
}

// errUnauthorized is the answer to credentials that are not valid any more.
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
	again func() (metadata.Interface, error) // nil: there is no other client
	name  string
	log   *slog.Logger
	// spread is what requests with a common cause are spread over.
	spread time.Duration

	latest chan Report
	drift  chan Report // a drift that was replaced in latest
	mco    chan bool
}

// New returns a Reporter of the Node called name. It does nothing until Run.
//
// A report is written 2 s after it came, in which newer ones replace it. One with a cause that all agents of a pool
// have at the same moment (their start, another desired state) waits for another time between 0 and spread, evenly; a
// write that failed is tried again after one to two spreads, then two to four, up to five minutes. So N agents make
// about N/spread requests a second for a common cause and after an outage, without knowing of each other: independent
// pauses make no crowd denser.
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

// RenewFrom has the Reporter make its client anew, as Client does, when the server does not accept the credentials of
// the one it has any more: a kubeconfig may have been written anew since it was read. It is called before Run.
func (r *Reporter) RenewFrom(kubeconfig string) {
	r.again = func() (metadata.Interface, error) { return Client(kubeconfig) }
}

// renew takes another client after err, if err says that this one's credentials are void. The next try is made with it.
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

// MCO receives whether the Machine Config Operator manages the node, once that is known, and is closed then.
func (r *Reporter) MCO() <-chan bool { return r.mco }

// Report hands a report over and returns at once. One that has not been written yet is replaced; that there was a
// drift is written even if it was healed before its turn. Reports come from one goroutine.
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

// Run asks who manages the node and then writes reports, until ctx is done or the Node is found not to exist. The API
// server may be away for as long as it likes.
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
				// A drift that was healed meanwhile leaves no other trace on the Node.
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

// tell writes a report that is over already, once, and leaves it there for a moment. It reports whether it did.
func (r *Reporter) tell(ctx context.Context, rep Report) bool {
	if err := r.patch(ctx, rep); err != nil {
		r.log.Warn("annotations not written", "node", r.name, "err", err)
		return false
	}
	return sleep(ctx, coalesce)
}

// Flush writes the newest report once, if there is one that was not written.
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

// write tries until it succeeds, each time with what is the newest then. It returns what was written, or false when
// there is no more to do.
func (r *Reporter) write(ctx context.Context, rep Report) (Report, bool) {
	for failed := 0; ; failed++ {
		rep = r.newest(rep)
		err := r.patch(ctx, rep)
		switch {
		case err == nil:
			return rep, true
		case ctx.Err() != nil:
			return rep, false
		case apierrors.IsNotFound(err):
			r.log.Warn("no such node, annotations are not written any more", "node", r.name)
			return rep, false
		}
		r.log.Warn("annotations not written, trying again", "node", r.name, "err", err)
		r.renew(err)
		if !sleep(ctx, r.backoff(failed, err)) {
			return rep, false
		}
	}
}

func (r *Reporter) patch(ctx context.Context, rep Report) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var patch struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	patch.Metadata.Annotations = map[string]string{
		StateKey: rep.State, ReasonKey: rep.Reason, MessageKey: rep.Message, DesiredKey: rep.Desired,
		ObservedKey:  rep.Observed,
		CheckedAtKey: rep.CheckedAt.UTC().Format(time.RFC3339),
	}
	b, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = r.resource().Patch(ctx, r.name, types.MergePatchType, b, metav1.PatchOptions{FieldManager: "nodetrust-agent"})
	if err != nil {
		return fmt.Errorf("patching node %s: %w", r.name, err)
	}
	return nil
}

// ask reads the Node once, as often as that takes.
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
		if apierrors.IsNotFound(err) {
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

// backoff is the pause after a request that failed with err, as often as failed before.
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

// upTo is a time between 0 and d, each as likely as any other.
func upTo(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// sleep reports whether ctx outlived it.
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
