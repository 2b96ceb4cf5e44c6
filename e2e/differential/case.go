package differential

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Case is one question: would this image be pulled, under this policy, with these signatures and faults?
type Case struct {
	// N is the case's number: with the seed it makes the case again.
	N     int
	Image string
	// Policy is policy.json, and Registries the files of registries.d by name.
	Policy     string
	Registries map[string]string
	// Keys are the files below etc/pki/rpm-gpg by name.
	Keys map[string][]byte
	// Signatures by their path below the lookaside's tree.
	Signatures map[string][]byte
	// Stored are signatures by their path below /var/lib/containers/sigstore of the node, which is the built-in lookaside.
	Stored map[string][]byte
	// Registry and Lookaside are faults; "" for none.
	Registry, Lookaside string
	// What the case is about, in words.
	About []string
}

// String tells the case as far as a reader needs it.
func (c Case) String() string {
	files, err := json.MarshalIndent(c.Registries, "  ", "  ")
	if err != nil {
		panic(err)
	}
	var sigs []string
	for path := range c.Signatures {
		sigs = append(sigs, path)
	}
	return fmt.Sprintf("case %d: %s\n  %s\n  policy.json: %s\n  registries.d: %s\n  signatures: %s", c.N, c.Image,
		strings.Join(c.About, ", "), c.Policy, files, sigs)
}

// mentions is true if one of the things that the case is about has text in its words.
func (c Case) mentions(text string) bool {
	return slices.ContainsFunc(c.About, func(a string) bool { return strings.Contains(a, text) })
}

// weighted is something to choose, as often as its weight says.
type weighted[T any] struct {
	weight int
	value  T
}

func choose[T any](r *rand.Rand, from []weighted[T]) T {
	sum := 0
	for _, w := range from {
		sum += w.weight
	}
	n := r.IntN(sum)
	for _, w := range from {
		if n -= w.weight; n < 0 {
			return w.value
		}
	}
	panic("unreachable")
}

// maker makes cases about what is in a world.
type maker struct {
	w *world
	r *rand.Rand
	c Case
	// calm cases have one signature as it should be and no faults, so that identities and scopes decide.
	calm bool
}

// Make makes the n-th case of a seed.
func (w *world) Make(seed uint64, n int) (Case, error) {
	m := &maker{w: w, r: rand.New(rand.NewPCG(seed, uint64(n))), c: Case{
		N: n, Keys: map[string][]byte{}, Registries: map[string]string{}, Signatures: map[string][]byte{},
		Stored: map[string][]byte{},
	}}
	m.calm = m.r.IntN(2) == 0
	t := m.target()
	m.c.Image = t.asked
	signers := m.policy(t)
	base := m.registries(t)
	if err := m.signatures(t, base, signers); err != nil {
		return Case{}, err
	}
	m.faults()
	return m.c, nil
}

func (m *maker) about(format string, args ...any) {
	m.c.About = append(m.c.About, fmt.Sprintf(format, args...))
}

// target is what is pulled: asked as a reference, judged by its instance's digest.
type target struct {
	kind            string
	host, repo, tag string // the name asked for
	physical        string // host/repository that the content comes from
	asked           string
	digest          string // of what is judged
	others          []string
}

func (t target) name() string   { return t.host + "/" + t.repo }
func (t target) tagged() string { return t.name() + ":" + t.tag }

