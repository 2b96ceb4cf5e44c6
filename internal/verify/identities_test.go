package verify

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Every signedIdentity of policy.json, with images in a registry that are asked for by tag and by digest, and signed
// for GPG and for sigstore.
func TestImage_identities(t *testing.T) {
	w := newWorld(t)
	cosign := newCosignKey(t)
	host := w.registry.Host
	sig := func(k string, fields ...string) string {
		out := `"signedIdentity":{"type":"` + k + `"`
		for i := 0; i+1 < len(fields); i += 2 {
			out += fmt.Sprintf(",%q:%q", fields[i], fields[i+1])
		}
		return out + "}"
	}
	for i, tt := range []struct {
		name, identity, signedAs string // REPO stands for the image's repository
		tag, digest              verdict.Reason
	}{
		{"default, same tag", sig("matchRepoDigestOrExact"), "REPO:v1", "", ""},
		{"default, other tag", sig("matchRepoDigestOrExact"), "REPO:v2", verdict.WrongIdentity, ""},
		{
			"default, other repository", sig("matchRepoDigestOrExact"), host + "/else:v1", verdict.WrongIdentity,
			verdict.WrongIdentity,
		},
		{"exact, same tag", sig("matchExact"), "REPO:v1", "", verdict.WrongIdentity},
		{"exact, other tag", sig("matchExact"), "REPO:v2", verdict.WrongIdentity, verdict.WrongIdentity},
		{"repository, other tag", sig("matchRepository"), "REPO:v2", "", ""},
		{"repository, without tag", sig("matchRepository"), "REPO", "", ""},
		{"repository, other", sig("matchRepository"), host + "/else:v1", verdict.WrongIdentity, verdict.WrongIdentity},
		{"exact reference", sig("exactReference", "dockerReference", "quay.io/corp/app:v9"), "quay.io/corp/app:v9", "", ""},
		{
			"exact reference, other", sig("exactReference", "dockerReference", "quay.io/corp/app:v9"), "REPO:v1",
			verdict.WrongIdentity, verdict.WrongIdentity,
		},
		{"exact repository", sig("exactRepository", "dockerRepository", "quay.io/corp/app"), "quay.io/corp/app:v9", "", ""},
		{
			"exact repository, other", sig("exactRepository", "dockerRepository", "quay.io/corp/app"), "quay.io/corp/apps:v9",
			verdict.WrongIdentity, verdict.WrongIdentity,
		},
		{"remapped", sig("remapIdentity", "prefix", host, "signedPrefix", "quay.io/corp"), "quay.io/corp/PATH:v1", "", ""},
		{
			"remapped, other tag", sig("remapIdentity", "prefix", host, "signedPrefix", "quay.io/corp"), "quay.io/corp/PATH:v2",
			verdict.WrongIdentity, "",
		},
		{
			"remapped, but signed as it is", sig("remapIdentity", "prefix", host, "signedPrefix", "quay.io/corp"), "REPO:v1",
			verdict.WrongIdentity, verdict.WrongIdentity,
		},
		{"not remapped", sig("remapIdentity", "prefix", "example.com", "signedPrefix", "quay.io/corp"), "REPO:v1", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			path := fmt.Sprintf("id/n%d", i)
			repo := w.ref(path)
			d := w.push(path, "v1")
			signedAs := strings.NewReplacer("REPO", repo, "PATH", path).Replace(tt.signedAs)
			w.sign(w.key, path, d, signedAs, 1)
			payload, annotations := cosign.sign(t, d, signedAs)
			w.attach(path, d, payload, annotations)
			for _, requirement := range []string{
				signedBy(w.key, tt.identity),
				strings.Replace(cosign.requirement(t), sig("matchRepository"), tt.identity, 1),
			} {
				w.write("attached/lab.yaml", "docker:\n  "+host+":\n    use-sigstore-attachments: true\n    lookaside: "+
					w.lookaside.URL()+"\n")
				p, err := openFiles(w.write("policy.json", `{"default":[`+requirement+`]}`), []string{w.path("attached")}, Source{})
				check(t, err)
				defer p.Close()
				for image, reason := range map[string]verdict.Reason{repo + ":v1": tt.tag, repo + "@" + d: tt.digest} {
					answer := verdict.Accept
					if reason != "" {
						answer = verdict.Refuse
					}
					w.want(w.judge(p, image), answer, reason)
				}
			}
		})
	}
}
