package layering

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// policyWords are words of policy.json that mean nothing else.
var policyWords = []string{
	"insecureAcceptAnything", "signedBy", "sigstoreSigned", "signedBaseLayer", "GPGKeys", "keyType", "keyPath",
	"keyPaths", "keyData", "keyDatas", "signedIdentity", "baseLayerIdentity", "oidcIssuer", "subjectEmail",
	"subjectHostname", "caPath", "caData", "caRootsPath", "caRootsData", "caIntermediatesPath", "caIntermediatesData",
	"rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas", "matchExact",
	"matchRepository", "matchRepoDigestOrExact", "exactReference", "exactRepository", "remapIdentity",
	"dockerReference", "dockerRepository", "signedPrefix",
}

// mayNamePolicyWords are the files and folders that name words of policy.json beside internal/policy.
var mayNamePolicyWords = map[string]string{
	"internal/policy":            "their home",
	"internal/verify/secondlook": "an independent second reader: what both have wrong must be written down twice",
	"internal/trust/parse.go":    "trust.yaml is another format, which has some of the words too",
	"internal/trust/readers.go":  "names of features, which nodetrust readers prints",
	"hack/readers":               "policies for old versions of the image library: tests",
	"internal/probe/classify.go": "messages of runtimes, which are told by their words",
}

// TestPolicyHasOneHome: no other package names the members and types of policy.json, so that none reads it anew.
func TestPolicyHasOneHome(t *testing.T) {
	named := map[string]bool{}
	for _, folder := range []string{"agent", "cmd", "hack", "internal", "render", "templates"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			name := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
			ast.Inspect(file, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				word := policyWord(lit.Value)
				if word == "" {
					return true
				}
				for exempt := range mayNamePolicyWords {
					if within(name, exempt) {
						named[exempt] = true
						return true
					}
				}
				t.Errorf("%s says %q: internal/policy has a name for it", name, word)
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !named["internal/policy"] {
		t.Error("internal/policy names nothing: this test looks at the wrong thing")
	}
	for exempt := range mayNamePolicyWords {
		if !named[exempt] {
			t.Errorf("%s names no word of policy.json: it needs no exemption", exempt)
		}
	}
}

// policyWord returns the word of policy.json that a literal is, or that stands quoted in it, as in JSON and in tags.
func policyWord(literal string) string {
	text, err := strconv.Unquote(literal)
	if err != nil {
		return ""
	}
	for _, w := range policyWords {
		if text == w || strings.Contains(text, `"`+w+`"`) || strings.Contains(text, `"`+w+`,omit`) {
			return w
		}
	}
	return ""
}