func (m *maker) target() target {
	kind := choose(m.r, []weighted[string]{
		{5, "single"},
		{2, "list"},
		{2, "mirrored"},
		{1, "mirror lacks it"},
		{2, "cosigned"},
	})
	img := m.w.images[kind][m.r.IntN(len(m.w.images[kind]))]
	t := target{
		kind: kind, host: m.w.Registry.Host, repo: img.repo, tag: "v1", physical: img.physical, digest: img.judged,
		others: img.others,
	}
	how := choose(m.r, []weighted[string]{
		{8, "tag"},
		{5, "digest"},
		{1, "tag and digest"},
		{1, "other instance"},
		{1, "missing tag"},
		{1, "missing repository"},
	})
	if m.calm && strings.HasPrefix(how, "missing") {
		how = "tag"
	}
	top := img.judged
	if img.index != "" {
		top = img.index
	}
	switch {
	case how == "digest":
		t.asked = t.name() + "@" + top
	case how == "tag and digest":
		t.asked = t.tagged() + "@" + top
	case how == "other instance" && img.index != "":
		t.asked = t.name() + "@" + img.judged
	case how == "missing tag":
		t.tag = "v9"
		t.asked = t.tagged()
	case how == "missing repository":
		t.repo += "x"
		t.physical += "x"
		t.asked = t.tagged()
	default:
		how, t.asked = "tag", t.tagged()
	}
	m.about("%s by %s", kind, how)
	return t
}

// policy writes policy.json, with one section for the image and others that must not be taken for it, and returns the
// signers that it accepts.
func (m *maker) policy(t target) []string {
	var signers []string
	list := func() []any {
		n := choose(m.r, []weighted[int]{{8, 1}, {2, 2}})
		var out []any
		for range n {
			r, by := m.requirement(t)
			out, signers = append(out, r), append(signers, by...)
		}
		return out
	}
	deflt := []any{map[string]string{"type": choose(m.r,
		[]weighted[string]{{3, "reject"}, {2, "insecureAcceptAnything"}})}}
	ns, _, _ := strings.Cut(t.repo, "/")
	scope := choose(m.r, []weighted[string]{
		{4, t.host},
		{3, t.host + "/" + ns},
		{3, t.name()},
		{2, t.asked},
		{1, ""},
		{1, "default"},
	})
	docker := map[string]any{
		"elsewhere.example.com":     []any{map[string]string{"type": "reject"}},
		t.host + "/" + ns + "x":     []any{map[string]string{"type": "insecureAcceptAnything"}},
		t.name() + "/below":         []any{map[string]string{"type": "reject"}},
		t.host + "/" + ns + ":v1":   []any{map[string]string{"type": "reject"}},
		t.name() + ":v1-other":      []any{map[string]string{"type": "insecureAcceptAnything"}},
		"*.example.com":             []any{map[string]string{"type": "reject"}},
		m.w.mirror.Host + "/copy":   []any{map[string]string{"type": "reject"}},
		m.w.mirror.Host + "/nobody": []any{map[string]string{"type": "insecureAcceptAnything"}},
	}
	if ns == t.repo {
		delete(docker, t.tagged()) // it would be the image's own
	}
	if scope == t.asked && strings.Contains(scope, ":v") && strings.Contains(scope, "@") {
		scope = t.name() // a tag together with a digest is no scope
	}
	if scope != t.host && m.r.IntN(2) == 0 {
		docker[t.host] = []any{map[string]string{"type": choose(m.r,
			[]weighted[string]{{1, "reject"}, {1, "insecureAcceptAnything"}})}}
		m.about("hides the host's section")
	}
	switch scope {
	case "default":
		deflt = list()
		delete(docker, t.host)
		m.about("scope default")
	default:
		docker[scope] = list()
		m.about("scope %q", scope)
	}
	b, err := json.Marshal(map[string]any{"default": deflt, "transports": map[string]any{"docker": docker}})
	if err != nil {
		panic(err)
	}
	m.c.Policy = string(b)
	if !m.calm && m.r.IntN(30) == 0 {
		m.c.Policy = choose(m.r, []weighted[string]{
			{1, strings.TrimSuffix(m.c.Policy, "}")},
			{1, `{"default":[{"type":"signdBy"}]}`},
			{1, `{"default":[]}`},
		})
		m.about("invalid policy")
	}
	return signers
}

