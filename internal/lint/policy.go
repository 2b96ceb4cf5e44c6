package lint

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// policyFacts are what the walk over a policy.json learned.
type policyFacts struct {
	file
	// scopes are those of the docker transport, "" among them, in the order of the file.
	scopes []policyScope
	// defaults is the top-level default.
	defaults policyScope
	// keys are all places where key material is named.
	keys []policyKey
	// features that older readers lack, each with the line of its first use.
	features map[trust.Feature]int
	// broken is set when something was found that keeps the library from loading the file.
	broken bool
}

// policyScope is one scope with what its requirements amount to.
type policyScope struct {
	place
	name string
	// types are the requirements' types in order, and keys what each of them says of its keys.
	types []string
	keys  []string
}

// signers is how many signatures of one kind by different keys an image needs, if that is more than one.
func (s policyScope) signers() int {
	most := 0
	for _, typ := range []string{policy.SignedBy, policy.SigstoreSigned} {
		different := map[string]bool{}
		for i, t := range s.types {
			if t == typ {
				different[s.keys[i]] = true
			}
		}
		most = max(most, len(different))
	}
	return most
}

func (s policyScope) has(typ string) bool { return slices.Contains(s.types, typ) }

// accepts reports whether images of the scope need no signature at all.
func (s policyScope) accepts() bool {
	return len(s.types) > 0 &&
		!slices.ContainsFunc(s.types, func(t string) bool { return t != policy.InsecureAcceptAnything })
}

func (s policyScope) signed() bool { return slices.ContainsFunc(s.types, policy.VerifiesSignatures) }

// policyKey is one place where a requirement names keys: a path on the host, or the material itself.
type policyKey struct {
	place
	path string
	data []byte
	gpg  bool
}

// policyWalk checks one policy.json. The library says nothing of where it stumbled, so each requirement that ours has
// no complaint about is given to the library alone as well.
type policyWalk struct {
	*linter
	policyFacts
}

// policy lints a policy.json.
func (l *linter) policy(f file) *policyFacts {
	w := &policyWalk{linter: l, policyFacts: policyFacts{file: f, features: map[trust.Feature]int{}}}
	w.defaults.place = place{file: f.path, line: 1}
	root, err := parseJSON(f.data)
	if err != nil {
		e, _ := errors.AsType[*jsonError](err)
		w.add("bad-json", e.line, "", "%v", e.err).Hint = jsonHint(f.data)
		return &w.policyFacts
	}
	w.root(root)
	if err := loadPolicy(f.data); err != nil && !w.broken {
		w.add("policy-rejected", 1, "", "%v", err)
	}
	if !w.broken {
		l.meaning(&w.policyFacts)
	}
	return &w.policyFacts
}

func jsonHint(data []byte) string {
	switch {
	case len(data) == 0:
		return "the file is empty: every pull on the node fails"
	case strings.HasPrefix(string(data), "\xef\xbb\xbf"):
		return "the file starts with a byte order mark: remove it"
	case strings.Contains(string(data), "//"), strings.Contains(string(data), "/*"), strings.Contains(string(data), "\n#"):
		return "JSON has no comments"
	}
	return ""
}

// loadPolicy is the library's word, without the file's name in front.
func loadPolicy(data []byte) error {
	err := library.LoadPolicy(data, "")
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimPrefix(err.Error(), `invalid policy in "": `))
}

// add notes with the finding whether it keeps the library from loading the file.
func (w *policyWalk) add(code Code, line int, at jsonPath, format string, args ...any) *Finding {
	w.broken = w.broken || code.row().weight == unloadable
	return w.linter.add(code, w.at(line, at), format, args...)
}

// addIf is linter.addIf for the finding of add.
func (w *policyWalk) addIf(holds bool, code Code, line int, at jsonPath, format string, args ...any) *Finding {
	if !holds {
		return new(Finding)
	}
	return w.add(code, line, at, format, args...)
}

func (p *policyFacts) at(line int, at jsonPath) place { return place{p.path, line, string(at)} }

// object checks that n has known keys, each once. It reports whether n is an object at all.
func (w *policyWalk) object(n *jsonNode, at jsonPath, known []string) bool {
	if n.kind != '{' {
		w.add("wrong-type", n.line, at, "must be an object, is %s", n.what())
		return false
	}
	seen := map[string]int{}
	for _, m := range n.object {
		if first, ok := seen[m.key]; ok {
			w.add("duplicate-key", m.line, at.key(m.key), "is there already in line %d", first)
			continue
		}
		seen[m.key] = m.line
		if known != nil && !slices.Contains(known, m.key) {
			w.add("unknown-key", m.line, at.key(m.key), "is no key that policy.json knows here").Hint = didYouMean(m.key, known)
		}
	}
	return true
}

func didYouMean(s string, known []string) string {
	if n := nearest(s, known); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	if s == "comment" || strings.HasPrefix(s, "_") || strings.HasPrefix(s, "//") {
		return "policy.json has no room for comments"
	}
	return ""
}

