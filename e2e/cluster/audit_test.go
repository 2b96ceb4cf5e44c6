package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

const agentUser = "system:serviceaccount:nodetrust:nodetrust-agent"

// request is one that the API server has answered, as its audit log has it.
type request struct {
	Verb, RequestURI string
	User             struct {
		Username string
		Extra    map[string][]string
	}
	ResponseStatus struct{ Code int }
}

func (r request) String() string {
	return fmt.Sprintf("%s %s: %d", r.Verb, r.RequestURI, r.ResponseStatus.Code)
}

// audited is a point in the audit log.
func (c *Cluster) audited(t *testing.T) int64 {
	t.Helper()
	info, err := os.Stat(c.AuditLog)
	must(t, err)
	return info.Size()
}

// requests are those of the agents in pods since a point in the audit log, by node: the API server knows it from the token.
func (c *Cluster) requests(t *testing.T, since int64) map[string][]request {
	t.Helper()
	f, err := os.Open(c.AuditLog)
	must(t, err)
	defer f.Close()
	_, err = f.Seek(since, io.SeekStart)
	must(t, err)
	found := map[string][]request{}
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return found // the rest is still being written
		}
		must(t, err)
		var e struct {
			request
			Stage string
		}
		must(t, json.Unmarshal(line, &e))
		if e.Stage != "ResponseComplete" || e.User.Username != agentUser {
			continue
		}
		node := e.User.Extra["authentication.kubernetes.io/node-name"]
		if len(node) != 1 {
			t.Errorf("%s by an agent of the nodes %q", e.request, node)
			continue
		}
		found[node[0]] = append(found[node[0]], e.request)
	}
}