// requirement returns one of the scope's requirements, and the names of the keys that it takes.
func (m *maker) requirement(t target) (any, []string) {
	kinds := []weighted[string]{{20, "signedBy"}, {1, "insecureAcceptAnything"}, {1, "reject"}, {1, "sigstoreSigned"}}
	if t.kind == "cosigned" {
		kinds = []weighted[string]{{2, "signedBy"}, {8, "sigstoreSigned"}}
	}
	switch kind := choose(m.r, kinds); kind {
	case "signedBy":
	case "sigstoreSigned":
		return m.cosigned(t), nil
	default:
		m.about("%s", kind)
		return map[string]string{"type": kind}, nil
	}
	signers := choose(m.r, []weighted[[]string]{
		{10, []string{"corp"}},
		{2, []string{"stranger"}},
		{2, []string{"corp", "stranger"}},
		{1, []string{"expired"}},
		{1, []string{"revoked"}},
		{1, []string{"subkey"}},
		{1, []string{"ed25519"}},
		{1, []string{"expired", "corp"}},
	})
	r := map[string]any{"type": "signedBy", "keyType": "GPGKeys"}
	m.keys(r, signers)
	if id := m.identity(t); id != nil {
		r["signedIdentity"] = id
	}
	return r, signers
}

// cosigned returns a requirement of a sigstore signature.
func (m *maker) cosigned(t target) any {
	who := choose(m.r, []weighted[string]{{4, "corp"}, {1, "stranger"}})
	r := map[string]any{"type": "sigstoreSigned"}
	if m.r.IntN(2) == 0 {
		r["keyData"] = base64.StdEncoding.EncodeToString(m.w.cosign[who].PEM)
	} else {
		name := fmt.Sprintf("COSIGN-%d", len(m.c.Keys))
		m.c.Keys[name] = m.w.cosign[who].PEM
		r["keyPath"] = "/etc/pki/rpm-gpg/" + name
	}
	m.about("sigstore signature by %s", who)
	if id := m.identity(t); id != nil {
		r["signedIdentity"] = id
	}
	return r
}

// keys gives a requirement its keys in one of the ways that there are.
func (m *maker) keys(r map[string]any, signers []string) {
	var binary, armored []byte
	for _, s := range signers {
		binary = append(binary, m.w.keys[s].Binary...)
		armored = append(armored, m.w.keys[s].Armored...)
	}
	name := fmt.Sprintf("KEY-%d", len(m.c.Keys))
	path := "/etc/pki/rpm-gpg/" + name
	how := choose(m.r, []weighted[string]{
		{6, "data"},
		{6, "file"},
		{3, "armored file"},
		{1, "files"},
		{1, "missing file"},
		{1, "empty file"},
		{1, "garbage file"},
		{1, "directory"},
	})
	if m.calm && !strings.Contains("data file armored file files", how) {
		how = "file"
	}
	m.about("signed by %s in %s", strings.Join(signers, "+"), how)
	r["keyPath"] = path
	switch how {
	case "data":
		delete(r, "keyPath")
		r["keyData"] = base64.StdEncoding.EncodeToString(binary)
	case "file":
		m.c.Keys[name] = binary
	case "armored file":
		m.c.Keys[name] = armored
	case "files":
		delete(r, "keyPath")
		var paths []string
		for i, s := range signers {
			one := fmt.Sprintf("%s-%d", name, i)
			m.c.Keys[one] = m.w.keys[s].Armored
			paths = append(paths, "/etc/pki/rpm-gpg/"+one)
		}
		r["keyPaths"] = paths
	case "missing file":
	case "empty file":
		m.c.Keys[name] = nil
	case "garbage file":
		m.c.Keys[name] = []byte("-----BEGIN NOTHING-----\n")
	case "directory":
		r["keyPath"] = "/etc/pki/rpm-gpg"
	}
}

