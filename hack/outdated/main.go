// Command outdated compares the modules that security rests on, as go.mod has them, and the Go toolchain with the
// newest releases that the module proxy knows.
//
// Exit status: 0 if none is behind, 3 if one is, 4 if none is known to be behind and not all could be compared.
// Behind is what has a newer release in its own line, where fixes go: v1.2.4 of v1.2.3; of golang.org/x, which has
// one line only, any newer one. A newer line is only told.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/version"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

const (
	exitBehind      = 3
	exitNotCompared = 4
)

// watched are the modules that judge, fetch or hold credentials, and what these rest on.
var watched = []string{
	"go.podman.io/image/v5", "go.podman.io/storage", "github.com/sigstore/sigstore", "github.com/sigstore/fulcio",
	"github.com/secure-systems-lab/go-securesystemslib", "github.com/ProtonMail/go-crypto", "github.com/proglottis/gpgme",
	"github.com/go-jose/go-jose/v4", "golang.org/x/crypto", "golang.org/x/net", "golang.org/x/oauth2",
	"google.golang.org/grpc",
	"k8s.io/client-go", "k8s.io/apimachinery", "k8s.io/cri-api", "github.com/google/renameio/v2",
}

func main() { os.Exit(compare(os.Stdout, goList, watched)) }

// lister runs `go list -m` with more arguments.
type lister func(args ...string) (string, error)

func goList(args ...string) (string, error) {
	cmd := exec.Command("go", append([]string{"list", "-m"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list: %s", strings.Join(strings.Fields(stderr.String()), " "))
	}
	return string(out), nil
}

// compare writes a line for each module and returns an exit status.
func compare(w io.Writer, list lister, modules []string) int {
	behind, missed := 0, 0
	for _, m := range append([]string{"go"}, modules...) {
		r, err := releases(list, m)
		if err != nil {
			missed++
			fmt.Fprintf(w, "NOT COMPARED  %s: %v\n", m, err)
			continue
		}
		fix, last := r.newest(r.inLine), r.newest(func(string) bool { return true })
		switch {
		case fix != r.used:
			behind++
			fmt.Fprintf(w, "BEHIND        %s %s: %s is out\n", m, r.used, fix)
		case last != r.used:
			fmt.Fprintf(w, "newer line    %s %s: %s is out\n", m, r.used, last)
		default:
			fmt.Fprintf(w, "newest        %s %s\n", m, r.used)
		}
	}
	if missed > 0 {
		fmt.Fprintf(w, "NOT COMPARED: %d of %d\n", missed, len(modules)+1)
	}
	switch {
	case behind > 0:
		return exitBehind
	case missed > 0:
		return exitNotCompared
	}
	return 0
}

// history is what is known of a module: the release that is used, and all.
type history struct {
	name, used string
	known      []string
}

func releases(list lister, module string) (history, error) {
	h := history{name: module}
	h.used = strings.TrimPrefix(runtime.Version(), "go") // of this program, and so of those that are built beside it
	if module != "go" {
		out, err := list("-f", "{{.Version}}", module)
		if err != nil {
			return h, err
		}
		h.used = strings.TrimSpace(out)
	}
	h.used = strings.TrimSuffix(h.used, "+incompatible")
	if !isRelease(h.used) {
		return h, fmt.Errorf("%s is no release", h.used)
	}
	out, err := list("-versions", module)
	if err != nil {
		return h, err
	}
	for text := range strings.FieldsSeq(out) {
		if text = strings.TrimSuffix(text, "+incompatible"); isRelease(text) {
			h.known = append(h.known, text)
		}
	}
	if len(h.known) == 0 {
		return h, errors.New("no release is known")
	}
	return h, nil
}

// asGo gives the version of a module, v1.2.3, or of Go, 1.2.3, the form that go/version reads.
func asGo(release string) string { return "go" + strings.TrimPrefix(release, "v") }

// isRelease reports whether a version has three numbers: no snapshot, no v1.2.0-rc.1.
func isRelease(text string) bool { return version.IsValid(asGo(text)) && strings.Count(text, ".") == 2 }

// newest returns the newest release that a filter lets through, or the one that is used if there is no newer one.
func (h history) newest(filter func(release string) bool) string {
	best := h.used
	for _, v := range h.known {
		if filter(v) && version.Compare(asGo(best), asGo(v)) < 0 {
			best = v
		}
	}
	return best
}

// inLine reports whether a release is of the line that is used. The modules of golang.org/x have one line only.
func (h history) inLine(release string) bool {
	return strings.HasPrefix(h.name, "golang.org/x/") || version.Lang(asGo(release)) == version.Lang(asGo(h.used))
}
