package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// realdata is the folder of genuine signatures, or skips the test.
func realdata(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set: no genuine Red Hat signatures to judge")
	}
	return dir
}

// The genuine signatures of this image are OpenPGP v3 packets.
func TestGenuine(t *testing.T) {
	dir := realdata(t)
	bundle := filepath.Join(dir, "albo-bundle")
	const name = "registry.redhat.io/albo/aws-load-balancer-operator-bundle"
	const release = "567E347AD0044ADE55BA8A5F199E2F91FD431D51"
	policy := func(key string) *Policy {
		t.Helper()
		text := `{"default":[{"type":"reject"}],"transports":{"docker":{"registry.redhat.io":[` +
			keyPath(filepath.Join(dir, "keys", key)) + `]}}}`
		p, err := Open(Source{Files: trust.FileSet{{Path: trust.PolicyPath, Data: []byte(text)}}}, Env{})
		check(t, err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	const right, other = "RPM-GPG-KEY-redhat8-release", "RPM-GPG-KEY-redhat9-beta"
	for _, tt := range []struct {
		name, as, key string
		answer        verdict.Answer
		reason        verdict.Reason
	}{
		{"as signed", name + ":0.0.1", right, verdict.Accept, ""},
		{"other tag", name + ":latest", right, verdict.Refuse, verdict.WrongIdentity},
		{"other key", name + ":0.0.1", other, verdict.Refuse, verdict.WrongKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := judgeImage(t.Context(), "dir:"+bundle, tt.as, policy(tt.key), Options{})
			check(t, err)
			if pure {
				tt.answer, tt.reason = verdict.Unknown, verdict.MechanismCannotTell
			}
			if v.Answer != tt.answer || v.Reason != tt.reason {
				t.Errorf("got %s/%s (%s), want %s/%s", v.Answer, v.Reason, v.Message, tt.answer, tt.reason)
			}
			sigs := v.Requirements[0].Signatures
			if len(sigs) != 4 {
				t.Fatalf("%d signatures, want 4", len(sigs))
			}
			signer := release
			if tt.key == other {
				signer = release[24:] // only the key ID is in a v3 packet
			}
			for _, s := range sigs {
				if s.Packet != 3 || s.Signer != signer || s.Digest != v.Digest {
					t.Errorf("signature %+v", s)
				}
			}
		})
	}
	if !pure {
		// Red Hat's post-quantum key: gpg 2.2 reads nothing of a file that holds it alone; beside others it does no harm.
		const pqc = "FCD355B305707A62DA143AB6E422397E50FE8467A2A95343D246D6276AFEDF8F (ML-DSA-87+Ed448, post-quantum, OpenPGP v6)"
		v, err := judgeImage(t.Context(), "dir:"+bundle, name+":0.0.1", policy("RPM-GPG-KEY-redhat9-PQC-release"), Options{})
		check(t, err)
		if v.Reason != verdict.KeyUnreadable || !strings.Contains(v.Message, pqc) || !strings.Contains(v.Hint, "version 4") {
			t.Errorf("post-quantum key: %+v", v)
		}
		if v, err = judgeImage(t.Context(), "dir:"+bundle, name+":0.0.1",
			policy("RPM-GPG-KEY-redhat10-release"), Options{}); err != nil || v.Answer != verdict.Accept {
			t.Errorf("post-quantum key beside others: %+v %v", v, err)
		}
	}
}