func (m *maker) identity(t target) map[string]string {
	kind := choose(m.r, []weighted[string]{
		{6, ""},
		{2, "matchExact"},
		{4, "matchRepoDigestOrExact"},
		{4, "matchRepository"},
		{2, "exactReference"},
		{2, "exactRepository"},
		{3, "remapIdentity"},
	})
	m.about("identity %s", kind)
	ns, _, _ := strings.Cut(t.repo, "/")
	switch kind {
	case "":
		return nil
	case "exactReference":
		return map[string]string{"type": kind, "dockerReference": choose(m.r,
			[]weighted[string]{{3, t.tagged()}, {1, t.name() + ":v2"}, {1, "vendor.example.com/" + t.repo + ":v1"}})}
	case "exactRepository":
		return map[string]string{"type": kind, "dockerRepository": choose(m.r,
			[]weighted[string]{{3, t.name()}, {1, t.name() + "/x"}, {1, "vendor.example.com/" + t.repo}})}
	case "remapIdentity":
		return map[string]string{
			"type": kind,
			"prefix": choose(m.r, []weighted[string]{
				{2, t.host},
				{2, t.host + "/" + ns},
				{1, t.name()},
				{1, t.host + "/" + ns[:len(ns)-1]},
			}),
			"signedPrefix": choose(m.r, []weighted[string]{
				{2, "vendor.example.com"},
				{1, t.host},
				{1, "vendor.example.com/" + ns},
			}),
		}
	}
	return map[string]string{"type": kind}
}

// registries writes registries.d and returns the path below the lookaside's tree, or "stored:", where the image's
// signatures are looked up; "" if nowhere.
func (m *maker) registries(t target) string {
	url, mirrorURL := m.w.Lookaside.URL(), m.w.Lookaside.URL()+"/mirror"
	host, repo, _ := strings.Cut(t.physical, "/")
	base := "/"
	if host == m.w.mirror.Host {
		base = "/mirror/"
	}
	kind := choose(m.r, []weighted[string]{
		{14, "hosts"},
		{3, "the old name"},
		{2, "below the host"},
		{2, "default"},
		{2, "nothing"},
		{1, "a typing error"},
		{1, "the old name beside the new"},
		{1, "twice"},
		{1, "no YAML"},
		{1, "no scheme"},
		{1, "a directory"},
	})
	if m.calm && !strings.Contains("hosts the old name below the host default nothing the old name beside the new a directory", kind) {
		kind = "hosts"
	}
	m.about("registries.d: %s", kind)
	file := func(name, format string, args ...any) { m.c.Registries[name] = fmt.Sprintf(format, args...) }
	both := fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n  %s:\n    lookaside: %s\n", m.w.Registry.Host, url,
		m.w.mirror.Host, mirrorURL)
	if t.kind == "cosigned" && m.r.IntN(6) > 0 || m.r.IntN(10) == 0 {
		both += fmt.Sprintf("  %s/signed:\n    use-sigstore-attachments: true\n  %s/team:\n    use-sigstore-attachments: true\n", m.w.Registry.Host, m.w.Registry.Host)
		m.about("attachments on")
	}
	switch kind {
	case "hosts":
		file("lab.yaml", "%s", both)
	case "the old name":
		file("lab.yaml", "%s", strings.ReplaceAll(both, "lookaside:", "sigstore:"))
	case "below the host":
		file("a.yaml", "docker:\n  %s:\n    lookaside: %s/wrong\n", host, url)
		file("b.yaml", "docker:\n  %s/%s:\n    lookaside: %s/right\n", host, repo, url)
		base = "/right/"
	case "default":
		file("default.yaml", "default-docker:\n  lookaside: %s/fallback\ndocker:\n  %s/elsewhere:\n    lookaside: %s\n",
			url, host, url)
		base = "/fallback/"
	case "nothing":
		base = "stored:"
	case "a typing error":
		file("lab.yaml", "%s", strings.ReplaceAll(both, "lookaside:", "lookasid:"))
		base = "stored:"
	case "the old name beside the new":
		file("lab.yaml", "docker:\n  %s:\n    lookaside: %s/new\n    sigstore: %s/old\n", host, url, url)
		base = "/new/"
	case "twice":
		file("a.yaml", "%s", both)
		file("b.yaml", "%s", both)
		base = ""
	case "no YAML":
		file("lab.yaml", "%s", both)
		file("z.yaml", "docker: [\n")
		base = ""
	case "no scheme":
		file("lab.yaml", "docker:\n  %s:\n    lookaside: %s\n", host, strings.TrimPrefix(url, "http://"))
		base = ""
	case "a directory":
		file("lab.yaml", "docker:\n  %s:\n    lookaside: file:///var/lib/containers/sigstore/sub\n", host)
		base = "stored:sub/"
	}
	if base == "" {
		return ""
	}
	return base + repo
}