func (w *policyWalk) root(n *jsonNode) {
	if !w.object(n, "", []string{policy.FieldDefault, policy.FieldTransports}) {
		return
	}
	if d := n.get(policy.FieldDefault); d == nil {
		w.add("missing-default", n.line, "", "there is no default").Hint = fmt.Sprintf(
			`add "default": [{"type": "reject"}] or [{"type": %q}]`, policy.InsecureAcceptAnything)
	} else {
		w.defaults = policyScope{place: w.at(d.line, policy.FieldDefault)}
		w.defaults.types, w.defaults.keys = w.requirements(d, policy.FieldDefault)
	}
	transports := n.get(policy.FieldTransports)
	if transports == nil || !w.object(transports, policy.FieldTransports, nil) {
		return
	}
	for _, t := range transports.object {
		at := jsonPath(policy.FieldTransports).key(t.key)
		if !slices.Contains(policy.Transports(), t.key) {
			w.add("unknown-transport", t.line, at, "no reader knows this transport: what is below it is never used").Hint = didYouMean(t.key, policy.Transports())
		}
		if !w.object(t.value, at, nil) {
			continue
		}
		for _, s := range t.value.object {
			at := at.key(s.key)
			if err := policy.CheckTransportScope(t.key, s.key); err != nil {
				w.add("bad-scope", s.line, at, "%v", err)
			}
			scope := policyScope{name: s.key, place: w.at(s.line, at)}
			scope.types, scope.keys = w.requirements(s.value, at)
			if t.key == policy.Docker {
				w.scopes = append(w.scopes, scope)
			}
		}
	}
}

// requirements returns the types of a list's requirements, and what each says of its keys.
func (w *policyWalk) requirements(n *jsonNode, at jsonPath) (types, keys []string) {
	if n.kind != '[' {
		w.add("wrong-type", n.line, at, "must be a list of requirements, is %s", n.what())
		return nil, nil
	}
	if len(n.array) == 0 {
		w.add("empty-requirements", n.line, at, "the list of requirements must not be empty").Hint = `[{"type": "reject"}] refuses everything`
		return nil, nil
	}
	for i, r := range n.array {
		types = append(types, w.requirement(r, at.index(i)))
		keys = append(keys, keysText(r))
	}
	return types, keys
}

// keysText is what a requirement says of its keys, as it is written.
func keysText(n *jsonNode) string {
	var b strings.Builder
	for _, m := range n.object {
		if m.key != policy.FieldType && m.key != policy.FieldSignedIdentity && m.key != policy.FieldKeyType {
			fmt.Fprintf(&b, "%s:%s,", m.key, m.value.raw)
		}
	}
	return b.String()
}

// requirement returns the requirement's type, "" if it has none that is known.
func (w *policyWalk) requirement(n *jsonNode, at jsonPath) string {
	before := w.broken
	w.broken = false
	defer func() {
		// The library's word on this requirement alone: what it takes may still have an error finding.
		err := loadPolicy(slices.Concat([]byte(`{"default":[`), n.raw, []byte(`]}`)))
		w.addIf(err != nil && !w.broken, "bad-requirement", n.line, at, "%v", err)
		w.broken = before || err != nil
	}()

	typ := w.typed(n, at, policy.RequirementTypes(), "unknown-requirement", policy.RequirementFields)
	if typ == "" {
		return ""
	}
	switch typ {
	case policy.SignedBy:
		w.signedBy(n, at)
	case policy.SigstoreSigned:
		w.sigstoreSigned(n, at)
	case policy.SignedBaseLayer:
		w.add("signed-base-layer", n.line, at, "signedBaseLayer was never implemented: every image is refused")
		w.addIf(n.get(policy.FieldBaseLayerIdentity) == nil, "missing-key", n.line,
			at, "%s is missing", policy.FieldBaseLayerIdentity)
	}
	for _, key := range []string{policy.FieldSignedIdentity, policy.FieldBaseLayerIdentity} {
		if id := n.get(key); id != nil && slices.Contains(policy.RequirementFields(typ), key) {
			w.identity(id, at.key(key))
		}
	}
	return typ
}

// typed checks an object whose "type" is one of types, and that it has only the keys of that type.
func (w *policyWalk) typed(n *jsonNode, at jsonPath, types []string, code Code,
	keys func(typ string) []string,
) string {
	if n.kind != '{' {
		w.add("wrong-type", n.line, at, "must be an object, is %s", n.what())
		return ""
	}
	t := n.get(policy.FieldType)
	if t == nil {
		w.add("missing-key", n.line, at, "type is missing")
		return ""
	}
	typ, ok := t.text()
	if !ok {
		w.add("wrong-type", t.line, at.key(policy.FieldType), "must be a string, is %s", t.what())
		return ""
	}
	if !slices.Contains(types, typ) {
		w.add(code, t.line, at.key(policy.FieldType), "unknown type %q", typ).Hint = didYouMean(typ, types)
		return ""
	}
	w.object(n, at, keys(typ))
	return typ
}

