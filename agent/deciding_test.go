package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// logged is a log that can be asked.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

func (w *world) probes() int {
	n := 0
	for _, c := range w.calls() {
		if strings.HasPrefix(c, "probe --canaries") {
			n++
		}
	}
	return n
}

// TestWhatDecidesIsProbed: files that are not ours, and that no comparison judges, decide as well. A change of one
// makes the canaries run at once; a change of others does not.
func TestWhatDecidesIsProbed(t *testing.T) {
	w := newWorld(t)
	for _, d := range []string{
		"/etc/crio/crio.conf.d", "/etc/containers/registries.conf.d", "/usr/share/containers/registries.d", "/etc/real",
	} {
		w.must(os.MkdirAll(w.path(d), 0o755))
	}
	w.write("/etc/real/registries.conf", "")
	w.must(os.Symlink("../real/registries.conf", w.path("/etc/containers/registries.conf")))
	w.enforced()
	for _, tt := range []struct {
		name string
		do   func()
		not  bool
	}{
		{"a key was added to the key file", func() { w.write(keyFile, "key and another") }, false},
		{"the key file is another one", func() {
			w.write(keyFile+".new", "other")
			w.must(os.Rename(w.path(keyFile+".new"), w.path(keyFile)))
		}, false},
		{"everybody may write the key file", func() { w.must(os.Chmod(w.path(keyFile), 0o666)) }, false},
		{"another policy directory", func() {
			w.write("/etc/crio/crio.conf.d/99-x", "[crio.image]\nsignature_policy_dir = \"/etc/other\"\n")
		}, false},
		{"another policy", func() {
			w.write("/etc/crio/crio.conf", "[crio.image]\nsignature_policy = \"/etc/loose.json\"\n")
		}, false},
		{"a narrower scope", func() {
			w.write(otherFile, "docker: {lab.example.com/narrow: {lookaside: http://evil.example.com}}\n")
		}, false},
		{"a mirror", func() {
			w.write("/etc/containers/registries.conf.d/m.conf", "[[registry]]\nlocation = \"lab.example.com\"\n")
		}, false},
		{"a file behind a symlink", func() { w.write("/etc/real/registries.conf", "# other\n") }, false},
		{"nobody reads it", func() { w.write("/etc/containers/README", "x") }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, mark := w.probes(), w.mark()
			tt.do()
			if tt.not {
				time.Sleep(500 * time.Millisecond)
				if n := w.probes(); n != before {
					t.Errorf("%d rounds of canaries", n-before)
				}
				return
			}
			if strings.Contains(tt.name, "symlink") {
				w.write("/etc/containers/README", "the event of a directory that is watched")
			}
			w.await(mark, judge.Unknown, judge.ReasonProbePending)
			w.await(mark, judge.Enforced, "")
			if w.probes() == before {
				t.Error("the canaries did not run")
			}
		})
	}
}

// TestCanariesChangeDuringARound: the answers to the old ones say nothing of the new ones.
func TestCanariesChangeDuringARound(t *testing.T) {
	w := newWorld(t)
	hang := filepath.Join(w.tool, "hang")
	var log logged
	w.enforced(func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	w.must(os.WriteFile(hang, nil, 0o644))
	w.must(os.Chmod(w.path(policyFile), 0o600))
	n := w.probes()
	w.until("a round", func() bool { return w.probes() > n })
	mark := w.mark()
	others := []trust.Canary{
		{Image: strings.Replace(acceptImage, "/a@", "/c@", 1), Expect: "accept"},
		{Image: refuseImage, Expect: "refuse"},
	}
	w.desire(files(), others)
	w.until("the new canaries to be read", func() bool { return log.has("other canaries") })
	w.must(os.Remove(hang))
	w.until("the next round", func() bool {
		b, _ := os.ReadFile(filepath.Join(w.tool, "stdin"))
		return strings.Contains(string(b), "/c@")
	})
	w.never(mark, judge.Enforced)
	w.stop()
	if strings.Contains(w.read(stateFile), "/c@") {
		t.Error("canaries that were never asked for count as confirmed")
	}
}