// signatures puts some where they are looked for, or beside.
func (m *maker) signatures(t target, at string, signers []string) error {
	if at == "" {
		at = "/" + t.repo
	}
	n := choose(m.r, []weighted[int]{{3, 0}, {12, 1}, {3, 2}, {2, 3}})
	right := -1
	if m.calm && len(signers) > 0 {
		n = max(n, 1)
		right = m.r.IntN(n)
	}
	if n == 0 {
		m.about("no signature")
	}
	for i := range n {
		who := choose(m.r, []weighted[string]{
			{6, "corp"},
			{2, "stranger"},
			{1, "expired"},
			{1, "revoked"},
			{1, "subkey"},
			{1, "ed25519"},
		})
		if len(signers) > 0 && m.r.IntN(3) > 0 {
			who = signers[m.r.IntN(len(signers))]
		}
		as := choose(m.r, []weighted[string]{
			{10, t.tagged()},
			{1, t.name() + ":v2"},
			{1, t.name()},
			{1, t.name() + "@" + t.digest},
			{1, t.host + "/else:v1"},
			{2, "vendor.example.com/" + t.repo + ":v1"},
			{1, t.physical + ":v1"},
		})
		digest := t.digest
		if m.r.IntN(10) == 0 {
			digest = t.others[m.r.IntN(len(t.others))]
		}
		form := choose(m.r, []weighted[string]{
			{24, "good"},
			{1, "truncated"},
			{1, "trailing"},
			{1, "twice"},
			{1, "armored"},
			{1, "HTML"},
			{1, "empty"},
			{1, "MD5"},
			{1, "SHA1"},
			{1, "compressed"},
			{1, "outdated"},
			{1, "no payload"},
			{1, "large"},
		})
		if i == right {
			who, form, digest = signers[0], "good", t.digest
			if m.r.IntN(4) > 0 {
				as = t.tagged()
			}
		}
		m.about("signature %d: %s, by %s as %s for %s", i+1, form, who, as, short(digest))
		blob, err := m.w.signature(who, form, digest, as)
		if err != nil {
			return err
		}
		path := fmt.Sprintf("%s@%s/signature-%d", at, strings.Replace(t.digest, ":", "=", 1), i+1)
		if stored, ok := strings.CutPrefix(path, "stored:"); ok {
			m.c.Stored[stored] = blob
		} else {
			m.c.Signatures[path] = blob
		}
	}
	return nil
}

func short(digest string) string { return digest[:min(len(digest), 15)] }

func (m *maker) faults() {
	if m.calm {
		return
	}
	m.c.Lookaside = choose(m.r, []weighted[string]{
		{24, ""},
		{1, "403"},
		{1, "500"},
		{1, "HTML"},
		{1, "cut off"},
		{1, "redirect"},
	})
	m.c.Registry = choose(m.r, []weighted[string]{
		{40, ""},
		{1, "401"},
		{1, "404"},
		{1, "500"},
		{1, "other manifest"},
		{2, "text/plain"},
		{1, ociIndex},
		{1, schema1},
	})
	if m.c.Lookaside != "" {
		m.about("lookaside: %s", m.c.Lookaside)
	}
	if m.c.Registry != "" {
		m.about("registry: %s", m.c.Registry)
	}
}
