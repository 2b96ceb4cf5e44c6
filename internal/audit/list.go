package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a list of images.
const (
	maxLine     = 8 << 10
	maxProblems = 20
)

// List is a Source of one image a line: a reference, and after it, if known, any of digest=sha256:…, by=WHO and
// role=ROLE. Empty lines and what follows a "#" at the start of a line or after a blank are left out. It is read
// once.
type List struct {
	// Name is what errors call it: a file's name.
	Name   string
	Reader io.Reader
	// Check says why a reference can't be used; nil is no check.
	Check func(image string) error
}

// Uses is of Source. A list with a bad line gives no use at all: the error names every such line, up to 20 of them.
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

// line reads one line; a Use without an image is an empty one.
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
