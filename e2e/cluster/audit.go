package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const agentUser = "system:serviceaccount:nodetrust:nodetrust-agent"

// auditPolicy logs who did what to what, without the contents; leases and events are left out. Of what agents write the
// contents are kept, to count bytes.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources: [{group: coordination.k8s.io, resources: [leases]}, {group: "", resources: [events]}]
- level: Request
  users: ["` + agentUser + `"]
  verbs: [patch]
- level: Metadata
`

// Request is one that the API server has answered.
type Request struct {
	// Node is that of the pod which the token is bound to. It is empty for any other client.
	Node      string
	Verb, URI string
	Code      int
	// At is when the API server received it.
	At time.Time
	// Body is the size of a patch in bytes.
	Body int
}

func (r Request) String() string { return fmt.Sprintf("%s %s: %d", r.Verb, r.URI, r.Code) }

// Audited is the end of the audit log: a point in time for Requests.
func (c *Cluster) Audited() (int64, error) {
	info, err := os.Stat(c.AuditLog)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Requests are those of the agents in pods since a point in the audit log, in the order of their answers.
func (c *Cluster) Requests(since int64) ([]Request, error) {
	return c.requestsOf(since, func(e event) bool { return e.User.Username == agentUser })
}

// event is what is read of a line of the audit log.
type event struct {
	Stage, Verb, RequestURI, UserAgent string
	User                               struct {
		Username string
		Extra    map[string][]string
	}
	ResponseStatus           struct{ Code int }
	RequestReceivedTimestamp time.Time
	RequestObject            json.RawMessage
}

func (c *Cluster) requestsOf(since int64, wanted func(event) bool) ([]Request, error) {
	f, err := os.Open(c.AuditLog)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(since, io.SeekStart); err != nil {
		return nil, err
	}
	var all []Request
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return all, nil // the rest is still being written
		}
		if err != nil {
			return nil, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		if e.Stage != "ResponseComplete" || !wanted(e) {
			continue
		}
		r := Request{
			Verb: e.Verb, URI: e.RequestURI, Code: e.ResponseStatus.Code, At: e.RequestReceivedTimestamp,
			Body: len(e.RequestObject),
		}
		if node := e.User.Extra["authentication.kubernetes.io/node-name"]; len(node) == 1 {
			r.Node = node[0]
		}
		all = append(all, r)
	}
}
