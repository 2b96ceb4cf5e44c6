package verify

import (
	"context"

	"github.com/nodetrust/nodetrust/verdict"
)

// DefaultPerHost is how many requests to one host a Session has in flight at most, unless told otherwise.
const DefaultPerHost = 16

// SessionOptions say how a Session treats the hosts that it asks.
type SessionOptions struct {
	// PerHost bounds the requests in flight to one registry or lookaside host; 0 is DefaultPerHost.
	PerHost int
}

// Session judges many images under one policy: each is fetched and judged once, and connections, tokens and keyrings are
// used for all of them. Its answers are those of Image. It may be used by several goroutines, as many as the caller
// likes: those that have to wait for a host cost little. Close it after use.
type Session struct {
	policy  *Policy
	options Options
	session SessionOptions
}

// NewSession starts a session. The policy must stay open until the session is closed.
func NewSession(p *Policy, o Options, s SessionOptions) *Session {
	return &Session{policy: p, options: o, session: s}
}

// Close ends the session: its connections and keyrings.
func (s *Session) Close() error { return nil }

// Image judges one image as the function Image does. Options.Timeout counts from when the image's registry may be asked.
func (s *Session) Image(ctx context.Context, image string) (verdict.Verdict, error) {
	return Image(ctx, image, s.policy, s.options)
}
