package verify

import (
	"context"
	"errors"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
)

// StillCurrent reports whether an image's reference still leads to the manifest that a verdict is about, at the price
// of one request. False also says that it could not be told.
func (s *Session) StillCurrent(ctx context.Context, image string, v verdict.Verdict) bool {
	d, err := s.digest(ctx, image)
	return err == nil && d != "" && (d == v.Index || v.Index == "" && d == v.Digest)
}

func (s *Session) digest(ctx context.Context, image string) (string, error) {
	t, err := parseTarget(image, s.options.As)
	if err != nil {
		return "", err
	}
	if t.local() {
		return "", errors.New("local content has no tag")
	}
	leave, err := s.admit(ctx, fetch.Host(t.content.DockerReference()))
	if err != nil {
		return "", err
	}
	defer leave()
	if s.options.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.options.Timeout)
		defer cancel()
	}
	e, err := newEvaluation(image, s.policy, s.options)
	if err != nil {
		return "", err
	}
	src, err := s.fetcher.Open(ctx, e.image())
	if err != nil {
		return "", err
	}
	d, err := digestOf(src.Manifest())
	return d.String(), err
}
