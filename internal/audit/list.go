package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	maxLine     = 8 << 10
	maxProblems = 20
)

// List is a Source with one image a line: a reference and optionally digest=sha256:…, by=WHO and role=ROLE. A "#" at
// the start of a line or after a blank begins a comment. A List is read once.
type List struct {
	// Name is the name in errors: a file's.
	Name   string
	Reader io.Reader
	// Check returns why a reference is unusable; nil means no check.
	Check func(image string) error
}

// Uses implements Source. A list with bad lines gives no use: the error names the first 20.
func (l List) Uses(ctx context.Context, yield func(Use) error) error {
	uses, err := l.read(ctx)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if err := yield(u); err != nil {
			return err
		}
	}
	return nil
}

func (l List) read(ctx context.Context) (uses []Use, err error) {
	var problems []error
	lines := bufio.NewScanner(l.Reader)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n++
		text := lines.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		u, err := l.line(text)
		switch {
		case err != nil && len(problems) == maxProblems:
			return nil, errors.Join(append(problems, fmt.Errorf("%s: and more", l.Name))...)
		case err != nil:
			problems = append(problems, fmt.Errorf("%s:%d: %w", l.Name, n, err))
			continue
		case u.Image == "":
			continue
		}
		if u.By == "" {
			u.By = fmt.Sprintf("%s:%d", l.Name, n)
		}
		uses = append(uses, u)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		problems = append(problems, fmt.Errorf("%s:%d: is longer than %d bytes", l.Name, n+1, maxLine))
	} else if err != nil {
		return nil, fmt.Errorf("reading %s: %w", l.Name, err)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return uses, nil
}

// line reads one line; an empty line gives a Use without an image.
func (l List) line(text string) (u Use, err error) {
	for i, f := range strings.Fields(text) {
		if strings.HasPrefix(f, "#") {
			break
		}
		if i == 0 {
			u.Image = f
			if l.Check != nil {
				if err := l.Check(f); err != nil {
					return u, err
				}
			}
			continue
		}
		name, value, ok := strings.Cut(f, "=")
		switch {
		case ok && name == "digest":
			if !strings.HasPrefix(value, "sha256:") {
				return u, fmt.Errorf("digest %q: must be sha256:…", value)
			}
			u.Digest = value
		case ok && name == "by":
			u.By = value
		case ok && name == "role":
			if u.Role = Role(value); u.Role.rank() < 0 {
				return u, fmt.Errorf("role %q: must be release, pause, cni, agent or control-plane", value)
			}
		default:
			return u, fmt.Errorf("%q: after the image only digest=, by= and role= are understood", f)
		}
	}
	return u, nil
}