func (w *policyWalk) signedBy(n *jsonNode, at jsonPath) {
	kt := n.get(policy.FieldKeyType)
	keyType, isText := kt.text()
	const hint = "in use is only " + `"` + policy.GPGKeys + `"`
	switch {
	case kt == nil:
		w.add("missing-key", n.line, at, "keyType is missing").Hint = hint
	case !isText || !slices.Contains(policy.KeyTypes(), keyType):
		w.add("bad-key-type", kt.line, at.key(policy.FieldKeyType), "is no keyType").Hint = hint
	case keyType != policy.GPGKeys:
		w.add("unimplemented-key-type", kt.line, at.key(policy.FieldKeyType),
			"%s was never implemented: every signature is refused", keyType).Hint = fmt.Sprintf("use %q", policy.GPGKeys)
	}
	w.oneOf(n, at, policy.KeyFields(policy.SignedBy), true)
	w.keyMaterial(n, at, true)
	if paths := n.get(policy.FieldKeyPaths); paths != nil {
		w.feature(trust.FeatureKeyPaths, paths.line)
	}
}

func (w *policyWalk) sigstoreSigned(n *jsonNode, at jsonPath) {
	w.feature(trust.FeatureSigstore, n.line)
	w.oneOf(n, at, policy.KeyFields(policy.SigstoreSigned), true)
	hasRekor := w.oneOf(n, at, policy.RekorFields(), false)
	for _, field := range []string{policy.FieldFulcio, policy.FieldPKI} {
		if c := n.get(field); c != nil {
			w.feature(map[string]trust.Feature{
				policy.FieldFulcio: trust.FeatureFulcio, policy.FieldPKI: trust.FeaturePKI,
			}[field], c.line)
			w.object(c, at.key(field), policy.CertificateFields(field))
			w.addIf(field == policy.FieldFulcio && !hasRekor, "missing-key", c.line, at, "fulcio needs a Rekor public key")
			w.addIf(field == policy.FieldPKI && hasRekor, "conflicting-keys", c.line, at,
				"pki can't be used with a Rekor public key")
			w.keyMaterial(c, at.key(field), false)
		}
	}
	for _, key := range append(policy.KeyFields(policy.SigstoreSigned), policy.RekorFields()...) {
		if v := n.get(key); v != nil && strings.HasSuffix(key, "s") { // a list
			w.feature(trust.FeatureSigstoreKeys, v.line)
		}
	}
	if hasRekor {
		w.feature(trust.FeatureRekor, n.line)
	}
	w.keyMaterial(n, at, false)
}

// oneOf checks that at most one of the keys is there, or exactly one if must.
func (w *policyWalk) oneOf(n *jsonNode, at jsonPath, keys []string, must bool) bool {
	var found []string
	for _, k := range keys {
		if n.get(k) != nil {
			found = append(found, k)
		}
	}
	switch {
	case len(found) > 1:
		w.add("several-key-sources", n.get(found[1]).line, at, "%s exclude each other", strings.Join(found, " and "))
	case len(found) == 0 && must:
		w.add("missing-key", n.line, at, "one of %s is missing", strings.Join(keys, ", "))
	}
	return len(found) > 0
}

// keyMaterial notes the keys that an object names, whatever the members are called.
func (w *policyWalk) keyMaterial(n *jsonNode, at jsonPath, gpg bool) {
	if n.kind != '{' {
		return
	}
	for _, m := range n.object {
		isPath := policy.IsPath(m.key)
		if !isPath && !policy.IsData(m.key) {
			continue
		}
		values := []*jsonNode{m.value}
		if m.value.kind == '[' {
			values = m.value.array
			w.addIf(len(values) == 0 && gpg, "empty-key-paths", m.line, at.key(m.key), "names no key: every image is refused")
		}
		for i, v := range values {
			place := at.key(m.key)
			if m.value.kind == '[' {
				place = place.index(i)
			} else if s, _ := v.text(); isPath && s == "" {
				continue // the library says so, but not of one in a list
			}
			w.oneKey(v, place, isPath, gpg)
		}
	}
}

func (w *policyWalk) oneKey(v *jsonNode, at jsonPath, isPath, gpg bool) {
	s, ok := v.text()
	if !ok {
		return // the library says so
	}
	k := policyKey{place: w.at(v.line, at), gpg: gpg}
	if isPath {
		if !filepath.IsAbs(s) {
			w.add("relative-key-path", v.line, at, "%q is looked up in the working directory of whoever pulls", s)
			return
		}
		k.path = s
	} else {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return
		}
		k.data = b
		if len(b) == 0 {
			k.data = []byte{}
		}
	}
	w.keys = append(w.keys, k)
}

func (w *policyWalk) identity(n *jsonNode, at jsonPath) {
	typ := w.typed(n, at, policy.IdentityTypes(), "unknown-identity", policy.IdentityFields)
	if typ == "" {
		return
	}
	for _, key := range policy.IdentityFields(typ) {
		w.addIf(n.get(key) == nil, "missing-key", n.line, at, "%s is missing", key)
	}
	if typ == policy.RemapIdentity {
		w.feature(trust.FeatureRemapIdentity, n.line)
	}
}

func (p *policyFacts) feature(name trust.Feature, line int) {
	if _, ok := p.features[name]; !ok {
		p.features[name] = line
	}
}
