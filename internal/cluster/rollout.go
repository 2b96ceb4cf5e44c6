package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/nodetrust/nodetrust/internal/cluster/mco"
	"github.com/nodetrust/nodetrust/internal/cluster/rollout"
	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	poolsPath   = "/apis/" + mcoGroup + "/machineconfigpools"
	configsPath = "/apis/" + mcoGroup + "/machineconfigs/"
	versionPath = "/apis/config.openshift.io/v1/clusterversions/version"
	mcoPrefix   = "machineconfiguration.openshift.io/"

	// maxObject bounds one MachineConfig: etcd takes 1.5 MiB.
	maxObject  = 4 << 20
	maxSources = 500

	wholeObject  = "application/json"
	metadataOnly = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
)

// Wanted is a MachineConfig whose rollout is in question.
type Wanted struct {
	Pool, Name string
	// Files are the rendered ones; without them the cluster's own are taken.
	Files trust.FileSet
	// ambiguous is why Name is unknown.
	ambiguous error
}

// Rollouts selects the rollouts to read.
type Rollouts struct {
	// Wanted is empty for the MachineConfigs that are found among the pools' sources.
	Wanted []Wanted
	// Pool, if not empty, leaves out the other pools where Wanted is empty.
	Pool   string
	Agents string
}

// ErrNoPools means that the cluster has no MachineConfigPools: no Machine Config Operator runs there.
var ErrNoPools = errors.New("the cluster has no MachineConfigPools")

// ErrPool means that the cluster lacks the pool in question.
var ErrPool = errors.New("the cluster has no such MachineConfigPool")

