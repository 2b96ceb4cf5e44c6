package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/cli"
	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// maxAudit bounds an audit's JSON, in bytes: 10,000 images used by some pods each are about 30 MiB.
const maxAudit = 256 << 20

// warnOfAudit says on notes what the audit in file found that would lock the cluster out, and whether it was an audit
// of what is rendered. It changes nothing of that; an error is a file that holds no audit.
func warnOfAudit(notes io.Writer, file string, cfg *trust.Config, readers []trust.Reader) error {
	r, err := readAudit(file)
	if err != nil {
		return cli.Usage(fmt.Errorf("--audit %s: %w", file, err))
	}
	warn := func(format string, args ...any) {
		cli.Say(notes, cli.Warning, ""+format+"", args...)
	}
	s := r.Summary
	same, err := auditedBy(s.Desired, cfg, readers)
	switch {
	case err != nil:
		return cli.Usage(err)
	case s.Desired == "":
		warn("%s is an audit by policy %s, not by a trust config: it may say nothing of %s", file,
			outside.Text(s.Policy), cfg.File)
	case !same:
		warn("%s is an audit of another state (desired %s) than %s has now: audit again", file,
			outside.Text(s.Desired), cfg.File)
	}
	if !s.Complete {
		warn("%s is not complete: images that it doesn't name may be in use", file)
	}
	for _, l := range s.Lockout {
		switch l.Answer {
		case verdict.Refuse:
			warn("LOCKOUT: %s image %s would be refused: %s: %s", l.Role, outside.Text(l.Image), l.Reason,
				outside.Text(l.Message))
		case verdict.Unknown:
			warn("could be a LOCKOUT: %s image %s could not be judged: %s: %s", l.Role, outside.Text(l.Image), l.Reason,
				outside.Text(l.Message))
		}
	}
	if s.Refuse > 0 || s.Unknown > 0 {
		warn("of %s in use on %s, %d would be refused and %d could not be judged", images(s.Images),
			s.CheckedAt.Format(time.RFC3339), s.Refuse, s.Unknown)
	}
	return nil
}

func readAudit(file string) (*audit.Report, error) {
	b, err := bounded.ReadFile(file, maxAudit)
	if err != nil {
		return nil, err
	}
	var r audit.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("is no JSON of nodetrust audit -o json: %w", err)
	}
	// Whatever else is JSON has neither.
	if r.Summary.CheckedAt.IsZero() || r.Images == nil {
		return nil, errors.New("is no JSON of nodetrust audit -o json")
	}
	return &r, nil
}

// auditedBy reports whether desired is what cfg renders to, be it for these readers or for the current library, which
// audit judges with: they read the same out of it.
func auditedBy(desired string, cfg *trust.Config, readers []trust.Reader) (bool, error) {
	for _, who := range [][]trust.Reader{nil, readers} {
		files, err := cfg.Files(who)
		if err != nil {
			return false, err
		}
		if files.Digest() == desired {
			return true, nil
		}
	}
	return false, nil
}
