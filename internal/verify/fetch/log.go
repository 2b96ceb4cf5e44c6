package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/nodetrust/nodetrust/internal/outside"
)

// Kind is what a request is for.
type Kind int

// A redirected request keeps its kind.
const (
	Other        Kind = iota // what Get was asked for
	Ping                     // whether there is a registry, and how it wants to be asked
	Token                    // for the registry
	Manifest                 // of the image: of its index, or of an instance
	AttachedList             // the manifest that lists an image's sigstore signatures
	AttachedBlob             // one of those signatures
	Signature                // a file of a lookaside
)

// Request is an HTTP request that was made.
type Request struct {
	Kind Kind
	URL  *url.URL
	// Status is the HTTP status that was received; 0: there was no answer, and Err says why.
	Status int
	Err    error
	// Size is the number of bytes of a body that was wanted, and Body the beginning of a body that was not.
	Size int
	Body []byte
}

// Log holds the requests that were made under a context, in their order, without those that another evaluation made for
// both. A Log may be used by several goroutines.
type Log struct {
	mu       sync.Mutex
	requests []Request
}

type logKey struct{}

// logged is where requests are noted, and as what.
type logged struct {
	log  *Log
	kind Kind
}

// Watch returns a context whose requests are logged.
func (l *Log) Watch(ctx context.Context) context.Context {
	return context.WithValue(ctx, logKey{}, logged{log: l})
}

// Requests returns the requests that were made so far.
func (l *Log) Requests() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

// as returns a context for requests of a kind.
func as(ctx context.Context, k Kind) context.Context {
	if in, ok := ctx.Value(logKey{}).(logged); ok {
		return context.WithValue(ctx, logKey{}, logged{in.log, k})
	}
	return ctx
}

// note completes the last request by what is known after its header.
func note(ctx context.Context, size int, body []byte, err error) {
	in, ok := ctx.Value(logKey{}).(logged)
	if !ok {
		return
	}
	in.log.mu.Lock()
	defer in.log.mu.Unlock()
	if n := len(in.log.requests); n > 0 {
		last := &in.log.requests[n-1]
		last.Size, last.Body, last.Err = size, body, errors.Join(last.Err, err)
	}
}

// recorder writes requests into the log of their context, if there is one.
type recorder struct{ http.RoundTripper }

func (r recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := r.RoundTripper.RoundTrip(req)
	if in, ok := req.Context().Value(logKey{}).(logged); ok {
		one := Request{Kind: in.kind, URL: req.URL, Err: err}
		if err == nil {
			one.Status = res.StatusCode
		}
		in.log.mu.Lock()
		in.log.requests = append(in.log.requests, one)
		in.log.mu.Unlock()
	}
	return res, err
}

// refusal is the body of an error in the form of the registry protocol.
type refusal struct {
	Errors []struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
	Details string `json:"details"`
}

// Words returns what a registry says to its refusal: code and message in the form of the registry protocol, or a line
// of text; at most 500 bytes, printable, without credentials. "" stands for a web page, for JSON that is too long to
// be read to its end, and for no words.
func (r Request) Words() string {
	var body refusal
	text := string(r.Body)
	switch err := json.Unmarshal(r.Body, &body); {
	case err == nil && len(body.Errors) > 0:
		text = strings.Trim(body.Errors[0].Code+": "+body.Errors[0].Message, ": ")
	case err == nil:
		text = body.Details
	case strings.HasPrefix(strings.TrimSpace(text), "<"), strings.HasPrefix(strings.TrimSpace(text), "{"):
		return ""
	}
	return outside.Text(text)
}