type pool struct {
	raw      json.RawMessage
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Paused        bool                  `json:"paused"`
		NodeSelector  *metav1.LabelSelector `json:"nodeSelector"`
		Configuration struct {
			Name   string `json:"name"`
			Source []struct {
				Name string `json:"name"`
			} `json:"source"`
		} `json:"configuration"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration      int64 `json:"observedGeneration"`
		MachineCount            int   `json:"machineCount"`
		UpdatedMachineCount     int   `json:"updatedMachineCount"`
		ReadyMachineCount       int   `json:"readyMachineCount"`
		UnavailableMachineCount int   `json:"unavailableMachineCount"`
		Configuration           struct {
			Name string `json:"name"`
		} `json:"configuration"`
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

func (p pool) judged() rollout.Pool {
	out := rollout.Pool{
		Name: p.Metadata.Name, Paused: p.Spec.Paused, Generation: p.Metadata.Generation,
		ObservedGeneration: p.Status.ObservedGeneration,
		Rendered:           p.Spec.Configuration.Name, Reached: p.Status.Configuration.Name,
		Machines: p.Status.MachineCount, Updated: p.Status.UpdatedMachineCount,
		Ready: p.Status.ReadyMachineCount, Unavailable: p.Status.UnavailableMachineCount,
		Conditions: map[string]rollout.Condition{},
	}
	for _, s := range p.Spec.Configuration.Source {
		out.Source = append(out.Source, s.Name)
	}
	for _, c := range p.Status.Conditions {
		out.Conditions[c.Type] = rollout.Condition{Status: string(c.Status), Reason: c.Reason, Message: c.Message}
	}
	return out
}

func (p pool) selects(set map[string]string) (bool, error) {
	sel, err := metav1.LabelSelectorAsSelector(p.Spec.NodeSelector)
	if err != nil {
		return false, fmt.Errorf("reading the nodeSelector of pool %s: %w", p.Metadata.Name, err)
	}
	return !sel.Empty() && sel.Matches(labels.Set(set)), nil // an empty selector selects nothing for the MCO
}

// poolOfNode returns the MCO's pool of a node: the control plane's, else a custom one, else worker.
func poolOfNode(pools []pool, set map[string]string) (string, error) {
	best, rank := "", 0
	for _, p := range pools {
		ok, err := p.selects(set)
		if err != nil {
			return "", err
		}
		r := 2
		switch p.Metadata.Name {
		case "worker":
			r = 1
		case "master", "arbiter":
			r = 3
		}
		if ok && r > rank {
			best, rank = p.Metadata.Name, r
		}
	}
	return best, nil
}

// RolloutSnapshots reads what rollout.Judge needs. It reads MachineConfigs by name only.
func (c *Client) RolloutSnapshots(ctx context.Context, ask Rollouts, now time.Time) ([]rollout.Snapshot, error) {
	pools, err := c.pools(ctx)
	if err != nil {
		return nil, err
	}
	r := &rolloutReader{c: c, bodies: map[string]json.RawMessage{}}
	wanted := ask.Wanted
	if len(wanted) == 0 {
		if wanted, err = r.find(ctx, pools, ask.Pool); err != nil {
			return nil, err
		}
	}
	var out []rollout.Snapshot
	for _, w := range wanted {
		i := slices.IndexFunc(pools, func(p pool) bool { return p.Metadata.Name == w.Pool })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s", ErrPool, w.Pool)
		}
		s, err := r.snapshot(ctx, pools[i], w)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, c.rolloutNodes(ctx, pools, out, ask.Agents, now)
}

func (c *Client) pools(ctx context.Context) ([]pool, error) {
	list, err := readJSON[listOf[json.RawMessage]](ctx, c, poolsPath, wholeObject, nil, maxPage)
	if apierrors.IsNotFound(err) {
		return nil, ErrNoPools
	}
	if err != nil {
		return nil, fmt.Errorf("listing MachineConfigPools: %w", err)
	}
	var out []pool
	for _, item := range list.Items {
		p := pool{raw: item}
		if err := json.Unmarshal(item, &p); err != nil {
			return nil, fmt.Errorf("reading a MachineConfigPool: %w", err)
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, ErrNoPools
	}
	return out, nil
}

func (c *Client) rolloutNodes(ctx context.Context, pools []pool, snapshots []rollout.Snapshot, agents string,
	now time.Time,
) error {
	known, err := c.Read(ctx, agents)
	if err != nil {
		return err
	}
	reports := map[string]rollout.Agent{}
	for _, n := range known.Status("", now).Nodes {
		reports[n.Name] = rollout.Agent{State: n.State, Reason: n.Reason, Message: n.Message, Desired: n.Desired}
	}
	for _, n := range known.nodes {
		in, err := poolOfNode(pools, n.labels)
		if err != nil {
			return err
		}
		for i := range snapshots {
			if snapshots[i].Pool.Name != in || n.windows {
				continue
			}
			snapshots[i].Nodes = append(snapshots[i].Nodes, rollout.Node{
				Name: n.name, Agent: reports[n.name],
				Current: n.annotations[mcoPrefix+"currentConfig"], Desired: n.annotations[mcoPrefix+"desiredConfig"],
				Daemon: n.annotations[mcoPrefix+"state"], Why: n.annotations[mcoPrefix+"reason"],
			})
		}
	}
	for _, s := range snapshots {
		slices.SortFunc(s.Nodes, func(x, y rollout.Node) int { return strings.Compare(x.Name, y.Name) })
	}
	return nil
}

// rolloutReader reads each MachineConfig at most once.
type rolloutReader struct {
	c      *Client
	bodies map[string]json.RawMessage // nil for a missing one
}

func (r *rolloutReader) config(ctx context.Context, name string) (json.RawMessage, error) {
	if b, ok := r.bodies[name]; ok {
		return b, nil
	}
	b, err := readJSON[json.RawMessage](ctx, r.c, configsPath+name, wholeObject, nil, maxObject)
	switch {
	case apierrors.IsNotFound(err):
		b = nil
	case err != nil:
		return nil, fmt.Errorf("reading MachineConfig %s: %w", name, err)
	}
	r.bodies[name] = b
	return b, nil
}

func (r *rolloutReader) snapshot(ctx context.Context, p pool, w Wanted) (rollout.Snapshot, error) {
	s := rollout.Snapshot{Pool: p.judged(), Name: w.Name, Want: w.Files, Ambiguous: w.ambiguous}
	if s.Name == "" {
		return s, nil
	}
	live, err := r.config(ctx, s.Name)
	if err != nil {
		return s, err
	}
	if live != nil && s.Want == nil {
		state, err := desired.Parse(live)
		if err != nil {
			s.Live.Err = err
			return s, nil
		}
		s.Want = state.Files
	}
	s.Live = holds(live, s.Want)
	if s.Pool.Rendered != "" {
		body, err := r.config(ctx, s.Pool.Rendered)
		if err != nil {
			return s, err
		}
		s.Rendered = holds(body, s.Want)
	}
	if s.Live.Found && s.Live.Err == nil && s.Rendered.Err == nil && s.Pending() {
		if s.Merge, err = r.merge(ctx, p, s); err != nil {
			return s, err
		}
	}
	return s, r.outdated(ctx, p, &s)
}

// outdated looks for changes of what was merged into the cluster's MachineConfig of this name.
func (r *rolloutReader) outdated(ctx context.Context, p pool, s *rollout.Snapshot) error {
	var live struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if !s.Live.Found || json.Unmarshal(r.bodies[s.Name], &live) != nil ||
		live.Metadata.Annotations[mco.MergedAnnotation] == "" {
		return nil
	}
	d, unclear, err := r.dump(ctx, p, append(slices.Clone(s.Pool.Source), s.Name))
	if s.OutdatedErr = unclear; d == nil {
		return err
	}
	i := slices.IndexFunc(d.Configs, func(c mco.Config) bool { return c.Name == s.Name })
	if i < 0 {
		s.OutdatedErr = fmt.Errorf("%s is gone", s.Name)
		return nil
	}
	s.Outdated, s.OutdatedErr = mco.Target{Dump: d, Pool: s.Pool.Name, Minor: d.Minor}.Outdated(d.Configs[i])
	return nil
}

func holds(body json.RawMessage, want trust.FileSet) rollout.Files {
	if body == nil {
		return rollout.Files{}
	}
	state, err := desired.Extract(body, func(path string) bool { _, ok := want.Get(path); return ok })
	if err != nil {
		return rollout.Files{Found: true, Err: err}
	}
	return rollout.Files{Found: true, Files: state.Files}
}

func (r *rolloutReader) merge(ctx context.Context, p pool, s rollout.Snapshot) (rollout.Merge, error) {
	names := append(slices.Clone(s.Pool.Source), s.Name)
	if len(names) > maxSources {
		return rollout.Merge{Err: fmt.Errorf("the pool has more than %d sources", maxSources)}, nil
	}
	dump, unclear, err := r.dump(ctx, p, names)
	if dump == nil {
		return rollout.Merge{Err: unclear}, err
	}
	sources, err := dump.Sources(s.Pool.Name, mco.OrderOf(dump.Minor))
	if err != nil {
		return rollout.Merge{Err: err}, nil
	}
	out := rollout.Merge{Owners: map[string]string{}}
	out.Selected = slices.ContainsFunc(sources, func(c mco.Config) bool { return c.Name == s.Name })
	files, err := dump.PoolFiles(s.Pool.Name, dump.Minor)
	if err != nil {
		return rollout.Merge{Err: err}, nil
	}
	for _, w := range s.Want {
		if f, ok := files[w.Path]; ok && (f.Err != nil || !bytes.Equal(f.Data, w.Data)) {
			out.Owners[w.Path] = f.Owner.Name
		}
	}
	return out, nil
}

// dump reads MachineConfigs by name, and the cluster's version, which determines their order. unclear is why what was
// read gives no dump.
func (r *rolloutReader) dump(ctx context.Context, p pool, names []string) (d *mco.Dump, unclear, err error) {
	items := []json.RawMessage{typed(p.raw, mcoGroup, "MachineConfigPool")}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		body, err := r.config(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		if body != nil {
			items = append(items, body)
		}
	}
	version, err := readJSON[json.RawMessage](ctx, r.c, versionPath, wholeObject, nil, maxObject)
	if err == nil {
		items = append(items, version)
	} else if !apierrors.IsNotFound(err) && !IsForbidden(err) {
		return nil, nil, fmt.Errorf("reading the ClusterVersion: %w", err)
	}
	d = &mco.Dump{}
	for _, item := range items {
		if err := d.Add(item); err != nil {
			return nil, err, nil
		}
	}
	return d, nil, nil
}

func typed(raw json.RawMessage, version, kind string) json.RawMessage {
	var o map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil || o["kind"] != nil {
		return raw
	}
	o["kind"], o["apiVersion"] = json.RawMessage(`"`+kind+`"`), json.RawMessage(`"`+version+`"`)
	if b, err := json.Marshal(o); err == nil {
		return b
	}
	return raw
}

// find returns our MachineConfigs, by the annotation of a digest, among the pools' sources: of each pool the one that
// is merged last. It leaves out pools without one, except only.
func (r *rolloutReader) find(ctx context.Context, pools []pool, only string) ([]Wanted, error) {
	var out []Wanted
	ours := map[string]bool{}
	for _, p := range pools {
		name := p.Metadata.Name
		if only != "" && name != only {
			continue
		}
		if len(p.Spec.Configuration.Source) > maxSources {
			return nil, fmt.Errorf("pool %s has more than %d sources", name, maxSources)
		}
		var found []string
		for _, s := range p.Spec.Configuration.Source {
			is, seen := ours[s.Name]
			if !seen {
				var err error
				if is, err = r.isOurs(ctx, s.Name); err != nil {
					return nil, err
				}
				ours[s.Name] = is
			}
			if is {
				found = append(found, s.Name)
			}
		}
		if len(found) > 1 {
			last, ambiguous, err := r.last(ctx, p, found)
			if err != nil {
				return nil, err
			}
			if ambiguous != nil {
				out = append(out, Wanted{Pool: name, ambiguous: ambiguous})
				continue
			}
			found = []string{last}
		}
		switch {
		case len(found) == 1:
			out = append(out, Wanted{Pool: name, Name: found[0]})
		case only != "":
			out = append(out, Wanted{Pool: name})
		}
	}
	if only != "" && len(out) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrPool, only)
	}
	return out, nil
}

func (r *rolloutReader) isOurs(ctx context.Context, name string) (bool, error) {
	o, err := readJSON[metav1.PartialObjectMetadata](ctx, r.c, configsPath+name, metadataOnly, nil, maxObject)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading MachineConfig %s: %w", name, err)
	}
	return o.Annotations[desired.DigestAnnotation] != "", nil
}

// last returns the MachineConfig that is merged last; ambiguous is why it is unknown.
func (r *rolloutReader) last(ctx context.Context, p pool, names []string) (name string, ambiguous, err error) {
	d, unclear, err := r.dump(ctx, p, slices.Clone(names))
	if err != nil {
		return "", nil, fmt.Errorf("pool %s: %w", p.Metadata.Name, err)
	}
	if unclear != nil {
		return "", unclear, nil
	}
	files, err := d.PoolFiles(p.Metadata.Name, d.Minor)
	if err != nil {
		return "", err, nil
	}
	policy, ok := files[trust.PolicyPath]
	if !ok {
		return "", fmt.Errorf("none of %s has a %s", strings.Join(names, ", "), trust.PolicyPath), nil
	}
	return policy.Owner.Name, nil, nil
}
