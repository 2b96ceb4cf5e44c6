package verify

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verify/explain"
)

// answerLog is what servers were asked and answered, in the order of the answers.
type answerLog struct {
	mu   sync.Mutex
	list []string
}

func (l *answerLog) add(url string, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, fmt.Sprint(status, " ", url))
}

// statusWriter notes the first status.
type statusWriter struct {
	http.ResponseWriter
	url    string
	log    *answerLog
	logged bool
}

func (w *statusWriter) WriteHeader(status int) {
	if !w.logged {
		w.logged = true
		w.log.add(w.url, status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if !w.logged {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// TestExplain_asked: every status that explain tells of was sent for this URL, in this order, whatever the servers
// answer; and where the image library was not asked, none is missing.
func TestExplain_asked(t *testing.T) {
	w := newWorld(t)
	cosign := newCosignKey(t)
	other, err := fixture.NewLookaside("127.0.0.1:0", t.TempDir())
	check(t, err)
	t.Cleanup(other.Stop)
	images := []string{"nowhere:v1"}
	for _, repo := range []string{"bare", "gpg", "cosigned", "both"} {
		d := w.push(repo, "v1")
		images = append(images, repo+":v1", repo+"@"+d)
		if repo == "gpg" || repo == "both" {
			w.sign(w.key, repo, d, w.ref(repo+":v1"), 1)
			w.sign(w.key, repo, d, w.ref(repo+":v2"), 2)
		}
		if repo == "cosigned" || repo == "both" {
			payload, annotations := cosign.sign(t, d, w.ref(repo))
			w.attach(repo, d, payload, annotations)
		}
	}
	index, instances, err := w.registry.PushIndex("list", "v1", "list", "amd64", "arm64")
	check(t, err)
	w.sign(w.key, "list", index, w.ref("list:v1"), 1)
	payload, annotations := cosign.sign(t, index, w.ref("list"))
	w.attach("list", index, payload, annotations)
	images = append(images, "list:v1", "list@"+instances[0])

	policies := []*Policy{}
	for i, requirement := range []string{signedBy(w.key), cosign.requirement(t), `{"type":"insecureAcceptAnything"}`} {
		for j, at := range []string{
			w.lookaside.URL(), w.lookaside.URL() + "\n    use-sigstore-attachments: true",
			"file://" + w.lookaside.Dir + "\n    use-sigstore-attachments: true",
		} {
			dir := fmt.Sprintf("asked%d%d.d", i, j)
			w.write(dir+"/lab.yaml", fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n", w.registry.Host, at))
			p, err := openFiles(w.write(dir+".json", `{"default":[`+requirement+`]}`), []string{w.path(dir)}, Source{})
			check(t, err)
			t.Cleanup(func() { p.Close() })
			policies = append(policies, p)
		}
	}

	const seed = 20261129
	random := rand.New(rand.NewPCG(seed, 0))
	statuses := []int{401, 403, 404, 412, 429, 500, 302, 307, 0}
	told, byLibrary := 0, 0
	for n := range 240 {
		log := &answerLog{}
		var mu sync.Mutex
		faults := random.IntN(3) // one in so many requests has one; 0: none
		choices := rand.New(rand.NewPCG(seed, uint64(n)))
		spoil := func(s *fixture.Server) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				rw = &statusWriter{ResponseWriter: rw, url: "http://" + s.Host + r.URL.Path, log: log}
				mu.Lock()
				spoilt, status := faults > 0 && choices.IntN(4*faults) == 0, statuses[choices.IntN(len(statuses))]
				mu.Unlock()
				switch {
				case !spoilt:
					s.Serve(rw, r)
				case status == 0:
					panic(http.ErrAbortHandler)
				case status == 302:
					http.Redirect(rw, r, "http://"+other.Host+r.URL.Path, status)
				case status == 307:
					http.Redirect(rw, r, r.URL.Path+"?again", status)
				default:
					rw.Header().Set("Retry-After", "0")
					rw.WriteHeader(status)
					fmt.Fprint(rw, `{"errors":[{"code":"ODD","message":"status `, status, `"}]}`)
				}
			}
		}
		w.registry.Fault(spoil(w.registry.Server))
		w.lookaside.Fault(spoil(w.lookaside.Server))
		other.Fault(spoil(other.Server))
		image := w.ref(images[random.IntN(len(images))])
		s, err := explained(t.Context(), image, policies[random.IntN(len(policies))], testOptions())
		check(t, err)
		var got []string
		library := false
		for _, a := range s.Asked {
			if a.Status != 0 {
				got = append(got, fmt.Sprint(a.Status, " ", a.URL))
			}
			if a.Status != 0 && !strings.HasPrefix(a.Answer, fmt.Sprint(a.Status)) && !strings.HasPrefix(a.Answer, "failed") {
				t.Errorf("%d: status %d, answer %q", n, a.Status, a.Answer)
			}
			library = library || a.Answer == explain.ByLibrary || strings.HasPrefix(a.Answer, "manifest ") ||
				strings.HasPrefix(a.Answer, "failed: ")
		}
		if rest := without(log.list, got); rest != "" {
			t.Errorf("case %d, %s: told of %q, which was not received then; told\n%s\nsent\n%s", n, image, rest,
				strings.Join(got, "\n"), strings.Join(log.list, "\n"))
		}
		if !library && !slices.Equal(got, log.list) {
			t.Errorf("case %d, %s: told\n%s\nsent\n%s", n, image, strings.Join(got, "\n"), strings.Join(log.list, "\n"))
		}
		told += len(got)
		if library {
			byLibrary++
		}
	}
	if told < 500 || byLibrary < 40 || byLibrary > 200 {
		t.Errorf("%d statuses told, %d of 240 cases by the library: that compares little", told, byLibrary)
	}
}

// without returns the first of got that is not in all after those before it; "" if all are.
func without(all, got []string) string {
	for _, g := range got {
		i := slices.Index(all, g)
		if i < 0 {
			return g
		}
		all = all[i+1:]
	}
	return ""
}

// TestImage_requests: reading with the fetcher takes no request more than the library makes, where all goes as it
// should.
func TestImage_requests(t *testing.T) {
	w := newWorld(t)
	cosign := newCosignKey(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	payload, annotations := cosign.sign(t, d, w.ref("team/app"))
	w.attach("team/app", d, payload, annotations)
	_, instances, err := w.registry.PushIndex("team/list", "v1", "list", "amd64", "arm64")
	check(t, err)
	w.sign(w.key, "team/list", instances[0], w.ref("team/list:v1"), 1)
	payload, annotations = cosign.sign(t, instances[0], w.ref("team/list"))
	w.attach("team/list", instances[0], payload, annotations)
	w.write("attached.d/lab.yaml", fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n    use-sigstore-attachments: true\n",
		w.registry.Host, w.lookaside.URL()))
	p, err := openFiles(w.write("policy.json", `{"default":[`+signedBy(w.key)+`,`+cosign.requirement(t)+`]}`),
		[]string{w.path("attached.d")}, Source{})
	check(t, err)
	t.Cleanup(func() { p.Close() })
	made := func() []string {
		list := append(w.registry.Requests(), w.lookaside.Requests()...)
		slices.Sort(list)
		return list
	}
	made()
	for _, image := range []string{w.ref("team/app:v1"), w.ref("team/list:v1")} {
		w.want(w.judge(p, image), "accept", "")
		got := made()
		e, err := newEvaluation(image, p, testOptions())
		check(t, err)
		e.judge(t.Context())
		w.want(e.finish(t.Context()), "accept", "")
		if want := made(); !slices.Equal(got, want) {
			t.Errorf("%s: made %q, the library %q", image, got, want)
		}
	}
}
